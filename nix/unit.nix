# A systemd unit's text as sets: { Unit = { After = "…"; }; Service = { …; }; Install = { …; }; }. A directive that stands
# there several times is a list. So the module says the very same as the unit that is shipped, without saying it twice.
{ lib }:

text:
let
  isWanted = line: line != "" && !lib.hasPrefix "#" line && !lib.hasPrefix ";" line;
  whole = builtins.replaceStrings [ "\\\n" ] [ " " ] text;
  lines = builtins.filter isWanted (map lib.trim (lib.splitString "\n" whole));

  sectionOf = line: builtins.match "\\[(.*)]" line;
  directiveOf = line: builtins.match "([A-Za-z0-9]+)[ \t]*=[ \t]*(.*)" line;

  read =
    state: line:
    let
      section = sectionOf line;
      directive = directiveOf line;
      name = builtins.elemAt directive 0;
      before = state.sections.${state.section}.${name} or [ ];
      values = before ++ [ (builtins.elemAt directive 1) ];
    in
    if section != null then
      state // { section = builtins.head section; }
    else if directive == null then
      throw "this line of a unit is neither a section nor a directive: ${line}"
    else
      state // {
        sections = lib.recursiveUpdate state.sections { ${state.section}.${name} = values; };
      };

  sections = (lib.foldl' read { section = null; sections = { }; } lines).sections;
  single = values: if builtins.length values == 1 then builtins.head values else values;
in
lib.mapAttrs (_: lib.mapAttrs (_: single)) sections
