//! Cost against the number of blocked sources: what gets through, how long one more takes, what it weighs.
//!
//! A table of the helper's shape, by the helper's own codec, with room for a million; and the daemon itself, asked by an
//! operator.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use portsentry::control::client::ask;
use portsentry::control::protocol::DoneVerdict;
use portsentry::control::{ControlReply, ControlRequest};
use portsentry::netlink::Socket;
use portsentry::netlink::nftables::batch::{encode, sequence_numbers};
use portsentry::netlink::nftables::element::ELEMENTS_PER_MESSAGE;
use portsentry::netlink::nftables::expression::META_PROTOCOL;
use portsentry::netlink::nftables::{
    Command, Element, Elements, Expression, Family, HOOK_PREROUTING, Key, PRIORITY_RAW, Set, Verdict,
};
use portsentry::netlink::socket::refused;

use super::Effort;
use super::figures::{Figures, median, spread};
use super::sender;
use super::support::daemon::{PATIENCE, Setup};
use super::support::plot::{Axis, Plot};
use super::support::{Lab, eventually, inside, ledger};

const TABLE: &str = "bench";
const SET: &str = "blocked4";
const CHAIN: &str = "probe";
const CAPACITY: u32 = 1 << 21;
const TIME: Duration = Duration::from_secs(3600);
/// Blocks of which each is timed.
const ADDS: u32 = 200;
/// Nobody's addresses: 12.0.0.0/8 fills the set, 13.0.0.0/8 is timed.
const FILLING: u32 = 0x0c00_0000;
const TIMED: u32 = 0x0d00_0000;
/// So many are blocked while that is done.
const HELD: [u32; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];

/// The daemon whose blocks they are.
const CONFIG: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nSENSITIVITY=\"off\"\nMAX_BLOCKS=\"1048576\"";

type Line = Vec<(f64, f64)>;

/// Adds the rows, and the plots.
pub fn measure(effort: Effort, figures: &mut Figures) {
    in_the_kernel(effort, figures);
    by_the_daemon(effort, figures);
}

fn in_the_kernel(effort: Effort, figures: &mut Figures) {
    figures.part("Blocked sources in the kernel: a hash set with times, dropping before routing");
    let (mut rates, mut times, mut weights) = (Line::new(), Line::new(), Line::new());
    for count in HELD.into_iter().filter(|&count| count <= effort.blocked) {
        let lab = Lab::new(1);
        let mut table = inside(&lab.target(), Table::make);
        let before = kernel_memory();
        table.add(FILLING, count);
        let weight = (kernel_memory() - before).max(0.0) / 1024.0;
        let (target, netns) = (lab.peer(0).target_v4, lab.peer(0).netns.clone());
        let packets = effort.flood / 20 / sender::BATCH as u32 * sender::BATCH as u32;
        let speed = || f64::from(packets) / sender::flood(target, 5_000, packets, None).as_secs_f64() / 1e3;
        let speeds: Vec<f64> = (0..effort.repeats).map(|_| inside(&netns, speed)).collect();
        let adds: Vec<f64> = (0..ADDS).map(|at| micros(|| table.add(TIMED + at, 1))).collect();
        [FILLING + count.saturating_sub(1), TIMED + ADDS - 1]
            .into_iter()
            .filter(|&at| count > 0 || at >= TIMED)
            .for_each(|at| assert!(holds(&lab, at), "the set holds what it was given"));
        figures.add(format!("{count} blocked: let through"), median(&speeds), "k packets/s", spread(&speeds));
        figures.add(format!("{count} blocked: one more"), median(&adds), "µs", spread(&adds));
        figures.add(format!("{count} blocked: kernel memory"), weight, "MiB", "");
        rates.push((f64::from(count), median(&speeds)));
        times.push((f64::from(count), median(&adds)));
        weights.push((f64::from(count), weight));
    }
    let lines =
        vec![("let through, k packets/s", rates), ("one more, µs", times), ("kernel memory, MiB", weights)];
    plot(figures, "blocked-kernel", "Blocked sources in the kernel", lines);
}

fn by_the_daemon(effort: Effort, figures: &mut Figures) {
    figures.part(
        "Blocks in the daemon: its start, then one more by an operator's hand, from the socket to the ledger",
    );
    let (mut starts, mut times, mut weights) = (Line::new(), Line::new(), Line::new());
    for count in HELD.into_iter().filter(|&count| count <= effort.blocked) {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, CONFIG);
        ledger::write(&setup.path("state"), FILLING, count);
        let begun = Instant::now();
        let daemon = setup.start();
        let start = begun.elapsed().as_secs_f64();
        let socket = daemon.path("run/control.sock");
        eventually("the sensor knows of all blocks", PATIENCE, || in_force(&socket) == u64::from(count));
        let adds: Vec<f64> = (0..ADDS).map(|at| micros(|| block(&socket, TIMED + at))).collect();
        let memory = daemon.memory() as f64 / 1024.0;
        figures.add(format!("{count} blocked: start"), start, "s", "the test's own look at it included");
        figures.add(format!("{count} blocked: one more"), median(&adds), "µs", spread(&adds));
        figures.add(format!("{count} blocked: memory of both"), memory, "MiB", "resident");
        starts.push((f64::from(count), start));
        times.push((f64::from(count), median(&adds)));
        weights.push((f64::from(count), memory));
    }
    let lines = vec![("start, s", starts), ("one more, µs", times), ("memory of both, MiB", weights)];
    plot(figures, "blocked-daemon", "Blocked sources in the daemon", lines);
}

fn plot(figures: &Figures, name: &str, title: &str, lines: Vec<(&str, Line)>) {
    let x = Axis { label: "sources blocked", logarithmic: true };
    let plot = Plot { title, x, y: Axis { label: "", logarithmic: false }, lines };
    figures.plot(name, &plot.svg());
}

/// How many blocks the sensor knows of. The helper tells it after the start, in pages.
fn in_force(socket: &Path) -> u64 {
    match ask(socket, &ControlRequest::Status).expect("the daemon answers").into_iter().next() {
        Some(ControlReply::Status(status)) => status.stats.blocks_in_force,
        other => panic!("no status: {other:?}"),
    }
}

/// Asks the daemon for one block and waits until it is in force.
fn block(socket: &Path, at: u32) {
    let address = IpAddr::from(Ipv4Addr::from(at)).into();
    let replies = ask(socket, &ControlRequest::Block { address, seconds: 3600 }).expect("the daemon answers");
    let is_in_force = |reply: &ControlReply| matches!(reply, ControlReply::Done(done) if done.verdict == DoneVerdict::Blocked);
    assert!(replies.iter().any(is_in_force), "{replies:?}");
}

fn micros(action: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    action();
    begun.elapsed().as_secs_f64() * 1e6
}

/// A table of our own in the namespace in which it was made.
struct Table(Socket);

impl Table {
    fn make() -> Table {
        let socket = Socket::open(libc::NETLINK_NETFILTER, 0).expect("nf_tables is there");
        socket.widen_send_buffer(16 << 20).expect("root may");
        let elements = Elements::Timed { capacity: CAPACITY };
        let set = Set { name: SET.to_owned(), key: Key::Address(Family::Ipv4), elements };
        let drop = vec![
            Expression::Meta(META_PROTOCOL),
            Expression::equals(&[libc::NFPROTO_IPV4 as u8]),
            Expression::Network { offset: 12, length: 4 },
            Expression::Lookup(SET.to_owned()),
            Expression::Counter,
            Expression::Verdict(Verdict::Drop),
        ];
        let mut table = Table(socket);
        table.commit(&[
            Command::NewTable,
            Command::NewSet(set),
            Command::NewChain(CHAIN, Some((HOOK_PREROUTING, PRIORITY_RAW))),
            Command::NewRule(CHAIN, drop),
        ]);
        table
    }

    /// Blocks so many addresses from `first` on, in batches such as the helper's.
    fn add(&mut self, first: u32, count: u32) {
        let element = |at: u32| Element::Timed(Ipv4Addr::from(at).into(), Some(TIME));
        let elements: Vec<Element> = (first..first + count).map(element).collect();
        for batch in elements.chunks(100 * ELEMENTS_PER_MESSAGE) {
            let messages = batch.chunks(ELEMENTS_PER_MESSAGE);
            let commands: Vec<Command> =
                messages.map(|chunk| Command::AddElements(SET.to_owned(), chunk.to_vec())).collect();
            self.commit(&commands);
        }
    }

    fn commit(&mut self, commands: &[Command]) {
        let numbers = sequence_numbers(commands);
        let first = self.0.reserve(numbers);
        self.0.send(encode(commands, TABLE, first)).expect("a batch is taken");
        let last = first.wrapping_add(numbers).wrapping_sub(1);
        self.0.answers(first, last, |message| message.errno().map(refused)).expect("the batch is committed");
    }
}

/// Whether the kernel says that an address is in the set.
fn holds(lab: &Lab, at: u32) -> bool {
    let element = format!("{{ {} }}", Ipv4Addr::from(at));
    lab.on_target(&["nft", "get", "element", "inet", TABLE, SET, &element]).status.success()
}

/// KiB that the kernel itself holds, vmalloc's among them: a large set's buckets are there.
fn kernel_memory() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0)
    };
    of("SUnreclaim:") + of("VmallocUsed:")
}
