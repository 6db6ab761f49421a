//! Chains of extension headers: passed, torn, too long, impossible.
#![forbid(unsafe_code)]

use super::super::samples::{SYN6, changed, ipv6, syn6};
use super::*;

/// Eight bytes of an options header: next header, no further units, PadN.
const fn pad(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

fn verified(bytes: &[u8]) -> Result<Packet, Reject> {
    parse(Span::new(bytes, bytes.len()), Checksums::Verify)
}

/// These extension headers before the SYN's segment.
fn chained(first: u8, headers: &[&[u8]]) -> Result<Packet, Reject> {
    verified(&ipv6(first, &[&headers.concat(), &SYN6[40..]].concat()))
}

#[test]
fn every_extension_header_that_may_stand_before_tcp_is_passed() {
    let routing = [44, 0, 0, 0, 0, 0, 0, 0];
    let atomic = [51, 0, 0, 0, 0, 0, 0, 9];
    let authentication = [60, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let headers: [&[u8]; 6] = [&pad(60), &pad(43), &routing, &atomic, &authentication, &pad(6)];
    assert_eq!(chained(HOP_BY_HOP, &headers), Ok(syn6()));
}

#[test]
fn the_chain_is_followed_up_to_the_stated_depth() {
    let deep = |count: usize| {
        let mut headers = vec![pad(60); count];
        headers[count - 1] = pad(6);
        chained(60, &headers.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>())
    };
    assert_eq!(deep(MAX_EXTENSIONS), Ok(syn6()));
    let buried = deep(MAX_EXTENSIONS + 1).map(|packet| packet.transport);
    assert_eq!(buried, Ok(Transport::Buried));
}

#[test]
fn a_transport_behind_more_headers_than_a_slot_holds_is_buried_and_one_at_the_end_of_it_is_not() {
    // Options that a host skips, as many as it takes.
    let long = |units: u8| {
        let mut header = vec![6, units];
        while header.len() < (usize::from(units) + 1) * 8 {
            let left = (usize::from(units) + 1) * 8 - header.len() - 2;
            let data = left.min(254);
            header.extend([0x1e, data as u8].into_iter().chain(std::iter::repeat_n(0xaa, data)));
        }
        ipv6(60, &[&header, &SYN6[40..]].concat())
    };
    let seen = |packet: &[u8]| {
        let cut = &packet[..packet.len().min(176)];
        parse(Span::new(cut, packet.len()), Checksums::Verify).map(|packet| packet.transport)
    };
    assert_eq!(seen(&long(13)), Ok(syn6().transport));
    for units in [14, 20, 255] {
        assert_eq!(seen(&long(units)), Ok(Transport::Buried), "{units}");
    }
    // Padding as long as that its host does not take, and so it hides nothing.
    let mut padded = long(20);
    padded[42..40 + 21 * 8].fill(0);
    assert_eq!(seen(&padded), Err(Reject::ExtensionHeader));
    // Nor where another header is the one too many, or its end is in another fragment.
    let chain = |first: u8, headers: &[&[u8]]| seen(&ipv6(first, &[&headers.concat(), &SYN6[40..]].concat()));
    let (refused, taken) = ([60, 0, 1, 4, 9, 9, 9, 9], [60, 0, 0x1e, 4, 9, 9, 9, 9]);
    let whole = &long(13)[40..40 + 14 * 8];
    let many = [&taken[..]; MAX_EXTENSIONS];
    let first = [60, 0, 0, 1, 0, 0, 0, 7];
    for (head, verdict) in [(refused, Err(Reject::ExtensionHeader)), (taken, Ok(Transport::Buried))] {
        assert_eq!(chain(0, &[&head, whole]), verdict);
        assert_eq!(chain(60, &[&[&head[..]], &many[..], &[whole]].concat()), verdict);
        let torn = [&[6, 255, head[2], 100][..], &[0; 100]].concat();
        assert_eq!(seen(&ipv6(44, &[&first[..], &torn].concat())), verdict);
        // What a later fragment begins with is no header.
        let long_one = [&[44, 14][..], &whole[2..], &[0x1e, 6, 9, 9, 9, 9, 9, 9]].concat();
        assert_eq!(chain(60, &[&long_one, &[60, 0, 5, 0xa8, 0, 0, 0, 7], &head]), Ok(Transport::Buried));
    }
    // One that claims more than the packet has is refused by its host.
    assert_eq!(seen(&long(20)[..100]), Err(Reject::IpLength));
    assert_eq!(verified(&ipv6(60, &[6, 20, 1, 4, 0, 0, 0, 0])), Err(Reject::ExtensionHeader));
}

#[test]
fn a_first_fragment_is_read_and_a_later_one_is_not() {
    let first = chained(FRAGMENT, &[&[6, 0, 0, 1, 0, 0, 0, 9]]);
    assert_eq!(first, Ok(syn6()));
    let tiny = verified(&ipv6(FRAGMENT, &[&[6, 0, 0, 1, 0, 0, 0, 9], &SYN6[40..48]].concat()));
    let identification = 9;
    let tiny_transport =
        Transport::TinyFragment { protocol: 6, source_port: 40_000, port: 22, identification, sequence: 7 };
    assert_eq!(tiny, Ok(Packet { transport: tiny_transport, ..syn6() }));
    let later = verified(&ipv6(FRAGMENT, &[&[6, 0, 0, 9, 0, 0, 0, 9], &SYN6[48..56]].concat())).unwrap();
    assert!(matches!(later.transport, Transport::LaterFragment { offset: 8, head_length: 8, .. }));
    let mut table = crate::packet::Reassembly::new();
    assert_eq!(table.offer(later, (), 0), None);
    assert_eq!(table.offer(tiny.unwrap(), (), 0), Some((syn6(), ())));
}

#[test]
fn a_first_fragment_that_ends_among_its_headers_buries_the_transport() {
    let seen = |first: u8, place: u8, headers: &[u8]| {
        let fragment = [first, 0, 0, place, 0, 0, 0, 9];
        verified(&ipv6(FRAGMENT, &[&fragment[..], headers].concat())).map(|packet| packet.transport)
    };
    let long = [60, 1, 0x1e, 12, 0, 0, 0, 0];
    let routing = [60, 2, 0, 0, 0, 0, 0, 0];
    let authentication = [60, 4, 0, 0, 0, 0, 0, 1];
    let chains: [(u8, &[u8]); 7] = [
        (60, &pad(60)),
        (60, &pad(6)),
        (60, &[pad(60), pad(60)].concat()),
        (60, &long),
        (60, &[pad(60), long].concat()),
        (43, &routing),
        (51, &authentication),
    ];
    for (first, headers) in chains {
        assert_eq!(seen(first, 1, headers), Ok(Transport::Buried), "{headers:?}");
        // Nothing follows a whole packet.
        assert!(seen(first, 0, headers).is_err(), "{headers:?}");
    }
    // What a host refuses at once, whatever follows.
    assert_eq!(seen(60, 1, &pad(0)), Err(Reject::ExtensionHeader));
    assert_eq!(seen(60, 1, &pad(44)), Err(Reject::ExtensionHeader));
    assert_eq!(seen(60, 1, &pad(59)), Err(Reject::NoNextHeader));
    assert_eq!(seen(60, 1, &[]), Err(Reject::FragmentLength));
    // A header that the capture alone cuts off says nothing of its sender.
    let whole = ipv6(FRAGMENT, &[&[60, 0, 0, 1, 0, 0, 0, 9], &pad(60)[..], &pad(6), &SYN6[40..]].concat());
    let cut = |length| parse(Span::new(&whole[..length], whole.len()), Checksums::Verify);
    assert_eq!(cut(56), Err(Reject::CutShort));
    assert!(matches!(cut(whole.len()), Ok(Packet { transport: Transport::Tcp { .. }, .. })));
}

#[test]
fn impossible_fragments_are_refused() {
    let odd = ipv6(FRAGMENT, &[&[6, 0, 0, 1, 0, 0, 0, 9], &SYN6[40..49]].concat());
    assert_eq!(verified(&odd), Err(Reject::FragmentLength));
    let empty = ipv6(FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 9]);
    assert_eq!(verified(&empty), Err(Reject::FragmentLength));
    let beyond = ipv6(FRAGMENT, &[&[6, 0, 0xff, 0xf8, 0, 0, 0, 9], &SYN6[40..48]].concat());
    assert_eq!(verified(&beyond), Err(Reject::FragmentRange));
    let twice = chained(FRAGMENT, &[&[44, 0, 0, 0, 0, 0, 0, 9], &[6, 0, 0, 0, 0, 0, 0, 9]]);
    assert_eq!(twice, Err(Reject::ExtensionHeader));
}

#[test]
fn headers_that_a_host_would_not_pass_are_refused() {
    assert_eq!(chained(60, &[&pad(0), &pad(6)]), Err(Reject::ExtensionHeader));
    assert_eq!(chained(43, &[&[6, 0, 0, 1, 0, 0, 0, 0]]), Err(Reject::SourceRouted));
    assert_eq!(chained(51, &[&[6, 0, 0, 0, 0, 0, 0, 1]]), Err(Reject::ExtensionHeader));
    assert_eq!(verified(&ipv6(60, &[6, 1, 1, 4, 0, 0, 0, 0])), Err(Reject::ExtensionHeader));
    assert_eq!(verified(&ipv6(NO_NEXT_HEADER, &[])), Err(Reject::NoNextHeader));
    assert_eq!(verified(&ipv6(HOP_BY_HOP, &[])), Err(Reject::ExtensionHeader));
    assert_eq!(verified(&ipv6(60, &[])), Err(Reject::ExtensionHeader));
}

#[test]
fn mobility_esp_and_tunnels_are_other_protocols() {
    for protocol in [135, 50, 4, 41, 47, 1] {
        let other = Transport::Other { protocol };
        assert_eq!(verified(&ipv6(protocol, &[0; 8])).map(|packet| packet.transport), Ok(other));
    }
}

/// With its payload length left out.
fn unstated(headers: &[&[u8]]) -> Vec<u8> {
    let packet = ipv6(HOP_BY_HOP, &[&headers.concat(), &SYN6[40..]].concat());
    changed(&changed(&packet, 4, 0), 5, 0)
}

#[test]
fn without_a_length_before_hop_by_hop_options_all_that_came_is_the_payload() {
    assert_eq!(verified(&unstated(&[&pad(6)])), Ok(syn6()));
    assert_eq!(verified(&unstated(&[&pad(60), &pad(6)])), Ok(syn6()));
    let longer = [&unstated(&[&pad(6)])[..], &[0]].concat();
    assert_eq!(verified(&longer), Err(Reject::TcpChecksum));
    // What a jumbo option has to say is more than any other length could: a stream's segments that were put together.
    let most = usize::from(u16::MAX) + 40;
    let of_length = |wire| parse(Span::new(&longer, wire), Checksums::Verify).map(|packet| packet.transport);
    assert!(matches!(of_length(most), Ok(Transport::Tcp { port: 22, .. })));
    assert_eq!(of_length(most + 1), Err(Reject::Jumbogram));
}

#[test]
fn without_a_length_nothing_is_a_fragment() {
    for place in [0, 1, 9] {
        let fragment = [6, 0, 0, place, 0, 0, 0, 9];
        assert_eq!(verified(&unstated(&[&pad(44), &fragment])), Err(Reject::ExtensionHeader), "{place}");
        assert!(chained(HOP_BY_HOP, &[&pad(44), &fragment]).is_ok(), "{place}");
    }
}

#[test]
fn the_payload_length_is_held_against_the_frame() {
    assert_eq!(verified(&changed(&SYN6, 5, 25)), Err(Reject::IpLength));
    assert_eq!(verified(&SYN6[..39]), Err(Reject::IpHeader));
    assert_eq!(verified(&changed(&SYN6, 0, 0x50)), Err(Reject::IpVersion));
}

#[test]
fn mapped_addresses_are_refused_at_either_end() {
    for at in [8, 24] {
        let mut mapped = SYN6.to_vec();
        mapped[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(parse(Span::new(&mapped, mapped.len()), Checksums::Trust), Err(Reject::MappedAddress));
    }
}
