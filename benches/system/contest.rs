//! What comes of a first SYN, and of a flood with a real scan in its midst, for each contender in turn.
#![forbid(unsafe_code)]

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::Effort;
use super::contender::Contender;
use super::figures::Figures;
use super::sender::{self, raw_socket, syn};
use super::support::{Host, Lab, inside};
use super::{latency, machine};

const PORT: u16 = 111;
/// The flood is well under way.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Floods of each, at most.
const FLOODS: usize = 3;
/// Ports of the scan in its midst, one a millisecond.
const SCANNED: std::ops::RangeInclusive<u16> = 1..=100;
/// Pings a millisecond apart that nobody answered: it is blocked.
const SILENT: u32 = 100;

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    triggers(effort, figures);
    floods(effort, figures);
}

fn triggers(effort: Effort, figures: &mut Figures) {
    let (mut answered, mut micros) = (Columns::default(), Columns::default());
    for _ in 0..effort.contests {
        for (column, contender) in Contender::ALL.into_iter().enumerate().skip(1) {
            let silence = trigger(contender);
            answered[column].push(f64::from(silence.answered));
            micros[column].push(silence.micros);
        }
    }
    figures.compare("answered pings after the first SYN, one each 20 µs", "0 with", "", answered);
    figures.compare("first SYN → last answer", "≤ 250", "µs", micros);
}

fn trigger(contender: Contender) -> latency::Silence {
    let lab = Lab::new(1);
    machine::keep_to(false);
    let running = contender.start(&lab);
    let scanner = lab.peer(0);
    let silence = inside(&scanner.netns, || latency::time_to_silence(scanner, 7_919));
    machine::keep_to_all();
    drop(running);
    silence
}

type Columns = [Vec<f64>; 4];

fn floods(effort: Effort, figures: &mut Figures) {
    let mut outcomes: [Vec<Outcome>; 4] = Default::default();
    for _ in 0..effort.contests.min(FLOODS) {
        for (column, contender) in outcomes.iter_mut().zip(Contender::ALL) {
            column.push(flood(contender, effort.flood));
        }
    }
    let each = |of: fn(&Outcome) -> f64| outcomes.each_ref().map(|column| column.iter().map(of).collect());
    let of_daemons = |of| -> Columns {
        let mut columns: Columns = each(of);
        columns[0].clear();
        columns
    };
    figures.compare("sender's speed in the flood", "", "k packets/s", each(|it| it.speed));
    figures.compare(
        "processor time a million spoofed SYNs sent",
        "≤ 0.5",
        "s",
        of_daemons(|it| it.cpu.as_secs_f64()),
    );
    figures.compare("memory before the flood", "≤ 8", "MiB", of_daemons(|it| it.memory / 1024.0));
    figures.compare("growth by it", "≤ 1", "MiB", of_daemons(|it| it.growth / 1024.0));
    let blocked = |it: &Outcome| f64::from(u8::from(it.silenced.is_some()));
    figures.compare("a real scan in its midst is blocked (1: yes)", "1", "", of_daemons(blocked));
    let millis = |it: &Outcome| it.silenced.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    figures.compare("its first SYN → last answer", "", "ms", of_daemons(millis));
}

struct Outcome {
    /// Thousands of packets a second.
    speed: f64,
    /// For a million.
    cpu: Duration,
    memory: f64,
    growth: f64,
    /// After how long the scan in its midst was answered for the last time.
    silenced: Option<Duration>,
}

fn flood(contender: Contender, packets: u32) -> Outcome {
    let lab = Lab::new(2);
    let running = contender.start(&lab);
    running.settle();
    let (memory, cpu) = (running.memory(), running.cpu());
    let (flooder, scanner) = (lab.peer(0), lab.peer(1));
    let (sending, silenced) = std::thread::scope(|scope| {
        let sending =
            scope.spawn(|| inside(&flooder.netns, || sender::flood(flooder.target_v4, PORT, packets, None)));
        std::thread::sleep(UNDER_WAY);
        let silenced = inside(&scanner.netns, || scan(scanner, || sending.is_finished()));
        (sending.join().expect("the flood was sent"), silenced)
    });
    running.settle();
    let spent = running.cpu().saturating_sub(cpu);
    Outcome {
        speed: f64::from(packets) / sending.as_secs_f64() / 1e3,
        cpu: spent.mul_f64(1e6 / f64::from(packets)),
        memory,
        growth: running.memory() - memory,
        silenced,
    }
}

/// Sends a SYN to each port, pings all along, and tells when it was answered for the last time; none if it still was
/// when the flood was over.
fn scan(scanner: &Host, is_over: impl Fn() -> bool) -> Option<Duration> {
    let (pings, raw) = (latency::ping_socket(scanner.target_v4), raw_socket());
    let target = SockAddr::from(SocketAddrV4::new(scanner.target_v4, 0));
    let (begun, mut last, mut silent) = (Instant::now(), Duration::ZERO, 0);
    let mut ports = SCANNED;
    for number in 0_u16.. {
        if let Some(port) = ports.next() {
            raw.send_to(&syn(scanner.v4, scanner.target_v4, port, u32::from(port)), &target)
                .expect("a route");
        }
        match latency::is_answered(&pings, number) {
            true => (last, silent) = (begun.elapsed(), 0),
            false => silent += 1,
        }
        if silent == SILENT {
            return Some(last);
        }
        if is_over() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}
