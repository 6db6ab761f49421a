//! Who has an open connection to this host.
//!
//! Main thread. Asked between a probe and its block, where each question costs the kernel a walk through all of its
//! connections, several times what the block takes. So all of them are listed beforehand, when nothing waits, and the
//! list rules out whoever is not on it for as long as the kernel has counted no connection opened since. That somebody
//! *is* connected is never taken from the list: whoever is on it is asked about.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::PortSet;
use crate::netlink::sock_diag::{SocketTables, States};

/// What the kernel counts in our network namespace (proc(5)).
const COUNTS: &str = "/proc/self/net/snmp";
/// Room for it even where every kind of ICMP message was seen, which are counted before TCP.
const COUNTS_LENGTH: usize = 16 * 1024;

/// A longer list is not kept: on so busy a host it is out of date at once, and would hold up what comes meanwhile.
const LONGEST: usize = 4096;
/// Between two looks at the counts.
const PAUSE: Duration = Duration::from_millis(100);
/// A list may take this part of our time.
const SHARE: u32 = 100;

/// Sources of one turn that are asked about one by one; for more of them all connections are listed.
const ASKED_ONE_BY_ONE: usize = 2;

/// The answers.
pub struct Connected {
    /// `None`: the kernel does not show them, and everybody is asked about.
    counts: Option<File>,
    text: Vec<u8>,
    lately: Option<Lately>,
    /// [`Counts::opened`] at the last look.
    seen: Option<u64>,
    look_at: Option<Instant>,
    turn: Turn,
}

/// Who was connected, or about to be, when so many connections had been opened in all.
struct Lately {
    opened: u64,
    /// `None`: too many.
    remotes: Option<Vec<IpAddr>>,
}

impl Lately {
    /// Whether nobody of `source` can be connected when so many connections have been opened.
    fn rules_out(&self, source: IpNet, opened: u64) -> bool {
        let is_listed = |remotes: &Vec<IpAddr>| remotes.iter().any(|remote| source.contains(remote));
        self.opened == opened && self.remotes.as_ref().is_some_and(|remotes| !is_listed(remotes))
    }
}

/// What one turn learnt.
#[derive(Default)]
struct Turn {
    asked: usize,
    all: Option<Vec<(IpAddr, u16)>>,
}

/// Of TCP, both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// Connections that were ever opened, by either side; those that a checkpoint brought back (TCP_REPAIR) are not
    /// counted. Never falls.
    opened: u64,
    /// That stand now.
    standing: u64,
}

impl Connected {
    /// Opens the kernel's counts, which the confinement forbids.
    pub fn open() -> Connected {
        Connected::reading(File::open(COUNTS).ok())
    }

    fn reading(counts: Option<File>) -> Connected {
        let (text, turn) = (vec![0; COUNTS_LENGTH], Turn::default());
        let mut connected = Connected { counts, text, lately: None, seen: None, look_at: None, turn };
        // The rest of the start lies between this and the first look.
        connected.seen = connected.counts().map(|counts| counts.opened);
        connected
    }

    /// Forgets what was learnt for one turn only: a flood brings hundreds of cases in each.
    pub fn begin_turn(&mut self) {
        self.turn = Turn::default();
    }

    /// Whether `source` has an open connection to this host, decoys aside: those take anybody's.
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn is(&mut self, source: IpNet, decoys: &PortSet, sockets: &mut SocketTables) -> io::Result<bool> {
        if self.is_ruled_out(source) {
            return Ok(false);
        }
        self.turn.asked = self.turn.asked.saturating_add(1);
        if self.turn.asked <= ASKED_ONE_BY_ONE {
            let ports = sockets.connected_with(source)?;
            return Ok(ports.into_iter().any(|port| !decoys.contains(port)));
        }
        if self.turn.all.is_none() {
            let mut all = sockets.connections(States::Established, usize::MAX)?;
            all.retain(|(_, port)| !decoys.contains(*port));
            self.turn.all = Some(all);
        }
        Ok(self.turn.all.iter().flatten().any(|(remote, _)| source.contains(remote)))
    }

    /// Lists who is connected where connections were opened since the last list. For moments in which nothing waits: of
    /// a thousand connections a list takes two milliseconds. It tells no errors, for questions do.
    ///
    /// Only once the count has stood for a while: the kernel counts a connection a moment before it can be listed.
    pub fn look_around(&mut self, sockets: &mut SocketTables) {
        let begun = Instant::now();
        if self.look_at.is_some_and(|at| begun < at) {
            return;
        }
        self.look_at = Some(begun + PAUSE);
        let Some(Counts { opened, standing }) = self.counts() else { return };
        let has_stood = self.seen.replace(opened) == Some(opened);
        let is_known = self.lately.as_ref().is_some_and(|lately| lately.opened == opened);
        if !has_stood || is_known || standing > LONGEST as u64 {
            return;
        }
        // Who is about to be connected was counted already, and will not be again.
        if let Ok(list) = sockets.connections(States::EstablishedOrOpening, LONGEST + 1) {
            let remotes = (list.len() <= LONGEST).then(|| list.iter().map(|(remote, _)| *remote).collect());
            self.lately = Some(Lately { opened, remotes });
        }
        self.look_at = Some(begun + PAUSE.max(begun.elapsed() * SHARE));
    }

    fn is_ruled_out(&mut self, source: IpNet) -> bool {
        let Some(Counts { opened, .. }) = self.counts() else { return false };
        self.lately.as_ref().is_some_and(|lately| lately.rules_out(source, opened))
    }

    fn counts(&mut self) -> Option<Counts> {
        let length = self.counts.as_ref()?.read_at(&mut self.text, 0).ok()?;
        counts(std::str::from_utf8(self.text.get(..length)?).ok()?)
    }
}

/// A line of names after `Tcp: `, then one of values.
fn counts(text: &str) -> Option<Counts> {
    // What follows the last line's end may be half a number.
    let (whole, _) = text.rsplit_once('\n')?;
    let mut lines = whole.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let count = |name| {
        let at = names.split(' ').position(|known| known == name)?;
        values.split(' ').nth(at)?.parse::<u64>().ok()
    };
    let opened = count("ActiveOpens")?.wrapping_add(count("PassiveOpens")?);
    Some(Counts { opened, standing: count("CurrEstab")? })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn text(opened: u64, standing: u64) -> String {
        format!(
            "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
             Tcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens AttemptFails CurrEstab\n\
             Tcp: 1 -1 7 {} 3 {standing}\nUdp: InDatagrams\nUdp: 0\n",
            opened - 7
        )
    }

    /// A host whose counts say what the test has them say; its connections are this machine's.
    struct Bench {
        counts: File,
        sockets: SocketTables,
        connected: Connected,
    }

    impl Bench {
        fn new() -> Bench {
            let counts = tempfile::tempfile().unwrap();
            let connected = Connected::reading(Some(counts.try_clone().unwrap()));
            Bench { counts, sockets: SocketTables::open().unwrap(), connected }
        }

        fn count(&mut self, opened: u64, standing: u64) {
            self.counts.set_len(0).unwrap();
            self.counts.write_at(text(opened, standing).as_bytes(), 0).unwrap();
        }

        fn look(&mut self) {
            self.connected.look_at = None;
            self.connected.look_around(&mut self.sockets);
        }

        /// The answer, and whether the kernel had to be asked.
        fn ask(&mut self, source: &str) -> (bool, bool) {
            self.connected.begin_turn();
            let is = self.connected.is(source.parse().unwrap(), &PortSet::new(), &mut self.sockets);
            (is.unwrap(), self.connected.turn.asked > 0)
        }
    }

    #[test]
    fn who_is_not_listed_is_ruled_out_until_another_connection_is_opened() {
        let mut bench = Bench::new();
        bench.count(10, 2);
        assert_eq!(bench.ask("192.0.2.1/32"), (false, true), "nothing was listed yet");
        bench.look();
        assert_eq!(bench.ask("192.0.2.1/32"), (false, true), "the count must have stood for a while");
        bench.look();
        assert_eq!(bench.ask("192.0.2.1/32"), (false, false));
        bench.count(11, 2);
        assert_eq!(bench.ask("192.0.2.1/32"), (false, true));
        bench.look();
        bench.look();
        assert_eq!(bench.ask("192.0.2.1/32"), (false, false));
    }

    #[test]
    fn whoever_is_listed_is_asked_about() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let client = TcpStream::connect(("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let accepted = listener.accept().unwrap();
        let mut bench = Bench::new();
        bench.count(10, 2);
        (0..2).for_each(|_| bench.look());
        assert_eq!(bench.ask("127.0.0.1/32"), (true, true));
        assert_eq!(bench.ask("127.0.0.0/8"), (true, true));
        assert_eq!(bench.ask("2001:db8::/64"), (false, false));
        drop((client, accepted));
    }

    #[test]
    fn a_busy_hosts_connections_are_not_listed() {
        let mut bench = Bench::new();
        bench.count(9_000, 1 + LONGEST as u64);
        (0..3).for_each(|_| bench.look());
        assert!(bench.connected.lately.is_none());
        assert_eq!(bench.ask("192.0.2.1/32"), (false, true));
    }

    #[test]
    fn where_nothing_is_counted_everybody_is_asked_about() {
        let mut bench = Bench::new();
        for unreadable in ["", "Tcp: ActiveOpens\n", "Tcp: ActiveOpens PassiveOpens CurrEstab\nTcp: 1 2 3"] {
            bench.counts.set_len(0).unwrap();
            bench.counts.write_at(unreadable.as_bytes(), 0).unwrap();
            (0..3).for_each(|_| bench.look());
            assert_eq!(bench.ask("192.0.2.1/32"), (false, true), "{unreadable}");
        }
        bench.connected.counts = None;
        (0..3).for_each(|_| bench.look());
        assert_eq!(bench.ask("192.0.2.1/32"), (false, true));
    }

    #[test]
    fn many_questions_of_one_turn_are_answered_by_one_list() {
        let mut bench = Bench::new();
        let nobody: IpNet = "192.0.2.1/32".parse().unwrap();
        for _ in 0..10 {
            assert!(!bench.connected.is(nobody, &PortSet::new(), &mut bench.sockets).unwrap());
        }
        assert!(bench.connected.turn.all.is_some());
    }

    #[test]
    fn counts_are_found_by_their_names() {
        assert_eq!(counts(&text(12, 3)), Some(Counts { opened: 12, standing: 3 }));
        assert_eq!(counts(&text(12, 3).replace("CurrEstab", "Other")), None);
    }

    #[test]
    fn this_kernels_counts_rise_with_a_connection() {
        let mut connected = Connected::open();
        let before = connected.counts().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap();
        assert!(connected.counts().unwrap().opened >= before.opened + 2);
        drop((client, accepted));
    }
}
