//! What `make install` puts where. Needs `make build` first (PORTSENTRY_RELEASE names its folder).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAMS: [&str; 2] = ["usr/local/sbin/portsentry-rs", "usr/local/sbin/portsentry-rs-helper"];
const SERVICE: [&str; 3] = [
    "usr/local/lib/systemd/system/portsentry-rs.service",
    "usr/local/lib/systemd/catalog/portsentry-rs.catalog",
    "usr/local/lib/sysusers.d/portsentry-rs.conf",
];
/// What the documentation tells to copy, and where the unit and `check` send the reader.
const SHARED: [&str; 7] = [
    "usr/local/share/portsentry-rs/docs/migrating.md",
    "usr/local/share/portsentry-rs/config/portsentry.conf",
    "usr/local/share/portsentry-rs/config/portsentry.ignore",
    "usr/local/share/portsentry-rs/config/event.schema.json",
    "usr/local/share/portsentry-rs/config/logrotate",
    "usr/local/share/portsentry-rs/config/fail2ban/filter.d/portsentry-rs.conf",
    "usr/local/share/portsentry-rs/config/fail2ban/jail.d/portsentry-rs.conf",
];
const CONFIGURATION: [&str; 2] = ["etc/portsentry/portsentry.conf", "etc/portsentry/portsentry.ignore"];

/// `make` with what is built already; a name with a space shows whether all is quoted.
fn make(goal: &str, root: &Path) -> Output {
    make_with(goal, root, &[])
}

fn make_with(goal: &str, root: &Path, variables: &[&str]) -> Output {
    let release = std::env::var_os("PORTSENTRY_RELEASE").map(PathBuf::from);
    let release = release.expect("PORTSENTRY_RELEASE names the folder of the release build: run `make test`");
    Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--no-print-directory", "--old-file=build", goal])
        .arg(format!("RELEASE={}", release.display()))
        .arg(format!("DESTDIR={}", root.display()))
        .args(variables)
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make is installed")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o777
}

#[test]
fn install_and_uninstall_keep_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a root");
    let installed = make("install", &root);
    assert!(installed.status.success(), "{installed:?}");
    PROGRAMS.iter().for_each(|file| assert_eq!(mode(&root.join(file)), 0o755, "{file}"));
    let plain = CONFIGURATION.iter().chain(&SERVICE).chain(&SHARED);
    plain.for_each(|file| assert_eq!(mode(&root.join(file)), 0o644, "{file}"));

    links_lead_somewhere(&root.join("usr/local/share/portsentry-rs/docs"));

    let ours = root.join(CONFIGURATION[0]);
    fs::write(&ours, "TCP_PORTS=\"111\"\n").unwrap();
    assert!(make("install", &root).status.success());
    let uninstalled = make("uninstall", &root);
    assert!(uninstalled.status.success(), "{uninstalled:?}");
    let gone = PROGRAMS.iter().chain(&SERVICE).chain(&SHARED);
    gone.for_each(|file| assert!(!root.join(file).exists(), "{file}"));
    assert!(!root.join("usr/local/share/portsentry-rs").exists());
    assert_eq!(fs::read_to_string(&ours).unwrap(), "TCP_PORTS=\"111\"\n");
    assert!(String::from_utf8_lossy(&uninstalled.stdout).contains("kept: "), "{uninstalled:?}");
}

/// What the pages in `docs` point to is there, by the path that they give.
fn links_lead_somewhere(docs: &Path) {
    let pages = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let mut followed = 0;
    for page in pages.filter(|page| page.extension().is_some_and(|it| it == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(docs.join(link).exists(), "{}: {link}", page.display());
            followed += 1;
        }
    }
    assert!(followed > 0);
}

#[test]
fn the_unit_names_the_programs_where_they_were_installed() {
    let folder = tempfile::tempdir().unwrap();
    let installed = make_with("install", folder.path(), &["PREFIX=/usr"]);
    assert!(installed.status.success(), "{installed:?}");
    let unit =
        fs::read_to_string(folder.path().join("usr/lib/systemd/system/portsentry-rs.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/sbin/portsentry-rs\n"), "{unit}");
    assert!(unit.contains("/usr/share/portsentry-rs)"), "{unit}");
    assert!(!unit.contains("/usr/local"), "{unit}");
}

#[test]
fn what_cannot_be_installed_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    // A file stands where the folder of the first configuration file should be.
    fs::write(folder.path().join("etc"), "").unwrap();
    let installed = make("install", folder.path());
    assert!(!installed.status.success(), "{installed:?}");
}
