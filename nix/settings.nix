# The types of the daemon's keys, made from its own table (keys.json), and their text in portsentry.conf.
{ lib }:

let
  inherit (lib) types;
  table = lib.importJSON ./keys.json;
  byName = lib.listToAttrs (map (key: lib.nameValuePair key.name key) table.keys);

  # A range of ports or a whole list of them, as the daemon reads it; whether a number is too large it says itself.
  portText = types.strMatching "[0-9]+( *- *[0-9]+)?( *, *[0-9]+( *- *[0-9]+)?)*";
  port = types.either types.port portText;

  # One or several: `7` is `[ 7 ]`.
  several = type: types.coercedTo type lib.singleton (types.listOf type);

  isQuotable = text: !(lib.hasInfix "\"" text && lib.hasInfix "'" text);
  text = key:
    types.addCheck types.singleLineStr (it: isQuotable it && lib.hasInfix key."with" it)
    // { description = "${key.allowed}, in one line and without one of the two kinds of quotes"; };

  typeOf = key:
    if key.kind == "ports" then several port
    else if key.kind == "path" then
      types.addCheck types.path (path: lib.stringLength (toString path) <= key.longest)
      // { description = key.allowed; }
    else if key.kind == "switch" then types.either types.bool (types.enum [ 0 1 ])
    else if key.kind == "number" then types.ints.between key.least key.most
    else if key.kind == "duration" then
      types.either (types.either types.ints.positive (types.enum [ (-1) "-1" "forever" ]))
        (types.strMatching "([0-9]+[smhdw]? *)+")
    else if key.kind == "words" then types.enum key.words
    else if key.kind == "list" then
      several (if key.words == null then types.strMatching "[^ \t,\"']+" else types.enum key.words)
    else if key.kind == "text" then text key
    else throw "nix/keys.json: ${key.name} is of a kind that nix/settings.nix does not know: ${key.kind}";

  option = key: lib.mkOption
    {
      type = types.nullOr (typeOf key);
      default = null;
      description = "${key.help} (${key.allowed}).";
    } // lib.optionalAttrs (key.default != "") { defaultText = key.default; };

  show = value:
    if value == true then "1"
    else if value == false then "0"
    else if builtins.isList value then lib.concatMapStringsSep "," toString value
    else toString value;

  quoted = text: if lib.hasInfix "\"" text then "'${text}'" else "\"${text}\"";
in
{
  inherit port;
  inherit (table) version;

  options = lib.mapAttrs (_: option) byName;

  # What a daemon of another version may take besides.
  freeform = types.attrsOf (types.nullOr (types.oneOf [ types.bool types.int types.str (types.listOf types.str) ]));

  # Names in `settings` that are no keys, each with the key that may be meant.
  unknown = settings:
    let
      distance = name: key: lib.strings.levenshtein name key;
      nearest = name: lib.head (lib.sort (a: b: distance name a < distance name b) (lib.attrNames byName));
    in
    map (name: "${name} is no key of portsentry-rs; did you mean ${nearest name}?")
      (lib.attrNames (removeAttrs settings (lib.attrNames byName)));

  # portsentry.conf, in the order of the alphabet.
  render = settings:
    lib.concatStrings (lib.mapAttrsToList (name: value: "${name}=${quoted (show value)}\n")
      (lib.filterAttrs (_: value: value != null && value != [ ]) settings));
}
