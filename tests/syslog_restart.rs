//! rsyslog restarted in mid-run: no event is lost once it is back, and none is forged by bytes from the network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Lab, eventually};

const SOON: Duration = Duration::from_secs(20);

/// An rsyslog of our own at `socket`.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(folder: &Path, socket: &Path) -> Rsyslog {
        let (conf, log) = (folder.join("rsyslog.conf"), folder.join("log"));
        let text = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{}\" CreatePath=\"on\")\n\
             template(name=\"all\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% %syslogtag%%msg%\\n\")\n\
             *.* action(type=\"omfile\" file=\"{}\" template=\"all\")\n",
            socket.display(),
            log.display()
        );
        std::fs::write(&conf, text).unwrap();
        let _ = std::fs::remove_file(socket);
        let server = Command::new("rsyslogd")
            .args(["-n", "-f"])
            .arg(&conf)
            .arg("-i")
            .arg(folder.join("rsyslog.pid"))
            .stdout(Stdio::null())
            .spawn()
            .expect("rsyslog is installed");
        let server = Rsyslog(server);
        eventually("rsyslog listens", SOON, || socket.exists());
        // Every user may log.
        std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        server
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The daemon with a /dev of its own, in which `log` is our socket: nothing of this machine's own log is touched.
fn daemon(lab: &Lab, folder: &Path, socket: &Path, flags: &str) -> Child {
    let script = format!(
        "mount -t tmpfs none /mnt && touch /mnt/log && for f in null zero urandom; do touch /mnt/$f; mount --bind /dev/$f /mnt/$f; done; \
         rm -f /mnt/log && ln -s {} /mnt/log && mount --move /mnt /dev && cd {} && exec {} -c portsentry.conf -l syslog {flags}",
        socket.display(),
        folder.display(),
        env!("CARGO_BIN_EXE_portsentry-rs"),
    );
    Command::new("ip")
        .args(["netns", "exec", &lab.target(), "unshare", "-m", "sh", "-c", &script])
        // Its log is elsewhere: that nothing can be written here is no reason to end.
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap()
}

fn config(folder: &Path) -> PathBuf {
    let at = folder.display();
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text =
        format!("TCP_PORTS=\"100-199\"\nSTATE_DIR=\"{at}/state\"\nCONTROL_SOCKET=\"{at}/run/c.sock\"\n");
    std::fs::write(folder.join("portsentry.conf"), text).unwrap();
    folder.join("dev-log")
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn probe(lab: &Lab, port: u16) {
    let host = lab.peer(0);
    host.nmap(&["-sS", "--max-retries", "0", "-p", &port.to_string(), &host.target_v4.to_string()]);
}

#[test]
fn every_event_after_a_restart_of_rsyslog_is_there_and_nothing_else() {
    let lab = Lab::new(1);
    let folder = tempfile::tempdir().unwrap();
    let socket = config(folder.path());
    let rsyslog = Rsyslog::start(folder.path(), &socket);
    let mut daemon = daemon(&lab, folder.path(), &socket, "");
    eventually("the daemon is up", SOON, || log(folder.path()).contains("now active and listening"));
    probe(&lab, 100);
    eventually("the first event", SOON, || log(folder.path()).contains("port: [100]"));
    drop(rsyslog);
    probe(&lab, 101);
    let _rsyslog = Rsyslog::start(folder.path(), &socket);
    for port in 110..130 {
        probe(&lab, port);
    }
    eventually("the last event", SOON, || log(folder.path()).contains("port: [129]"));
    let text = log(folder.path());
    for port in 110..130 {
        assert_eq!(text.matches(&format!("port: [{port}]")).count(), 1, "{port}\n{text}");
    }
    for line in text.lines().filter(|line| line.contains("Scan from")) {
        assert!(line.starts_with("daemon.notice portsentry["), "{line}");
        assert!(line.contains("]: Scan from: [10.77.0.2] (10.77.0.2) protocol: [TCP]"), "{line}");
    }
    let _ = daemon.kill();
    let _ = daemon.wait();
}

#[test]
fn in_the_background_it_goes_on_writes_to_syslog_and_reads_its_configuration_again() {
    let lab = Lab::new(1);
    let folder = tempfile::tempdir().unwrap();
    let socket = config(folder.path());
    let _rsyslog = Rsyslog::start(folder.path(), &socket);
    let mut started = daemon(&lab, folder.path(), &socket, "-D");
    assert!(started.wait().unwrap().success(), "whoever started it is let go");
    eventually("the daemon is up", SOON, || log(folder.path()).contains("now active and listening"));
    probe(&lab, 105);
    eventually("the event", SOON, || log(folder.path()).contains("port: [105]"));
    let text = log(folder.path());
    let pid = text
        .split("portsentry[")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .unwrap()
        .parse::<i32>()
        .unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for descriptor in 0..3 {
        let open = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
        assert!(open.ends_with("null"), "{}", open.display());
    }
    // From / it finds again what was named from elsewhere.
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    let conf = folder.path().join("portsentry.conf");
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + "WORKERS=\"2\"\n").unwrap();
    signal(nix::sys::signal::Signal::SIGHUP);
    eventually("it is read again", SOON, || log(folder.path()).contains("after a restart: WORKERS"));
    signal(nix::sys::signal::Signal::SIGTERM);
    eventually("it says goodbye", SOON, || log(folder.path()).contains("Portsentry is shutting down"));
}
