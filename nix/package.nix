# Both programs, static: with musl where the package set is pkgsStatic, else with glibc as `make build` does it.
{ lib
, rustPlatform
, stdenv
}:

let
  fs = lib.fileset;
  manifest = lib.importTOML ../Cargo.toml;
  isGnu = stdenv.hostPlatform.isGnu;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  src = fs.toSource {
    root = ../.;
    fileset = fs.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../LICENSE-APACHE
      ../LICENSE-MIT
      ../README.md
      ../benches
      ../config
      ../docs
      ../src
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # musl is static by itself. buildRustPackage names its target, so that build scripts are left out of this.
  buildInputs = lib.optional isGnu stdenv.cc.libc.static;
  env = lib.optionalAttrs isGnu {
    RUSTFLAGS = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs";
  };

  # The tests are root in network namespaces of their own, with nmap and nft: a build sandbox has none of that.
  doCheck = false;

  # The sensor looks for the helper beside itself: both stay in one folder.
  postInstall = ''
    for file in README.md docs/* config/fail2ban/*/* config/logrotate config/portsentry.conf config/portsentry.ignore config/event.schema.json; do
      install -D -m 644 "$file" "$out/share/portsentry-rs/$file"
    done
    install -D -m 644 -t "$out/lib/systemd/catalog" config/portsentry-rs.catalog
    install -D -m 644 -t "$out/share/licenses/portsentry-rs" LICENSE-APACHE LICENSE-MIT
  '';

  meta = {
    inherit (manifest.package) description;
    homepage = manifest.package.repository;
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "portsentry-rs";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
