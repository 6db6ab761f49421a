# Evaluates the module with nixpkgs' `lib` alone, where there is no nixpkgs: what NixOS declares is declared here as far
# as the module sets it. tests/nixos_module.rs compares the result and runs what it would run.
#
#   nix-instantiate --eval --strict --json nix/eval-test.nix --arg lib 'import ./nixpkgs.lib/lib' --arg module ./my.nix
{ lib
, module
, package ? "/nix/store/portsentry-rs"
}:

let
  inherit (lib) mkOption types;
  anything = default: mkOption { type = types.anything; inherit default; };
  ports = mkOption { type = types.listOf types.port; default = [ ]; };
  portRanges = mkOption { type = types.listOf (types.attrsOf types.port); default = [ ]; };
  # systemd's directives: a word or a list of words.
  directive = types.either (types.oneOf [ types.str types.int types.bool ]) (types.listOf types.str);
  directives = mkOption { type = types.attrsOf directive; default = { }; };

  nixos = {
    options = {
      assertions = mkOption { type = types.listOf types.attrs; default = [ ]; };
      warnings = mkOption { type = types.listOf types.str; default = [ ]; };
      boot.kernelModules = mkOption { type = types.listOf types.str; default = [ ]; };
      environment.etc = anything { };
      environment.systemPackages = anything [ ];
      networking.firewall.enable = mkOption { type = types.bool; default = true; };
      networking.firewall.allowedTCPPorts = ports;
      networking.firewall.allowedUDPPorts = ports;
      networking.firewall.allowedTCPPortRanges = portRanges;
      networking.firewall.allowedUDPPortRanges = portRanges;
      networking.nftables.enable = mkOption { type = types.bool; default = false; };
      networking.nftables.flushRuleset = mkOption { type = types.bool; default = false; };
      systemd.services = mkOption {
        type = types.attrsOf (types.submodule {
          options = {
            wantedBy = mkOption { type = types.listOf types.str; default = [ ]; };
            unitConfig = directives;
            serviceConfig = directives;
          };
        });
        default = { };
      };
      users.users = anything { };
      users.groups = anything { };
    };
  };

  pkgs = {
    stdenv = { buildPlatform.canExecute = _: true; hostPlatform = { }; };
    coreutils = "/nix/store/coreutils";
    callPackage = _: _: { type = "derivation"; name = "portsentry-rs"; outPath = package; };
    runCommand = name: attributes: script: attributes // { type = "derivation"; inherit name script; outPath = "/nix/store/${name}"; };
  };

  evaluated = lib.evalModules {
    modules = [ nixos module { config._module.args = { inherit pkgs; }; } ];
    specialArgs.portsentry-rs.nixosModules.default = ./module.nix;
  };
  inherit (evaluated) config;
  service = config.systemd.services.portsentry-rs;
  shown = value: if value == true then "true" else if value == false then "false" else toString value;
  section = name: directives:
    "[${name}]\n" + lib.concatStrings (lib.mapAttrsToList
      (key: values: lib.concatMapStrings (value: "${key}=${shown value}\n") (lib.toList values))
      directives);

  # As NixOS does it.
  failed = map (it: it.message) (builtins.filter (it: !it.assertion) config.assertions);
  passed = result: if failed == [ ] then result else throw "Failed assertions:\n- ${lib.concatStringsSep "\n- " failed}";
in
passed {
  unit = section "Unit" service.unitConfig
    + section "Service" service.serviceConfig
    + section "Install" { WantedBy = service.wantedBy; };
  # Its parts, for a test to build it.
  configuration = { inherit (config.services.portsentry-rs.configuration) script configuration ignored; };
  # As the manual shows them.
  defaults = lib.mapAttrs (_: option: option.defaultText or "")
    (removeAttrs (evaluated.options.services.portsentry-rs.settings.type.getSubOptions [ ]) [ "_module" "_freeformOptions" ]);
  inherit (config) warnings;
  inherit (config.boot) kernelModules;
  firewall = removeAttrs config.networking.firewall [ "enable" ];
}
