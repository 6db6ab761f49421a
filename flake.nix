{
  description = "Port-scan detection and response: decoys, packet rings, a confined sensor and a minimal firewall helper";

  # The one input. No lock is kept here: the first `nix build` writes one, and who takes this as an input has it follow a
  # nixpkgs of their own.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEach = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      package = pkgs: pkgs.callPackage ./nix/package.nix { };
      example = { portsentry-rs, ... }: {
        imports = [ portsentry-rs.nixosModules.default ];
        services.portsentry-rs = { enable = true; ignore = [ "192.0.2.10" ]; settings.TCP_PORTS = [ 1 ]; };
      };
    in
    {
      packages = forEach (pkgs: {
        default = package pkgs;
        musl = package pkgs.pkgsStatic;
      });

      overlays.default = final: _: { portsentry-rs = package final; };

      nixosModules.default = ./nix/module.nix;

      checks = forEach (pkgs: {
        package = package pkgs;
        vm = import ./nix/vm-test.nix { inherit pkgs; };
        module = pkgs.writeText "portsentry-rs.service"
          (import ./nix/eval-test.nix { inherit (nixpkgs) lib; module = example; }).unit;
        format = pkgs.runCommand "format" { } ''
          ${pkgs.nixpkgs-fmt}/bin/nixpkgs-fmt --check ${self}/flake.nix ${self}/nix
          ${pkgs.deadnix}/bin/deadnix --fail ${self}/flake.nix ${self}/nix
          touch "$out"
        '';
      });

      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [ cargo rustc clippy rustfmt nftables iproute2 nmap deadnix nixpkgs-fmt ];
        };
      });

      formatter = forEach (pkgs: pkgs.nixpkgs-fmt);
    };
}
