# A host and an attacker in virtual machines: the module as NixOS builds it, scanned by nmap. Needs nixpkgs and KVM:
#
#   nix build --print-build-logs .#checks.x86_64-linux.vm
{ pkgs }:

pkgs.testers.runNixOSTest {
  name = "portsentry-rs";

  nodes = {
    host = {
      imports = [ ./module.nix ];
      services.portsentry-rs = {
        enable = true;
        ignore = [ "192.0.2.10" ];
        settings.TCP_PORTS = [ "1-100" ];
        decoys.tcp = [ 2323 ];
        openFirewall = true;
      };
      environment.systemPackages = [ pkgs.nftables ];
      services.nginx.enable = true;
      networking.firewall.allowedTCPPorts = [ 80 ];
    };
    attacker.environment.systemPackages = [ pkgs.nmap pkgs.netcat ];
  };

  testScript = ''
    start_all()
    host.wait_for_unit("portsentry-rs.service")
    host.wait_for_unit("nginx.service")
    attacker.wait_for_unit("multi-user.target")

    attacker.succeed("nc -z -w 5 host 80")

    # Right after the boot services are awaited on the watched ports: it is those above that tell.
    attacker.succeed("nmap -n -Pn -sS --max-retries 1 -p 1-130 host")
    host.wait_until_succeeds("journalctl -u portsentry-rs PORTSENTRY_EVENT=block -o json | grep -q blocked")
    host.succeed("nft list table inet portsentry | grep -q expires")
    attacker.fail("nc -z -w 5 host 80")

    host.succeed("systemctl restart portsentry-rs.service")
    attacker.fail("nc -z -w 5 host 80")
    host.succeed("portsentry-rs unblock all")
    attacker.succeed("nc -z -w 5 host 80")

    # The decoy answers, and who talks to it has shown who it is.
    attacker.succeed("nc -w 5 host 2323 </dev/null || true")
    host.wait_until_succeeds("nft list table inet portsentry | grep -q expires")

    print(host.succeed("systemd-analyze security --threshold=18 portsentry-rs.service"))
  '';
}
