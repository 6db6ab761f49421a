//! What route netlink tells, read. Tests.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::*;
use crate::netlink::message::Messages;

fn route(length: u8, fill: impl FnOnce(&mut Encoder)) -> Option<News> {
    let mut encoder = Encoder::default();
    encoder.message(libc::RTM_NEWROUTE, 0, 0, |message| {
        message.put(&[2, length, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
        fill(message);
    });
    decode(&Messages(&encoder.finish().unwrap()).next().unwrap().unwrap())
}

fn via(is_default: bool, gateways: &[&str]) -> Option<News> {
    let gateways = gateways.iter().map(|text| text.parse().unwrap()).collect();
    Some(News::Route(Route { is_there: true, is_default, gateways }))
}

#[test]
fn a_route_tells_its_gateway_and_whether_it_leads_anywhere() {
    let gateway = |message: &mut Encoder| message.attribute(libc::RTA_GATEWAY, &[192, 0, 2, 1]);
    assert_eq!(route(0, gateway), via(true, &["192.0.2.1"]));
    assert_eq!(route(1, gateway), via(true, &["192.0.2.1"]));
    assert_eq!(route(8, gateway), via(false, &["192.0.2.1"]));
    assert_eq!(route(24, |_| ()), via(false, &[]));
}

#[test]
fn a_local_route_is_a_network_of_our_own_unless_it_is_in_a_table_for_some() {
    let local = |table: u8, kind: u8| {
        let mut encoder = Encoder::default();
        encoder.message(libc::RTM_NEWROUTE, 0, 0, |message| {
            message.put(&[2, 24, 0, 0, table, 4, 0, kind, 0, 0, 0, 0]);
            message.attribute(libc::RTA_DST, &[198, 51, 100, 0]);
        });
        decode(&Messages(&encoder.finish().unwrap()).next().unwrap().unwrap())
    };
    for kind in [libc::RTN_LOCAL, libc::RTN_ANYCAST] {
        let own = Some(News::Local { is_there: true, network: "198.51.100.0/24".parse().unwrap() });
        assert_eq!([libc::RT_TABLE_LOCAL, 100].map(|table| local(table, kind)), [own, None], "{kind}");
    }
    assert_eq!(local(libc::RT_TABLE_LOCAL, libc::RTN_BROADCAST), None);
}

#[test]
fn a_link_has_all_its_names_and_a_wireless_event_is_no_news_of_it() {
    let link = |event: Option<&[u8]>| {
        let mut encoder = Encoder::default();
        encoder.message(libc::RTM_NEWLINK, 0, 0, |message| {
            message.put(&[0; 16]);
            message.text(libc::IFLA_IFNAME, "wlan0");
            match event {
                Some(event) => message.attribute(libc::IFLA_WIRELESS, event),
                None => message.nest(IFLA_PROP_LIST, |list| list.text(IFLA_ALT_IFNAME, "wlp2s0")),
            }
        });
        decode(&Messages(&encoder.finish().unwrap()).next().unwrap().unwrap())
    };
    let Some(News::Link { is_there: true, link: whole }) = link(None) else { panic!("a link") };
    assert!(whole.is_called("wlan0") && whole.is_called("wlp2s0"));
    assert_eq!(link(Some(&[0; 8])), None);
}

#[test]
fn every_next_hop_of_a_multipath_route_is_a_gateway() {
    let mut hops = Vec::new();
    for last in [1, 2] {
        hops.extend([16, 0, 0, 0, 1, 0, 0, 0].map(|byte: u8| byte));
        hops.extend([8, 0, libc::RTA_GATEWAY as u8, 0, 192, 0, 2, last]);
    }
    let multipath = route(0, |message| message.attribute(libc::RTA_MULTIPATH, &hops));
    if cfg!(target_endian = "little") {
        assert_eq!(multipath, via(true, &["192.0.2.1", "192.0.2.2"]));
    }
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let mut six = vec![10, 0];
    six.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(route(0, |message| message.attribute(RTA_VIA, &six)), via(true, &["fe80::1"]));
}

proptest! {
    #[test]
    fn any_news_is_read_without_a_panic(kind in 16_u16..28, payload in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = decode(&Message { kind, flags: 0, sequence: 0, payload: &payload });
    }

    #[test]
    fn any_next_hops_are_read_without_a_panic(hops in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = route(0, |message| message.attribute(libc::RTA_MULTIPATH, &hops));
    }
}
