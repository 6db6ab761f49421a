//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and that both processes are alive. Main
//! thread; connected before confinement, which allows no new socket.
//!
//! A sign of life goes out only if the helper gave one since the last: whichever of the two stands still, the service
//! manager hears nothing and starts both anew.
#![forbid(unsafe_code)]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// How often the counts are told where no watchdog asks for signs of life.
const UNWATCHED: Duration = Duration::from_secs(30);

/// Signs of life in the time that a watchdog allows: the helper's answer to one question may miss two of them.
const BEATS: u32 = 4;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    every: Duration,
    beat_at: Option<Instant>,
    /// The helper said something since the last beat.
    heard: bool,
}

impl Notifier {
    /// Connects to where NOTIFY_SOCKET says; a leading `@` stands for the abstract namespace.
    pub fn open() -> Notifier {
        let variable = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Notifier::new(connected(), watchdog)
    }

    fn new(socket: Option<UnixDatagram>, watchdog: Option<Duration>) -> Notifier {
        let every = watchdog.map_or(UNWATCHED, |limit| limit / BEATS);
        Notifier { socket, every, beat_at: None, heard: true }
    }

    /// The daemon watches.
    pub fn ready(&mut self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}\n"));
        // The first time alone: whoever asks for reloads without end must not put off the signs of life.
        let first = self.socket.as_ref().map(|_| Instant::now() + self.every);
        self.beat_at = self.beat_at.or(first);
    }

    /// The configuration is being read again; followed by [`ready`](Self::ready). With the time, which tells
    /// systemd (253 and newer) that this is the answer to its own signal.
    pub fn reloading(&self) {
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            let micros = Duration::from(now).as_micros();
            self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
        }
    }

    /// The daemon ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    /// The helper answered something.
    pub fn heard_of_helper(&mut self) {
        self.heard = true;
    }

    /// When [`beat`](Self::beat) is due; never where nobody listens.
    pub fn next_beat(&self) -> Option<Instant> {
        self.beat_at
    }

    /// Tells the counts, and that both processes live, if they do; the helper must be asked for its next answer.
    pub fn beat(&mut self, now: Instant, status: &str) {
        let alive = if std::mem::take(&mut self.heard) { "WATCHDOG=1\n" } else { "" };
        self.say(&format!("{alive}STATUS={status}\n"));
        self.beat_at = Some(now + self.every);
    }

    /// Nobody may be listening: then there is nothing to tell.
    fn say(&self, text: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// sd_watchdog_enabled(3): the time limit in microseconds, if it is meant for this process.
fn watchdog(micros: Option<String>, meant: Option<String>, pid: u32) -> Option<Duration> {
    let micros = micros?.parse().ok().filter(|&micros| micros > 0)?;
    let ours = meant.is_none_or(|meant| meant.parse() == Ok(pid));
    ours.then_some(Duration::from_micros(micros))
}

fn connected() -> Option<UnixDatagram> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name).ok()?,
        None => SocketAddr::from_pathname(&name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    /// What the service manager hears.
    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_helper_that_says_nothing_costs_the_sign_of_life() {
        let (ours, manager) = UnixDatagram::pair().unwrap();
        let mut notifier = Notifier::new(Some(ours), Some(Duration::from_secs(4)));
        let now = Instant::now();
        assert_eq!(notifier.next_beat(), None, "nothing is told before the daemon is ready");
        notifier.ready("watching");
        assert!(notifier.next_beat() >= Some(now + Duration::from_secs(1)));
        notifier.beat(now, "1 scan");
        notifier.beat(now, "2 scans");
        notifier.heard_of_helper();
        notifier.beat(now, "3 scans");
        let expected = ["READY=1\nSTATUS=watching\n", "WATCHDOG=1\nSTATUS=1 scan\n", "STATUS=2 scans\n"];
        expected.iter().for_each(|line| assert_eq!(heard(&manager), *line));
        assert_eq!(heard(&manager), "WATCHDOG=1\nSTATUS=3 scans\n");
        assert_eq!(notifier.next_beat(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_reload_bears_its_time_and_nobody_listening_is_no_matter() {
        let (ours, manager) = UnixDatagram::pair().unwrap();
        Notifier::new(Some(ours), None).reloading();
        let told = heard(&manager);
        let micros = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(micros.parse::<u64>().unwrap() > 0);
        let mut nobody = Notifier::new(None, Some(Duration::from_secs(1)));
        nobody.ready("watching");
        assert_eq!(nobody.next_beat(), None, "an idle daemon does not wake for nobody");
    }

    #[test]
    fn a_watchdog_of_somebody_else_is_none_of_ours() {
        let limit = Some(Duration::from_secs(3));
        assert_eq!(watchdog(text("3000000"), None, 7), limit);
        assert_eq!(watchdog(text("3000000"), text("7"), 7), limit);
        for (micros, meant) in [("3000000", "8"), ("0", "7"), ("x", "7"), ("3000000", "x")] {
            assert_eq!(watchdog(text(micros), text(meant), 7), None, "{micros} {meant}");
        }
        assert_eq!(watchdog(None, text("7"), 7), None);
    }
}
