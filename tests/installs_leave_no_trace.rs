//! What `make test` and `make demo` install is all they leave: never a policy-rc.d, which keeps every service of the machine
//! from starting; in a mount namespace, with an apt-get that only pretends. Nor a process.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use support::daemon::PATIENCE;
use support::{Lab, eventually, processes};
use tempfile::TempDir;

/// /usr/sbin as need.sh sees it, and an apt-get that keeps what stands there and then does as it is told.
struct Machine(TempDir);

impl Machine {
    fn new(apt_get: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        for folder in ["sbin", "bin"] {
            fs::create_dir(machine.0.path().join(folder)).unwrap();
        }
        let path = machine.0.path().join("bin/apt-get");
        fs::write(
            &path,
            format!("#!/bin/sh\ncp /usr/sbin/policy-rc.d {} 2>/dev/null\n{apt_get}\n", machine.at("seen")),
        )
        .unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        machine
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.path().join(name)).ok()
    }

    fn needs(&self, pair: &str) -> Output {
        let script = format!(
            "mount --bind {} /usr/sbin && PATH={}:/usr/bin:/bin exec tests/support/need.sh {pair}",
            self.at("sbin"),
            self.at("bin")
        );
        // A shell cannot trap what was ignored when it began, as it is below nohup or in the background of another.
        Command::new("env")
            .args(["--default-signal=HUP,INT,TERM", "unshare", "--mount", "sh", "-c", &script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("unshare is there")
    }
}

#[test]
fn whatever_ends_an_installation_services_start_afterwards() {
    for (ended_by, code) in
        [("exit 1", 1), ("kill -INT $PPID", 130), ("kill -TERM $PPID", 143), ("kill -HUP $PPID", 129)]
    {
        let machine = Machine::new(ended_by);
        let output = machine.needs("/no/such/file:some-package");
        assert!(machine.read("seen").is_some_and(|it| it.contains("exit 101")), "{ended_by}: {output:?}");
        assert_eq!(
            (output.status.code(), machine.read("sbin/policy-rc.d")),
            (Some(code), None),
            "{ended_by}"
        );
    }
}

#[test]
fn what_a_crash_left_goes_with_the_next_run_and_anybody_elses_stays() {
    let machine = Machine::new("exit 1");
    let _ = machine.needs("/no/such/file:some-package");
    fs::rename(machine.at("seen"), machine.at("sbin/policy-rc.d")).unwrap();
    assert!(machine.needs("/:nothing").status.success());
    assert_eq!(machine.read("sbin/policy-rc.d"), None);
    let theirs = "#!/bin/sh\nexit 101\n";
    fs::write(machine.at("sbin/policy-rc.d"), theirs).unwrap();
    let _ = machine.needs("/no/such/file:some-package");
    assert_eq!(machine.read("sbin/policy-rc.d").as_deref(), Some(theirs));
}

#[test]
fn what_still_runs_in_a_lab_ends_with_it() {
    let lab = Lab::new(1);
    let hosts = [lab.target(), lab.peer(0).netns.clone()];
    let mut left = hosts.map(|host| {
        let sleep = ["netns", "exec", &host, "sleep", "600"];
        let child = Command::new("ip").args(sleep).spawn().unwrap();
        eventually("it runs there", PATIENCE, || processes(&host) == [child.id()]);
        child
    });
    drop(lab);
    for child in &mut left {
        eventually("it has ended", PATIENCE, || child.try_wait().unwrap().is_some());
    }
}
