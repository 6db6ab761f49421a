//! What a case comes to: the event that is told, what the helper is asked for, and what is claimed of its answer. Tests.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::*;
use crate::config::PortSet;
use crate::detect::Peers;
use crate::detect::peers::Hearing;
use crate::detect::policy::{Verdict, samples};
use crate::detect::probe::samples::syn;
use crate::detect::probe::{Protocol, ScanType};
use crate::detect::weights::Sensitivity;
use crate::event::{Deed, Event};
use crate::protocol::{FRAME_LENGTH, Fault, Note, Outcome, Responses};
use ActionVerdict::{AlreadyBlocked, Blocked, Expired, Failed, Ignored, Lifted, Logged, Suppressed};

const SCANNER: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";
const FRIEND: &str = "203.0.113.1";

struct Desk {
    responder: Responder,
    peers: Peers,
}

fn watch(tcp: BlockMode, udp: BlockMode) -> Watch {
    let ports: PortSet = (1..=60).collect();
    let (tcp_ports, udp_ports) = (ports.clone(), ports);
    Watch { tcp_ports, udp_ports, block_tcp: tcp, block_udp: udp, ..samples::watch(Sensitivity::Off) }
}

fn setup(watch: Watch) -> Setup {
    Setup {
        watch: Arc::new(watch),
        never: [net(FRIEND)].into_iter().collect(),
        table: Arc::new(ScoreTable::new(64, &[7; 16], None)),
        order: vec![Response::Nftables, Response::HostsDeny],
        custom: Custom { hosts_deny: Some("ALL: $TARGET$".to_owned()), ..Custom::default() },
        tell_all: false,
        verbose_ignore: None,
        queue: 8,
        gate: Arc::new(Gate::new(240)),
    }
}

fn blocking() -> Desk {
    desk(setup(watch(BlockMode::Block, BlockMode::Block)))
}

fn desk(setup: Setup) -> Desk {
    let peers = Peers::new(&[5; 16], Hearing::of_this_host(false, 0));
    Desk { responder: Responder::new(setup), peers }
}

fn net(address: &str) -> IpNet {
    IpNet::from(address.parse::<IpAddr>().unwrap())
}

/// So many seconds after the start.
fn at(seconds: u64) -> Now {
    let uptime = seconds * 1000;
    Now { wall: 1_700_000_000_000_000 + uptime * 1000, uptime, instant: Instant::now() }
}

fn visit(source: &str, port: u16) -> Probe {
    Probe { scan_type: ScanType::Connect, verified: true, ..syn(source, port) }
}

fn datagram(source: &str, port: u16) -> Probe {
    Probe { scan_type: ScanType::Udp, protocol: Protocol::Udp, ..syn(source, port) }
}

fn effect(outcome: Outcome, seconds: u32, with: &[Response]) -> Effect {
    let with: Responses = with.iter().copied().collect();
    Effect { outcome, seconds, offence: 1, micros: 9, with, tripped: false, notes: Vec::new() }
}

fn kinds(events: &[Event]) -> Vec<(EventType, Option<ActionVerdict>)> {
    let verdict = |event: &Event| event.action.as_ref().map(|action| action.verdict);
    events.iter().map(|event| (event.event_type, verdict(event))).collect()
}

impl Desk {
    fn case(&self, probe: Probe, now: Now) -> Option<Case> {
        let (watch, table) = (&self.responder.watch, &self.responder.table);
        match watch.judge(&probe, table, &self.peers, |_, _| false, now.micros()) {
            Verdict::Scan(standing) | Verdict::Probe(standing) => {
                Some(Case { probe, standing, interface: 1, connected: false })
            }
            _ => None,
        }
    }

    /// What is told of a probe, and which blocks are asked for.
    fn meets(&mut self, probe: Probe, now: Now) -> (Vec<(EventType, Option<ActionVerdict>)>, Vec<Request>) {
        let case = self.case(probe, now).expect("a case");
        self.takes(case, now)
    }

    fn takes(&mut self, case: Case, now: Now) -> (Vec<(EventType, Option<ActionVerdict>)>, Vec<Request>) {
        let events = self.turn(now, |responder, turn| responder.on_case(case, turn));
        (kinds(&events), self.asked())
    }

    fn asked(&mut self) -> Vec<Request> {
        let mut bytes = Vec::new();
        self.responder.requests.frames().flush(&mut bytes).unwrap();
        let (frames, _) = bytes.as_chunks::<FRAME_LENGTH>();
        frames.iter().map(|frame| Request::decode(frame).unwrap()).collect()
    }

    /// What a turn brings in which this is done.
    fn turn(&mut self, now: Now, act: impl FnOnce(&mut Responder, &mut Turn)) -> Vec<Event> {
        let mut turn = Turn::at(now);
        act(&mut self.responder, &mut turn);
        turn.events(|_| None).collect()
    }

    /// The one action that is told of this answer.
    fn answered(&mut self, id: u64, effect: &Effect, now: Now) -> Action {
        let events = self.turn(now, |responder, turn| responder.on_done(id, effect, turn));
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(event.event_type, EventType::Block);
        event.action.clone().unwrap()
    }
}

#[test]
fn a_scanner_is_told_of_and_its_block_asked_for_once_until_it_ends() {
    let mut desk = blocking();
    let (told, asked) = desk.meets(syn(SCANNER, 1), at(1));
    assert_eq!(told, [(EventType::Scan, None)]);
    let [Request::Block { id: 1, target, seconds: 0, port: 1, verified: false, run_only: false, .. }] =
        asked[..]
    else {
        panic!("{asked:?}")
    };
    assert_eq!(target, net(SCANNER));
    assert_eq!(desk.meets(syn(SCANNER, 2), at(1)), (vec![], vec![]), "it is asked for already");
    let action = desk.answered(1, &effect(Outcome::Blocked, 600, &[Response::Nftables]), at(1));
    assert_eq!((action.verdict, action.seconds), (Blocked, Some(600)));
    assert_eq!((desk.responder.blocked, desk.responder.blocks.len()), (1, 1));
    assert_eq!(desk.meets(syn(SCANNER, 3), at(600)), (vec![], vec![]), "it is blocked");
    let ended = desk.turn(at(601), Responder::on_time);
    assert_eq!(kinds(&ended), [(EventType::Unblock, Some(Expired))]);
    let (told, asked) = desk.meets(syn(SCANNER, 4), at(601));
    assert_eq!((told, asked.len()), (vec![(EventType::Scan, None)], 1), "what it did before is served");
}

#[test]
fn of_the_responses_those_alone_are_claimed_that_took_effect() {
    let mut desk = blocking();
    desk.meets(syn(SCANNER, 1), at(1));
    let done = effect(Outcome::Blocked, 60, &[Response::Nftables]);
    let action = desk.answered(1, &Effect { tripped: true, ..done }, at(1));
    assert_eq!(action.with, ["tripwire", "nftables"]);
    assert_eq!(action.deeds, [Deed::Shut("nftables")]);
    desk.meets(syn(OTHER, 1), at(1));
    let both = effect(Outcome::Blocked, 60, &[Response::Nftables, Response::HostsDeny]);
    assert_eq!(desk.answered(2, &both, at(1)).with, ["nftables", "hosts_deny"]);
}

#[test]
fn what_is_no_new_block_is_told_as_what_it_is_and_counts_for_none() {
    let outcomes = [
        (Outcome::AlreadyBlocked, AlreadyBlocked, true),
        (Outcome::Failed(libc::EIO), Failed, false),
        (Outcome::RefusedNeverBlock, Ignored, false),
        (Outcome::RefusedRate, Suppressed, false),
        (Outcome::RefusedFull, Suppressed, false),
        (Outcome::RefusedPrefix, Failed, false),
    ];
    for (outcome, verdict, holds) in outcomes {
        let mut desk = blocking();
        desk.meets(syn(SCANNER, 1), at(1));
        let action = desk.answered(1, &effect(outcome, 60, &[Response::Nftables]), at(1));
        assert_eq!((action.verdict, action.seconds), (verdict, holds.then_some(60)), "{outcome:?}");
        assert!(action.with.is_empty() && action.deeds.is_empty() && action.micros.is_none());
        assert_eq!(action.error.is_some(), !holds, "{outcome:?}");
        assert!(desk.responder.blocks.is_empty() && desk.responder.blocked == 0, "{outcome:?}");
        // Whom the helper will not block is not asked for again soon, everybody else in ten seconds.
        let again = |desk: &mut Desk, port, seconds| desk.meets(syn(SCANNER, port), at(seconds)).1.len();
        let is_final = matches!(outcome, Outcome::RefusedNeverBlock | Outcome::RefusedPrefix);
        assert_eq!(
            [again(&mut desk, 2, 9), again(&mut desk, 3, 12)],
            [0, usize::from(!is_final)],
            "{outcome:?}"
        );
    }
}

#[test]
fn nobody_in_the_never_block_set_is_asked_for_and_nobody_where_it_is_only_logged() {
    let mut desk = blocking();
    assert_eq!(desk.meets(syn(FRIEND, 1), at(1)), (vec![(EventType::Scan, Some(Ignored))], vec![]));
    assert_eq!(desk.meets(syn(FRIEND, 2), at(2)), (vec![], vec![]), "once is enough");
    let mut desk = self::desk(setup(watch(BlockMode::Log, BlockMode::Block)));
    assert_eq!(desk.meets(syn(SCANNER, 1), at(1)), (vec![(EventType::Scan, Some(Logged))], vec![]));
    assert_eq!(desk.meets(datagram(OTHER, 1), at(1)).1.len(), 1, "UDP has its own word");
}

#[test]
fn who_is_connected_is_spared_for_a_minute_but_for_what_it_proved_itself() {
    let mut desk = blocking();
    let case = Case { connected: true, ..desk.case(syn(SCANNER, 1), at(1)).unwrap() };
    let now = at(1);
    assert!(desk.responder.may_blame_an_innocent(&case.probe, &case.standing, now));
    assert_eq!(desk.takes(case, now), (vec![(EventType::Scan, Some(Suppressed))], vec![]));
    assert_eq!(desk.meets(syn(SCANNER, 2), at(2)).0, [], "the rings say no more of it for a while");
    let proven = desk.case(visit(OTHER, 1), now).unwrap();
    assert!(!desk.responder.may_blame_an_innocent(&proven.probe, &proven.standing, now));
    let friend = desk.case(syn(FRIEND, 1), now).unwrap();
    assert!(!desk.responder.may_blame_an_innocent(&friend.probe, &friend.standing, now));
}

#[test]
fn the_limit_holds_back_whoever_may_be_forged_and_nobody_who_proved_itself() {
    let gate = Arc::new(Gate::new(4));
    let mut desk = desk(Setup { gate: gate.clone(), ..setup(watch(BlockMode::Block, BlockMode::Block)) });
    let source = |host: u16| format!("198.51.100.{host}");
    let asked = (1..=9).map(|host| desk.meets(syn(&source(host), 1), at(1)).1.len()).sum::<usize>();
    assert_eq!((asked, gate.turned_away.blocks.load(Relaxed)), (2, 7));
    let (_, proven) = desk.meets(visit(&source(20), 1), at(1));
    assert!(matches!(proven[..], [Request::Block { verified: true, .. }]), "{proven:?}");
    assert_eq!(desk.meets(visit(&source(21), 1), at(1)).1.len(), 1, "and paid nothing for it");
    let in_turn = [(); 2].map(|()| kinds(&desk.turn(at(2), Responder::on_time)));
    assert_eq!(in_turn, [vec![(EventType::Error, None)], vec![]]);
}

#[test]
fn whom_a_command_was_told_of_alone_is_blocked_for_what_earns_a_block() {
    let custom = Custom { kill_run_cmd: Some("logger $TARGET$".to_owned()), ..Custom::default() };
    let order = vec![Response::Nftables, Response::RunCommand];
    let watch = watch(BlockMode::Block, BlockMode::RunCommand);
    let mut desk = desk(Setup { custom, order, ..setup(watch) });
    let (_, asked) = desk.meets(datagram(SCANNER, 1), at(1));
    assert!(matches!(asked[..], [Request::Block { run_only: true, .. }]), "{asked:?}");
    let action = desk.answered(1, &effect(Outcome::Blocked, 600, &[Response::RunCommand]), at(1));
    assert_eq!(action.deeds, [Deed::Ran(format!("logger {SCANNER}"))]);
    let (_, asked) = desk.meets(syn(SCANNER, 2), at(2));
    assert!(matches!(asked[..], [Request::Block { run_only: false, .. }]), "{asked:?}");
    let (_, again) = desk.meets(datagram(SCANNER, 3), at(3));
    assert!(again.is_empty(), "{again:?}");
}

#[test]
fn where_no_question_finds_room_that_is_told_and_asked_again_later() {
    let mut desk = desk(Setup { queue: 1, ..setup(watch(BlockMode::Block, BlockMode::Block)) });
    let cases = [SCANNER, OTHER].map(|source| desk.case(syn(source, 1), at(1)).unwrap());
    let events = desk.turn(at(1), |responder, turn| {
        cases.into_iter().for_each(|case| responder.on_case(case, turn));
    });
    let scan = (EventType::Scan, None);
    assert_eq!(kinds(&events), [scan, scan, (EventType::Block, Some(Suppressed))]);
    assert_eq!(desk.asked().len(), 1);
    assert_eq!(desk.meets(syn(OTHER, 2), at(12)).1.len(), 1);
}

#[test]
fn a_block_is_lifted_or_over_once_and_what_stays_of_it_is_told() {
    let mut desk = blocking();
    let blocked = effect(Outcome::Blocked, 600, &[Response::Nftables]);
    let target = net(SCANNER);
    for round in 0..3 {
        let (_, asked) = desk.meets(syn(SCANNER, 1 + round), at(1));
        assert_eq!(asked.len(), 1, "forgiven in round {round}");
        desk.answered(u64::from(round) + 1, &blocked, at(1));
        let note = Note::new(Response::HostsDeny, Fault::Errno(libc::EROFS), "line", 0);
        let events = desk.turn(at(2), |responder, turn| match round {
            0 => responder.on_lifted(target, turn),
            1 => responder.on_over(target, &[], turn),
            _ => responder.on_over(target, &[note], turn),
        });
        let action = events[0].action.clone().unwrap();
        let verdict = if round == 2 { Failed } else { Lifted };
        assert_eq!(
            (action.verdict, action.spared, action.error.is_some()),
            (verdict, round == 1, round == 2)
        );
        assert_eq!((events.len(), desk.responder.blocks.len()), (1, 0));
        let again = desk.turn(at(2), |responder, turn| responder.on_lifted(target, turn));
        assert_eq!(kinds(&again), []);
    }
}

#[test]
fn an_end_that_was_not_told_yet_is_told_before_the_next_block() {
    let mut desk = blocking();
    let blocked = effect(Outcome::Blocked, 60, &[Response::Nftables]);
    let mut block = |now| {
        kinds(&desk.turn(now, |responder, turn| responder.on_operator_block(net(SCANNER), &blocked, turn)))
    };
    assert_eq!(block(at(1)), [(EventType::Block, Some(Blocked))]);
    assert_eq!(block(at(30)), [(EventType::Block, Some(Blocked))], "renewed");
    let expired = (EventType::Unblock, Some(Expired));
    assert_eq!(block(at(90)), [expired, (EventType::Block, Some(Blocked))]);
}

#[test]
fn a_decoy_shows_its_banner_to_whom_it_will_raise_an_alarm_of() {
    let desk = desk(setup(Watch { scan_trigger: 3, ..watch(BlockMode::Block, BlockMode::Block) }));
    let would = |source: &str| {
        desk.responder.would_trigger(source.parse().unwrap(), &desk.responder.table, at(1).micros())
    };
    assert!(!would(SCANNER));
    for port in 1..=2 {
        desk.case(syn(SCANNER, port), at(1));
    }
    assert!(would(SCANNER) && !would(OTHER));
    assert!(self::blocking().responder.would_trigger(OTHER.parse().unwrap(), &desk.responder.table, 0));
}

#[test]
fn what_a_command_found_there_is_explained_and_not_what_another_response_did() {
    let mut setup = setup(watch(BlockMode::Block, BlockMode::Block));
    setup.custom.kill_route = Some("/sbin/route add -host $TARGET$ reject".to_owned());
    let desk = desk(setup);
    let reason = |by: Response, other: Response| {
        let notes = vec![
            Note::new(by, Fault::Exit(7), "SIOCADDRT: File exists", 0),
            Note::new(other, Fault::Exit(4), "the lock is held", 0),
        ];
        desk.responder.reason(&Effect { notes, ..effect(Outcome::Failed(libc::EIO), 0, &[]) }).unwrap()
    };
    assert!(reason(Response::Command, Response::HostsDeny).contains("UNBLOCK_CMD"));
    assert!(!reason(Response::HostsDeny, Response::Command).contains("UNBLOCK_CMD"));
}
