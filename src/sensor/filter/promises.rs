//! What every generated filter keeps: it is one the kernel takes, and it says what the plain specification says.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::machine::{Sight, check, run};
use super::*;
use crate::config::PortSet;
use crate::packet::TcpFlags;

/// The specification, written without a thought of the machine. `None`: a field lies outside the packet.
fn wanted(interest: &Interest, sight: &Sight) -> Option<bool> {
    let type_fits = match sight.packet_type {
        1 | 2 => is_to_one(sight)?,
        packet_type => [0, 4].contains(&packet_type),
    };
    let (is_loopback, is_sent) = (sight.hardware == 772, sight.packet_type == 4);
    let interface_fits = match &interest.interfaces {
        Watched::All => true,
        Watched::AllButLoopback => !is_loopback,
        Watched::Indexes(indexes) => indexes.contains(&sight.interface) || is_sent && !is_loopback,
    };
    Some(
        type_fits
            && interface_fits
            && match sight.ethertype {
                0x0800 => ipv4(interest, sight.packet_type == 4, &sight.bytes)?,
                0x86dd => ipv6(interest, sight.packet_type == 4, &sight.bytes)?,
                ethertype => !is_sent && [0x8100, 0x88a8, 0x9100].contains(&ethertype),
            },
    )
}

/// Though the frame is to many.
fn is_to_one(sight: &Sight) -> Option<bool> {
    match sight.ethertype {
        0x0800 => Some(*sight.bytes.get(16)? < 224 && *sight.bytes.get(19)? != 255),
        0x86dd => Some(*sight.bytes.get(24)? != 0xff),
        _ => Some(false),
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn ipv4(interest: &Interest, outgoing: bool, packet: &[u8]) -> Option<bool> {
    let header = usize::from(packet.first()? & 15) * 4;
    let segment = i32::from(half(packet, 2)?) - header as i32;
    let fragment = half(packet, 6)?;
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    if offset > 0 {
        return Some(offset == 1 && [6, 132].contains(packet.get(9)?));
    }
    if more && (0..20).contains(&segment) {
        return Some(true);
    }
    transport(interest, outgoing, *packet.get(9)?, packet.get(header..).unwrap_or(&[]), segment)
}

fn ipv6(interest: &Interest, outgoing: bool, packet: &[u8]) -> Option<bool> {
    let segment = i32::from(half(packet, 4)?);
    match *packet.get(6)? {
        0 => Some(!outgoing),
        43 | 51 | 60 => Some(true),
        44 => Some(half(packet, 42)? >> 3 <= 1),
        protocol => transport(interest, outgoing, protocol, packet.get(40..).unwrap_or(&[]), segment),
    }
}

fn transport(interest: &Interest, outgoing: bool, protocol: u8, bytes: &[u8], segment: i32) -> Option<bool> {
    match (outgoing, protocol) {
        (false, 6) => tcp(interest, bytes, segment),
        (true, 6) => {
            let flags = TcpFlags(*bytes.get(13)?);
            let [fin, syn, rst, ack] = [0x01, 0x02, 0x04, 0x10].map(|bit| flags.has(bit));
            let wanted = if ack { &interest.tcp } else { &interest.tcp_acks };
            Some(syn && !fin && !rst && wanted.contains(half(bytes, 0)?))
        }
        (_, 17) => {
            let (ours, theirs) = if outgoing { (0, 2) } else { (2, 0) };
            let port = half(bytes, ours)?;
            Some(
                interest.udp.contains(port)
                    || interest.udp_clients.contains(port) && half(bytes, theirs)? >= 1024,
            )
        }
        (false, 132) => Some([1, 10].contains(bytes.get(12)?)),
        (true, 132) => Some([1, 2].contains(bytes.get(12)?)),
        (true, _) => Some(false),
        (false, 1 | 58) => Some(interest.icmp && [13, 17].contains(bytes.first()?)),
        (false, _) => Some(interest.other_protocols && ![2, 4, 41, 47, 50, 51].contains(&protocol)),
    }
}

fn tcp(interest: &Interest, bytes: &[u8], segment: i32) -> Option<bool> {
    let flags = TcpFlags(*bytes.get(13)?);
    let [fin, syn, rst, ack] = [0x01, 0x02, 0x04, 0x10].map(|bit| flags.has(bit));
    if syn && (fin || rst) {
        return Some(true);
    }
    match (ack, syn || rst) {
        (true, true) => Some(false),
        (true, false) => {
            let header = i32::from(*bytes.get(12)? >> 4) * 4;
            Some(interest.tcp_acks.contains(half(bytes, 2)?) && segment == header)
        }
        (false, _) if rst => Some(false),
        (false, _) if flags.classic() == TcpFlags::SYN => Some(interest.tcp.contains(half(bytes, 2)?)),
        (false, _) => Some(true),
    }
}

fn agrees(interest: &Interest, program: &Program, sight: &Sight) -> bool {
    let answer = run(&program.instructions, sight);
    let wanted = wanted(interest, sight).unwrap_or(false);
    [0, CAPTURED_BYTES as u32].contains(&answer) && (wanted == (answer > 0) || (program.widened && !wanted))
}

fn ports() -> impl Strategy<Value = PortSet> {
    prop_oneof![
        Just(PortSet::new()),
        Just((0..=u16::MAX).collect::<PortSet>()),
        proptest::collection::vec(any::<u16>(), 1..20).prop_map(PortSet::from_iter),
        proptest::collection::vec(0u16..40, 1..20).prop_map(PortSet::from_iter),
        (1u16..500, 1usize..300).prop_map(|(first, step)| (first..=u16::MAX).step_by(step).collect()),
    ]
}

fn interest() -> impl Strategy<Value = Interest> {
    let watched = prop_oneof![
        Just(Watched::All),
        Just(Watched::AllButLoopback),
        proptest::collection::vec(0u32..80, 0..70).prop_map(Watched::Indexes),
    ];
    (watched, ports(), ports(), ports(), ports(), any::<bool>(), any::<bool>()).prop_map(
        |(interfaces, tcp, tcp_acks, udp, udp_clients, icmp, other_protocols)| Interest {
            interfaces,
            tcp,
            tcp_acks,
            udp,
            udp_clients,
            icmp,
            other_protocols,
        },
    )
}

/// Packets near the truth: random bytes whose decisive fields are likely to be meaningful.
fn sight() -> impl Strategy<Value = Sight> {
    let about = (
        prop_oneof![6 => Just(0x0800u16), 6 => Just(0x86dd), 1 => Just(0x8100), 1 => any::<u16>()],
        prop_oneof![6 => Just(0u8), 4 => Just(4u8), 2 => 0u8..6],
        0u32..80,
        prop_oneof![6 => Just(1u16), 1 => Just(772)],
    );
    let network = (
        prop_oneof![6 => Just(0x45u8), 1 => any::<u8>()],
        prop_oneof![3 => Just(6u8), 1 => Just(17), 1 => Just(132), 2 => Just(44), 1 => any::<u8>()],
        prop_oneof![5 => Just(0u16), 1 => Just(0x2000), 1 => Just(1), 1 => Just(0x2001), 1 => any::<u16>()],
        prop_oneof![2 => 0u16..70, 1 => 60u16..120],
    );
    let transport = (prop_oneof![1 => 0u16..40, 1 => any::<u16>()], any::<u8>(), 0u8..16);
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    (about, network, transport, bytes).prop_map(|(about, network, transport, mut bytes)| {
        let (ethertype, packet_type, interface, hardware) = about;
        shape(&mut bytes, ethertype, network, transport);
        Sight { bytes, ethertype, packet_type, interface, hardware }
    })
}

fn shape(bytes: &mut [u8], ethertype: u16, network: (u8, u8, u16, u16), transport: (u16, u8, u8)) {
    let (first, protocol, fragment, length) = network;
    let (port, flags, offset) = transport;
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    let header = if ethertype == 0x86dd {
        put(4, &length.to_be_bytes());
        put(6, &[protocol]);
        put(42, &fragment.rotate_left(3).to_be_bytes());
        40
    } else {
        put(0, &[first]);
        put(2, &length.to_be_bytes());
        put(6, &fragment.to_be_bytes());
        put(9, &[protocol]);
        usize::from(first & 15) * 4
    };
    if protocol != 44 {
        put(header + 2, &port.to_be_bytes());
        put(header + 12, &[if protocol == 132 { offset } else { offset << 4 }, flags]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_filter_says_what_the_specification_says(
        interest in interest(),
        sights in proptest::collection::vec(sight(), 64),
    ) {
        let program = compile(&interest);
        check(&program.instructions);
        for sight in sights {
            prop_assert!(agrees(&interest, &program, &sight), "{sight:?}");
        }
    }
}

fn segment(flags: u8, port: u16, payload: usize) -> Sight {
    let mut bytes = vec![0; 40 + payload];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(40 + payload as u16).to_be_bytes());
    bytes[9] = 6;
    bytes[22..24].copy_from_slice(&port.to_be_bytes());
    bytes[32] = 0x50;
    bytes[33] = flags;
    Sight { bytes, ethertype: 0x0800, packet_type: 0, interface: 2, hardware: 1 }
}

fn goes_up(interest: &Interest, sight: &Sight) -> bool {
    run(&compile(interest).instructions, sight) > 0
}

#[test]
fn probes_of_a_watched_port_go_up_and_traffic_stays_below() {
    let ports: PortSet = [23].into_iter().collect();
    let interest = Interest { tcp: ports.clone(), tcp_acks: ports, ..Interest::default() };
    for (flags, payload, up) in [
        (0x02, 0, true),   // SYN
        (0xc2, 0, true),   // SYN with ECN
        (0x02, 99, true),  // SYN with data
        (0x00, 0, true),   // NULL
        (0x01, 0, true),   // FIN
        (0x29, 0, true),   // XMAS
        (0x03, 0, true),   // SYN+FIN
        (0x10, 0, true),   // ACK scan
        (0x11, 0, true),   // Maimon
        (0x10, 99, false), // established
        (0x18, 99, false),
        (0x11, 99, false),
        (0x12, 0, false), // SYN+ACK
        (0x04, 0, false), // RST
        (0x14, 0, false),
    ] {
        assert_eq!(goes_up(&interest, &segment(flags, 23, payload)), up, "{flags:#x} {payload}");
    }
}

/// The shortest way out goes by lengths alone, which a header full of options must not be mistaken by.
#[test]
fn a_bare_ack_with_every_option_there_is_goes_up_and_one_byte_more_does_not() {
    let ports: PortSet = [23].into_iter().collect();
    let interest = Interest { tcp: ports.clone(), tcp_acks: ports, ..Interest::default() };
    for (payload, up) in [(0, true), (1, false)] {
        let mut four = segment(0x10, 23, 40 + payload);
        four.bytes[32] = 0xf0;
        let mut six = four.clone();
        six.ethertype = 0x86dd;
        six.bytes.splice(..20, [0; 40]);
        six.bytes[4..6].copy_from_slice(&(60 + payload as u16).to_be_bytes());
        six.bytes[6] = 6;
        assert_eq!([four, six].map(|sight| goes_up(&interest, &sight)), [up; 2], "{payload}");
    }
}

#[test]
fn elsewhere_only_impossible_flags_go_up() {
    let interest = Interest { tcp: [23].into_iter().collect(), ..Interest::default() };
    for (flags, up) in [(0x02, false), (0x10, false), (0x11, false), (0, true), (0x29, true), (0x03, true)] {
        assert_eq!(goes_up(&interest, &segment(flags, 80, 0)), up, "{flags:#x}");
    }
}

/// What a LAN is full of: DHCP, NetBIOS, mDNS, router advertisements.
#[test]
fn of_frames_to_many_only_what_is_to_one_host_goes_up() {
    let interest = Interest { udp: (0..=u16::MAX).collect(), ..Interest::default() };
    let mut four = segment(0, 137, 0);
    four.bytes[9] = 17;
    let mut six = Sight { ethertype: 0x86dd, ..four.clone() };
    six.bytes.splice(..20, [0; 40]);
    six.bytes[6] = 17;
    let goes_up = |sight: &Sight, packet_type, at: usize, address: &[u8]| {
        let mut sight = Sight { packet_type, ..sight.clone() };
        sight.bytes[at..at + address.len()].copy_from_slice(address);
        goes_up(&interest, &sight)
    };
    for (to_many, other) in [(1, 3), (2, 3)] {
        for (address, up) in
            [([10, 0, 0, 1], true), ([10, 0, 0, 255], false), ([255; 4], false), ([224, 0, 0, 251], false)]
        {
            assert_eq!(goes_up(&four, to_many, 16, &address), up, "{address:?}");
            assert!(goes_up(&four, 0, 16, &address) && !goes_up(&four, other, 16, &address));
        }
        assert!(goes_up(&six, to_many, 24, &[0xfe, 0x80]) && !goes_up(&six, to_many, 24, &[0xff, 0x02]));
        let tagged = Sight { ethertype: 0x8100, ..four.clone() };
        assert!(goes_up(&tagged, 0, 16, &[10; 4]) && !goes_up(&tagged, to_many, 16, &[10; 4]));
    }
}

#[test]
fn a_ragged_port_set_is_widened() {
    let interest = Interest { tcp: (1..=u16::MAX).step_by(2).collect(), ..Interest::default() };
    let program = compile(&interest);
    check(&program.instructions);
    assert!(program.widened && program.instructions.len() < 500, "{}", program.instructions.len());
    for port in interest.tcp.iter() {
        assert!(run(&program.instructions, &segment(0x02, port, 0)) > 0, "{port}");
    }
}

#[test]
fn a_fitting_port_set_is_kept_to_the_letter() {
    let interest = Interest { tcp: (100..=u16::MAX).step_by(2500).collect(), ..Interest::default() };
    let program = compile(&interest);
    assert!(!program.widened);
    for port in 0..=u16::MAX {
        let up = run(&program.instructions, &segment(0x02, port, 0)) > 0;
        assert_eq!(up, interest.tcp.contains(port), "{port}");
    }
}

#[test]
fn nothing_lets_nothing_up() {
    check(&nothing().instructions);
    assert_eq!(run(&nothing().instructions, &segment(0x02, 23, 0)), 0);
}
