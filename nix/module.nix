# services.portsentry-rs: the shipped unit (config/portsentry-rs.service) with a configuration from the store, which
# `portsentry-rs check` has passed before the system is built.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;
  cfg = config.services.portsentry-rs;
  here = "services.portsentry-rs";
  keys = import ./settings.nix { inherit lib; };
  shipped = import ./unit.nix { inherit lib; } (builtins.readFile ../config/portsentry-rs.service);

  # Keys that are the unit's or another option's.
  taken = {
    IGNORE_FILE = "use ${here}.ignore: where the configuration is checked no other file of this host is to be seen";
    STATE_DIR = "the unit's StateDirectory is /var/lib/portsentry-rs, and nothing else can be written";
    CONTROL_SOCKET = "the unit's RuntimeDirectory is /run/portsentry-rs, and nothing else can be written";
    RUN_AS = "the unit's User is portsentry from the start, and root is never had";
    KILL_HOSTS_DENY = "the unit is no root and /etc is read-only for it; block with nftables or route";
  };
  # Ways to block that cannot work here.
  impossible = {
    iptables = "the daemon looks for the iptables programs in /usr/sbin and the like, which NixOS has not; nftables needs no program, and goes together with networking.firewall whatever that is made of";
    hosts_deny = taken.KILL_HOSTS_DENY;
  };

  # What other options say of these keys, where the daemon's own default would not be true.
  defaultTexts = {
    BLOCK_WITH = "${here}.blockWith";
    BLOCK_TCP = "1, or 0 where ${here}.blockWith is empty";
    BLOCK_UDP = "1, or 0 where ${here}.blockWith is empty";
    DECOY_TCP_PORTS = "${here}.decoys.tcp";
    DECOY_UDP_PORTS = "${here}.decoys.udp";
  };
  options = lib.recursiveUpdate keys.options (lib.mapAttrs (_: defaultText: { inherit defaultText; }) defaultTexts);

  set = lib.filterAttrs (_: value: value != null && value != [ ]) cfg.settings;
  ways = set.BLOCK_WITH or [ ];
  blocksWith = way: builtins.elem way ways;
  allAsserted = lib.mapAttrsToList (name: reason: {
    assertion = !(set ? ${name});
    message = "${here}.settings.${name}: ${reason}";
  });

  # Where the unit may write, as it stands in the end; STATE_DIR holds the ledger alone.
  unit = config.systemd.services.portsentry-rs.serviceConfig;
  wordsOf = directive: builtins.filter (word: word != "") (lib.concatMap (lib.splitString " ") (lib.toList (unit.${directive} or [ ])));
  below = root: map (folder: "${root}/${folder}");
  writable = below "/var/lib" (lib.remove "portsentry-rs" (wordsOf "StateDirectory"))
    ++ below "/var/log" (wordsOf "LogsDirectory")
    ++ below "/run" (wordsOf "RuntimeDirectory")
    ++ map (folder: lib.head (builtins.match "[-+]*(.*)" folder)) (wordsOf "ReadWritePaths");
  isWritable = path: lib.any (folder: lib.hasPrefix "${lib.removeSuffix "/" folder}/" (toString path)) writable;
  mustBeWritable = name: {
    assertion = !(set ? ${name}) || isWritable set.${name};
    message = "${here}.settings.${name}: nothing that the unit may write beside its ledger; name a file in /var/log/portsentry-rs, or its folder, which the user portsentry must own, in systemd.services.portsentry-rs.serviceConfig.ReadWritePaths";
  };

  onlyReported = name: {
    assertion = ways != [ ] || set.${name} or 0 != 1;
    message = "${here}.settings.${name} = 1 blocks, while with ${here}.blockWith = [ ] alarms are only reported; name a way to block there, or leave ${name} out";
  };

  isOpen = numbers: ranges: port:
    builtins.elem port numbers || lib.any (range: range.from <= port && port <= range.to) ranges;
  firewall = config.networking.firewall;
  shut =
    builtins.filter (port: !isOpen firewall.allowedTCPPorts firewall.allowedTCPPortRanges port) (single cfg.decoys.tcp)
    ++ builtins.filter (port: !isOpen firewall.allowedUDPPorts firewall.allowedUDPPortRanges port) (single cfg.decoys.udp);

  # Ports by themselves, and ranges as the firewall wants them.
  single = builtins.filter builtins.isInt;
  ranges = ports: map rangeOf (builtins.filter builtins.isString ports);
  rangeOf = text:
    let ends = map lib.toInt (builtins.match "([0-9]+)-([0-9]+)" text);
    in { from = builtins.head ends; to = lib.last ends; };
  decoys = protocol: mkOption {
    type = types.listOf (types.either types.port (types.strMatching "[0-9]+-[0-9]+"));
    default = [ ];
    example = [ 23 "6000-6010" ];
    description = "${protocol} ports, and ranges of them, on which the daemon answers where no service does.";
  };

  # A folder of its own, for the sensor may read the folder of its configuration.
  checked = pkgs.runCommand "portsentry-rs-configuration"
    {
      configuration = keys.render cfg.settings;
      ignored = lib.concatMapStrings (network: "${network}\n") cfg.ignore;
      passAsFile = [ "configuration" "ignored" ];
    } ''
    mkdir "$out"
    cp "$ignoredPath" "$out/portsentry.ignore"
    cp "$configurationPath" "$out/portsentry.conf"
    echo "IGNORE_FILE=\"$out/portsentry.ignore\"" >> "$out/portsentry.conf"
    ${lib.optionalString canCheck ''${program} check -c "$out/portsentry.conf" > "$out/in-force.txt"''}
  '';
  # What is built for another machine cannot be run here.
  canCheck = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
  program = "${cfg.package}/bin/portsentry-rs";

  # Ours only by its files: each directive can be set anew without mkForce.
  ofUnit = lib.mapAttrs (_: mkDefault);
in
{
  options.services.portsentry-rs = {
    enable = mkEnableOption "portsentry-rs, which sees port scans and blocks those who make them";

    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package with both programs.";
    };

    settings = mkOption {
      type = types.submodule { freeformType = keys.freeform; inherit options; };
      default = { };
      example = { TCP_PORTS = [ 1 7 "20-25" 111 ]; BLOCK_TIME = "2h"; SENSITIVITY = "high"; };
      description = "The keys of portsentry.conf (docs/configuration.md). What is not set has the daemon's default, but for what other options say: alarms block unless blockWith is empty (BLOCK_TCP, BLOCK_UDP: 1), and BLOCK_WITH, DECOY_TCP_PORTS and DECOY_UDP_PORTS are blockWith and decoys.";
    };

    ignore = mkOption {
      type = types.listOf (types.strMatching "[0-9A-Fa-f.:/]+");
      default = [ ];
      example = [ "192.0.2.10" "2001:db8:1234::/48" ];
      description = "Addresses and networks that are never blocked: first of all where you administer this host from.";
    };

    decoys = { tcp = decoys "TCP"; udp = decoys "UDP"; };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the decoys can be reached. Ports that are only watched need no opening: packets are seen before the firewall.";
    };

    blockWith = mkOption {
      type = keys.options.BLOCK_WITH.type.nestedTypes.elemType or keys.options.BLOCK_WITH.type;
      default = [ "nftables" ];
      example = [ "nftables" "route" ];
      description = "How to block, in this order. Nothing: alarms are only reported.";
    };

    configuration = mkOption {
      type = types.package;
      default = checked;
      readOnly = true;
      defaultText = "made from the other options";
      description = "The folder with portsentry.conf and portsentry.ignore, and with what `check` said of them.";
    };
  };

  config = mkIf cfg.enable {
    services.portsentry-rs.settings = {
      BLOCK_WITH = mkDefault cfg.blockWith;
      BLOCK_TCP = mkDefault (if cfg.blockWith == [ ] then 0 else 1);
      BLOCK_UDP = mkDefault (if cfg.blockWith == [ ] then 0 else 1);
      DECOY_TCP_PORTS = cfg.decoys.tcp;
      DECOY_UDP_PORTS = cfg.decoys.udp;
    };

    assertions = [
      {
        assertion = lib.any (key: set ? ${key}) [ "TCP_PORTS" "UDP_PORTS" "DECOY_TCP_PORTS" "DECOY_UDP_PORTS" ];
        message = "${here}: there is no port to watch; set ${here}.settings.TCP_PORTS, settings.UDP_PORTS, decoys.tcp or decoys.udp";
      }
      {
        assertion = ways == cfg.blockWith;
        message = "${here}.settings.BLOCK_WITH and ${here}.blockWith say different things; set blockWith alone";
      }
      {
        assertion = !(blocksWith "command") || set ? KILL_ROUTE;
        message = "${here}.blockWith: command needs ${here}.settings.KILL_ROUTE, the command that blocks";
      }
      {
        assertion = (cfg.package.version or keys.version) != keys.version || keys.unknown cfg.settings == [ ];
        message = "${here}.settings: ${lib.concatStringsSep "; " (keys.unknown cfg.settings)}";
      }
      {
        assertion = !cfg.openFirewall || cfg.decoys.tcp != [ ] || cfg.decoys.udp != [ ];
        message = "${here}.openFirewall opens the ports of decoys, and there are none; set ${here}.decoys, or leave it out: watched ports need no opening";
      }
    ]
    ++ map onlyReported [ "BLOCK_TCP" "BLOCK_UDP" ]
    ++ allAsserted taken
    ++ map mustBeWritable [ "HISTORY_FILE" "BLOCKED_FILE" ]
    ++ lib.mapAttrsToList (way: reason: { assertion = !(blocksWith way); message = "${here}.blockWith: ${way}: ${reason}"; }) impossible;

    warnings =
      lib.optional (cfg.ignore == [ ] && !(set ? NEVER_BLOCK))
        "${here}.ignore is empty: put the addresses there from which you administer this host"
      ++ lib.optional (firewall.enable && shut != [ ])
        "${here}.decoys: the firewall lets nobody through to ${lib.concatMapStringsSep ", " toString shut}; set ${here}.openFirewall"
      ++ lib.optional (blocksWith "nftables" && config.networking.nftables.enable && config.networking.nftables.flushRuleset)
        "networking.nftables.flushRuleset deletes the blocks of ${here} with every reload of the firewall; they are put back within ten seconds. Without a gap: networking.nftables.flushRuleset = false";

    networking.firewall = mkIf cfg.openFirewall {
      allowedTCPPorts = single cfg.decoys.tcp;
      allowedTCPPortRanges = ranges cfg.decoys.tcp;
      allowedUDPPorts = single cfg.decoys.udp;
      allowedUDPPortRanges = ranges cfg.decoys.udp;
    };

    users.users.portsentry = { isSystemUser = true; group = "portsentry"; };
    users.groups.portsentry = { };

    # Where modules cannot be loaded on demand (security.lockKernelModules) they must be there before.
    # The tripwire asks for three expressions that nf_tables itself does not have. Where no way to block is named nftables
    # is there for the operator's own blocks.
    boot.kernelModules = [ "af_packet" "tcp_diag" "udp_diag" ]
      ++ lib.optionals (ways == [ ] || blocksWith "nftables") [ "nf_tables" "nft_fib_inet" "nft_socket" "nft_limit" ];

    # For `status`, `list` and their like, which look here for the way to the daemon.
    environment.etc."portsentry/portsentry.conf".source = "${cfg.configuration}/portsentry.conf";
    environment.systemPackages = [ cfg.package ];

    systemd.services.portsentry-rs = {
      wantedBy = lib.splitString " " shipped.Install.WantedBy;
      unitConfig = ofUnit shipped.Unit;
      serviceConfig = ofUnit (shipped.Service // {
        ExecStartPre = "${program} check --quiet -c ${cfg.configuration}/portsentry.conf";
        ExecStart = "${program} -c ${cfg.configuration}/portsentry.conf";
        ExecReload = [
          "${program} check --quiet -c ${cfg.configuration}/portsentry.conf"
          "${pkgs.coreutils}/bin/kill -HUP $MAINPID"
        ];
      });
    };
  };
}
