//! The parser and etherparse read the same frames alike, but for the classes of disagreement listed in [`Class`];
//! and no bytes whatever make the parser panic.
#![forbid(unsafe_code)]
// Not `#[test]` functions, but run by nothing else.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetSlice, PacketBuilder,
    PacketBuilderStep, SlicedPacket, TcpHeader, TcpOptions, TransportSlice, VlanId, ip_number,
};
use portsentry::packet::{
    Checksums, LinkType, Packet, Reassembly, Reject, TcpFlags, Transport, parse, parse_cut,
};
use proptest::prelude::*;
use std::net::IpAddr;

/// Where the two parsers may disagree, and why ours is right for its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// etherparse leaves every fragment's payload alone (but for extension headers, which it seeks even in later
    /// ones); we read ports and flags from the first one, and refuse fragments that no host would reassemble.
    Fragment,
    /// etherparse knows no SCTP: protocol 132 without ports.
    Sctp,
    /// etherparse follows an authentication header over IPv4; a host without that association drops it, so it is
    /// protocol 51 and nothing more.
    AuthenticationOverIpv4,
    /// etherparse checks lengths of IGMP, of ICMP timestamps and of ICMPv6 messages by their type; a probe is told
    /// by type and code alone.
    MessageBody,
    /// etherparse reads ICMP over IPv6 and ICMPv6 over IPv4; to a host each is an unknown protocol.
    IcmpOfOtherVersion,
    /// etherparse takes any IPv6 payload length of 0 to mean "up to the frame's end"; to a host only one before hop-by-hop
    /// options does, any other means an empty payload.
    ZeroPayloadLength,
    /// etherparse takes a UDP length of 0 to mean "up to the end" over IPv4 too; a host drops it there.
    ZeroUdpLength,
    /// etherparse follows a routing header that sends the packet on to another node, a second fragment header and
    /// a chain of any length, and passes "no next header" on; we follow what a host follows and refuse the rest.
    /// (A chain longer than is followed buries its transport: that is told of it, not what it may hold.)
    ExtensionChain,
    /// etherparse takes IPv4-mapped addresses in an IPv6 header as they are; a host drops them, and so do we.
    MappedAddress,
}

/// Facts of a packet as etherparse gives them.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    source: IpAddr,
    destination: IpAddr,
    ip_options: Option<bool>,
    fragmented: bool,
    /// The IPv6 payload length is zero, and no hop-by-hop options follow.
    zero_length: bool,
    transport: Transport,
}

impl Facts {
    fn is_mapped(&self) -> bool {
        self.ip_options.is_none() && (self.source.is_ipv4() || self.destination.is_ipv4())
    }
}

#[derive(Debug)]
enum Theirs {
    Seen(Facts),
    NotIp,
    Refused,
}

fn tcp_flags(header: &TcpHeader) -> TcpFlags {
    let bits =
        [header.fin, header.syn, header.rst, header.psh, header.ack, header.urg, header.ece, header.cwr];
    TcpFlags(bits.iter().enumerate().fold(0, |flags, (bit, set)| flags | (u8::from(*set) << bit)))
}

fn their_transport(slice: Option<&TransportSlice<'_>>, protocol: IpNumber) -> Transport {
    let length = |payload: &[u8]| u16::try_from(payload.len()).unwrap();
    match slice {
        Some(TransportSlice::Tcp(tcp)) => Transport::Tcp {
            source_port: tcp.source_port(),
            port: tcp.destination_port(),
            flags: tcp_flags(&tcp.to_header()),
            sequence: tcp.sequence_number(),
            payload: length(tcp.payload()),
        },
        Some(TransportSlice::Udp(udp)) => Transport::Udp {
            source_port: udp.source_port(),
            port: udp.destination_port(),
            payload: length(udp.payload()),
        },
        Some(TransportSlice::Icmpv4(icmp)) => Transport::Icmp { kind: icmp.type_u8(), code: icmp.code_u8() },
        Some(TransportSlice::Icmpv6(icmp)) => Transport::Icmp { kind: icmp.type_u8(), code: icmp.code_u8() },
        Some(TransportSlice::Igmp(_)) | None => Transport::Other { protocol: protocol.0 },
    }
}

fn theirs(frame: &[u8]) -> Theirs {
    let Ok(sliced) = SlicedPacket::from_ethernet(frame) else { return Theirs::Refused };
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => Theirs::Seen(Facts {
            source: ip.header().source_addr().into(),
            destination: ip.header().destination_addr().into(),
            ip_options: Some(!ip.header().options().is_empty()),
            fragmented: ip.is_payload_fragmented(),
            zero_length: false,
            transport: their_transport(sliced.transport.as_ref(), ip.payload().ip_number),
        }),
        Some(NetSlice::Ipv6(ip)) => Theirs::Seen(Facts {
            source: ip.header().source_addr().to_canonical(),
            destination: ip.header().destination_addr().to_canonical(),
            ip_options: None,
            fragmented: ip.is_payload_fragmented(),
            zero_length: ip.header().payload_length() == 0
                && ip.header().next_header() != ip_number::IPV6_HEADER_HOP_BY_HOP,
            transport: their_transport(sliced.transport.as_ref(), ip.payload().ip_number),
        }),
        Some(NetSlice::Arp(_)) | None => Theirs::NotIp,
    }
}

/// `Ok(None)` where both agree, `Ok(Some(class))` where they may disagree, `Err` where they must not.
fn compare(ours: Result<Packet, Reject>, theirs: &Theirs) -> Result<Option<Class>, String> {
    match (ours, theirs) {
        (Ok(packet), Theirs::Seen(facts)) => {
            let headers = (packet.source, packet.destination, packet.ip_options);
            if headers != (facts.source, facts.destination, facts.ip_options) {
                return Err(format!("{packet:?} has other headers than {facts:?}"));
            }
            if packet.transport == facts.transport {
                return Ok(None);
            }
            excuse_content(packet, facts).map(Some).ok_or_else(|| format!("{packet:?} is not {facts:?}"))
        }
        (Err(reject), Theirs::Seen(facts)) => {
            excuse_reject(reject, facts).map(Some).ok_or_else(|| format!("{reject:?} is seen as {facts:?}"))
        }
        (Ok(packet), Theirs::Refused) => {
            excuse_refusal(packet).map(Some).ok_or_else(|| format!("{packet:?} is refused"))
        }
        // Ill-formed ARP is refused there and not IP here.
        (Err(Reject::NotIp), Theirs::NotIp) => Ok(None),
        (Err(_), Theirs::Refused) => Ok(None),
        (ours, Theirs::NotIp) => Err(format!("{ours:?} is not IP")),
    }
}

fn excuse_content(packet: Packet, facts: &Facts) -> Option<Class> {
    match packet.transport {
        _ if facts.fragmented => Some(Class::Fragment),
        Transport::Buried => Some(Class::ExtensionChain),
        Transport::Other { protocol: 51 } if packet.ip_options.is_some() => {
            Some(Class::AuthenticationOverIpv4)
        }
        Transport::Sctp { .. } if facts.transport == (Transport::Other { protocol: 132 }) => {
            Some(Class::Sctp)
        }
        Transport::Other { protocol: 1 | 58 } if matches!(facts.transport, Transport::Icmp { .. }) => {
            Some(Class::IcmpOfOtherVersion)
        }
        _ if facts.zero_length => Some(Class::ZeroPayloadLength),
        _ => None,
    }
}

fn excuse_reject(reject: Reject, facts: &Facts) -> Option<Class> {
    let v6 = facts.ip_options.is_none();
    match reject {
        _ if facts.zero_length => Some(Class::ZeroPayloadLength),
        _ if facts.fragmented => Some(Class::Fragment),
        Reject::SctpHeader if facts.transport == (Transport::Other { protocol: 132 }) => Some(Class::Sctp),
        Reject::UdpLength if matches!(facts.transport, Transport::Udp { .. }) && !v6 => {
            Some(Class::ZeroUdpLength)
        }
        Reject::SourceRouted if v6 => Some(Class::ExtensionChain),
        Reject::NoNextHeader if facts.transport == (Transport::Other { protocol: 59 }) => {
            Some(Class::ExtensionChain)
        }
        Reject::ExtensionHeader if v6 => Some(Class::ExtensionChain),
        Reject::MappedAddress if facts.is_mapped() => Some(Class::MappedAddress),
        _ => None,
    }
}

fn excuse_refusal(packet: Packet) -> Option<Class> {
    match packet.transport {
        Transport::Other { protocol: 51 } if packet.ip_options.is_some() => {
            Some(Class::AuthenticationOverIpv4)
        }
        Transport::Other { protocol: 2 } | Transport::Icmp { .. } => Some(Class::MessageBody),
        Transport::Other { protocol: 1 | 58 } => Some(Class::IcmpOfOtherVersion),
        Transport::TinyFragment { .. } | Transport::LaterFragment { .. } => Some(Class::Fragment),
        Transport::Buried => Some(Class::ExtensionChain),
        _ => None,
    }
}

/// A generated packet's transport.
#[derive(Clone, Debug)]
enum Layer {
    Tcp { ports: (u16, u16), flags: u8, sequence: u32, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Icmp { id: u16 },
}

/// Which extension headers a generated IPv6 packet has; the numbers are lengths in 8-byte units.
#[derive(Clone, Debug)]
struct Chain {
    hop_by_hop: Option<u8>,
    destination: Option<u8>,
    routing: Option<u8>,
    atomic: bool,
    authentication: bool,
}

#[derive(Clone, Debug)]
enum Network {
    V4 { source: [u8; 4], destination: [u8; 4], option_words: usize },
    V6 { source: [u8; 16], destination: [u8; 16], chain: Chain },
}

#[derive(Clone, Debug)]
struct Recipe {
    tags: u8,
    network: Network,
    layer: Layer,
    payload: Vec<u8>,
    padding: usize,
}

/// Any byte, and often one that means something somewhere: a protocol number, a small length.
fn telling_bytes() -> impl Strategy<Value = u8> {
    let protocols = prop::sample::select(vec![0_u8, 1, 2, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135]);
    prop_oneof![any::<u8>(), protocols, 0_u8..64]
}

fn layers() -> impl Strategy<Value = Layer> {
    prop_oneof![
        (any::<(u16, u16)>(), any::<u8>(), any::<u32>(), prop::collection::vec(0_u8..=1, 0..=40))
            .prop_map(|(ports, flags, sequence, options)| Layer::Tcp { ports, flags, sequence, options }),
        any::<(u16, u16)>().prop_map(|ports| Layer::Udp { ports }),
        any::<u16>().prop_map(|id| Layer::Icmp { id }),
    ]
}

fn networks() -> impl Strategy<Value = Network> {
    // All of them together stay within what the parser follows: a longer chain is a class of its own.
    let units = || prop::option::of(0_u8..3);
    let chains = (units(), units(), units(), any::<bool>(), any::<bool>()).prop_map(
        |(hop_by_hop, destination, routing, atomic, authentication)| Chain {
            hop_by_hop,
            destination,
            routing,
            atomic,
            authentication,
        },
    );
    prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>(), 0_usize..=10).prop_map(|(source, destination, option_words)| {
            Network::V4 { source, destination, option_words }
        }),
        (any::<[u8; 16]>(), any::<[u8; 16]>(), chains).prop_map(|(source, destination, chain)| Network::V6 {
            source,
            destination,
            chain
        }),
    ]
}

fn recipes() -> impl Strategy<Value = Recipe> {
    (0_u8..=2, networks(), layers(), prop::collection::vec(any::<u8>(), 0..64), 0_usize..24).prop_map(
        |(tags, network, layer, payload, padding)| Recipe { tags, network, layer, payload, padding },
    )
}

/// An options or routing header of `units` further units, all padding (or a routing header with no segments left).
fn raw_extension(units: u8) -> Ipv6RawExtHeader {
    Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; 6 + usize::from(units) * 8]).unwrap()
}

fn extensions(chain: &Chain) -> Ipv6Extensions {
    let authentication = || IpAuthHeader::new(IpNumber(0), 1, 1, &[0; 4]).unwrap();
    Ipv6Extensions {
        hop_by_hop_options: chain.hop_by_hop.map(raw_extension),
        destination_options: chain.destination.map(raw_extension),
        routing: chain.routing.map(|units| Ipv6RoutingExtensions {
            routing: raw_extension(units),
            final_destination_options: None,
        }),
        fragment: chain.atomic.then(|| Ipv6FragmentHeader::new(IpNumber(0), IpFragOffset::ZERO, false, 7)),
        auth: chain.authentication.then(authentication),
    }
}

fn ip_headers(network: &Network) -> IpHeaders {
    match network {
        Network::V4 { source, destination, option_words } => {
            let mut header = Ipv4Header::new(0, 64, ip_number::TCP, *source, *destination).unwrap();
            header.options = vec![1; option_words * 4].as_slice().try_into().unwrap();
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        Network::V6 { source, destination, chain } => {
            let header = Ipv6Header { source: *source, destination: *destination, ..Ipv6Header::default() };
            IpHeaders::Ipv6(header, extensions(chain))
        }
    }
}

fn tcp_header(ports: (u16, u16), flags: u8, sequence: u32, options: &[u8]) -> TcpHeader {
    let mut header = TcpHeader::new(ports.0, ports.1, sequence, 1024);
    [header.fin, header.syn, header.rst, header.psh] = [1, 2, 4, 8].map(|bit| flags & bit != 0);
    [header.ack, header.urg, header.ece, header.cwr] = [16, 32, 64, 128].map(|bit| flags & bit != 0);
    header.options = TcpOptions::try_from_slice(options).unwrap();
    header
}

fn written(step: PacketBuilderStep<IpHeaders>, recipe: &Recipe) -> Vec<u8> {
    let mut frame = Vec::new();
    match &recipe.layer {
        Layer::Tcp { ports, flags, sequence, options } => {
            step.tcp_header(tcp_header(*ports, *flags, *sequence, options)).write(&mut frame, &recipe.payload)
        }
        Layer::Udp { ports } => step.udp(ports.0, ports.1).write(&mut frame, &recipe.payload),
        Layer::Icmp { id } => match recipe.network {
            Network::V4 { .. } => step.icmpv4_echo_request(*id, 1).write(&mut frame, &recipe.payload),
            Network::V6 { .. } => step.icmpv6_echo_request(*id, 1).write(&mut frame, &recipe.payload),
        },
    }
    .unwrap();
    frame.resize(frame.len() + recipe.padding, 0);
    frame
}

fn frame(recipe: &Recipe) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (outer, inner) = (VlanId::try_new(7).unwrap(), VlanId::try_new(8).unwrap());
    let ip = ip_headers(&recipe.network);
    match recipe.tags {
        0 => written(ethernet.ip(ip), recipe),
        1 => written(ethernet.single_vlan(outer).ip(ip), recipe),
        _ => written(ethernet.double_vlan(outer, inner).ip(ip), recipe),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn valid_packets_are_read_alike_and_their_checksums_hold(recipe in recipes()) {
        let frame = frame(&recipe);
        let ours = parse(LinkType::Ethernet, &frame, Checksums::Verify);
        prop_assert!(ours.is_ok(), "{ours:?}");
        prop_assert_eq!(compare(ours, &theirs(&frame)), Ok(None));
    }

    #[test]
    fn a_length_that_is_left_out_before_hop_by_hop_options_is_read_alike(recipe in recipes(), units in 0_u8..3) {
        let mut recipe = Recipe { tags: 0, padding: 0, ..recipe };
        if let Network::V6 { chain, .. } = &mut recipe.network {
            (chain.hop_by_hop, chain.atomic) = (Some(units), false);
            let stated = frame(&recipe);
            let mut unstated = stated.clone();
            unstated[18..20].fill(0);
            let ours = |frame: &[u8]| parse(LinkType::Ethernet, frame, Checksums::Verify);
            prop_assert!(ours(&unstated).is_ok());
            prop_assert_eq!(ours(&unstated), ours(&stated));
            prop_assert_eq!(compare(ours(&unstated), &theirs(&unstated)), Ok(None));
        }
    }

    #[test]
    fn mutated_packets_are_read_alike_but_for_the_listed_classes(
        recipe in recipes(),
        changes in prop::collection::vec((0_usize..120, telling_bytes()), 1..5),
        cut in prop::option::weighted(0.2, 0_usize..160),
    ) {
        let mut frame = frame(&recipe);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(usize::MAX));
        let ours = parse(LinkType::Ethernet, &frame, Checksums::Trust);
        let verdict = compare(ours, &theirs(&frame));
        prop_assert!(verdict.is_ok(), "{verdict:?} {frame:02x?}");
    }

    #[test]
    fn one_damaged_byte_of_a_whole_segment_is_noticed(
        recipe in recipes(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
    ) {
        let mut recipe = Recipe { padding: 0, ..recipe };
        recipe.payload.push(0);
        let mut frame = frame(&recipe);
        // The payload stands last, and is under the transport's checksum alone.
        let index = frame.len() - 1 - at.index(recipe.payload.len());
        frame[index] ^= flip;
        prop_assert!(parse(LinkType::Ethernet, &frame, Checksums::Verify).is_err());
    }

    #[test]
    fn a_cut_capture_yields_the_same_packet_or_says_that_it_is_cut(recipe in recipes(), keep in 0_usize..160) {
        let frame = frame(&recipe);
        let kept = &frame[..keep.min(frame.len())];
        let whole = parse(LinkType::Ethernet, &frame, Checksums::Verify);
        let cut = parse_cut(LinkType::Ethernet, kept, frame.len(), Checksums::Verify);
        prop_assert!(cut == whole || cut == Err(Reject::CutShort), "{cut:?}");
    }

    #[test]
    fn any_bytes_yield_a_packet_or_a_reject(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        version in prop::option::of(prop_oneof![0x45_u8..0x50, 0x60_u8..0x62]),
        wire_length in 0_usize..70_000,
        ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x8100), any::<u16>()],
    ) {
        let mut bytes = bytes;
        if let (Some(first), Some(version)) = (bytes.first_mut(), version) {
            *first = version;
        }
        let mut table = Reassembly::new();
        for link in [
            LinkType::Ethernet,
            LinkType::Raw,
            LinkType::Loopback,
            LinkType::LinuxSll,
            LinkType::LinuxSll2,
            LinkType::Cooked { ethertype },
        ] {
            for checksums in [Checksums::Trust, Checksums::Verify] {
                let whole = parse(link, &bytes, checksums);
                prop_assert_ne!(whole, Err(Reject::CutShort), "nothing was cut");
                if let Ok(packet) = parse_cut(link, &bytes, wire_length, checksums) {
                    table.offer(packet, (), 0);
                }
            }
        }
    }
}

/// A frame for each class, so that the list above cannot outlive its reasons.
#[test]
fn every_listed_class_of_disagreement_is_real() {
    let ethernet = |ethertype: [u8; 2], datagram: &[u8]| [&[2; 12], &ethertype[..], datagram].concat();
    let v4 = |protocol: u8, fragment: [u8; 2], payload: &[u8]| {
        let length = u8::try_from(20 + payload.len()).unwrap();
        let header = [0x45, 0, 0, length, 0, 1, fragment[0], fragment[1], 64, protocol, 0, 0];
        ethernet([8, 0], &[&header[..], &[192, 0, 2, 1, 192, 0, 2, 2], payload].concat())
    };
    let v6 = |next: u8, length: u8, payload: &[u8]| {
        let header = [0x60, 0, 0, 0, 0, length, next, 64];
        ethernet([0x86, 0xdd], &[&header[..], &[0x20; 32], payload].concat())
    };
    let tcp = [1, 2, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0];
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let disagreements = [
        (Class::Fragment, v4(6, [0x20, 0], &tcp[..8])),
        (Class::Sctp, v4(132, [0, 0], &[0; 12])),
        (
            Class::AuthenticationOverIpv4,
            v4(51, [0, 0], &[&[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &tcp].concat()),
        ),
        (Class::MessageBody, v4(1, [0, 0], &[13, 0, 0, 0, 0, 0, 0, 0])),
        (Class::ZeroPayloadLength, v6(6, 0, &tcp)),
        (Class::ZeroUdpLength, v4(17, [0, 0], &[1, 2, 0, 53, 0, 0, 0, 0])),
        (Class::ExtensionChain, v6(43, 28, &[&[6, 0, 0, 1, 0, 0, 0, 0][..], &tcp].concat())),
        (Class::ExtensionChain, v6(59, 8, &[0; 8])),
        (Class::ExtensionChain, v6(60, 92, &[&options(60).repeat(8)[..], &options(6), &tcp].concat())),
        (Class::IcmpOfOtherVersion, v6(1, 8, &[8, 0, 0, 0, 0, 0, 0, 0])),
    ];
    for (class, frame) in disagreements {
        let ours = parse(LinkType::Ethernet, &frame, Checksums::Trust);
        assert_eq!(compare(ours, &theirs(&frame)), Ok(Some(class)), "{ours:?} {:?}", theirs(&frame));
    }
}
