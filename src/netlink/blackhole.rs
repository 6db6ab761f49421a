//! Blackhole routes of our own (rtnetlink(7)): requests to make and unmake them, and the list of those there are.
//!
//! Pure; the helper's. Ours are known by their routing protocol number: nobody else's route is ever touched.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{self, Encoder, Message};

/// `rtm_protocol` of our routes: above RTPROT_STATIC the numbers are user space's (linux/rtnetlink.h), and iproute2's
/// `rt_protos` gives this one to nobody.
pub const PROTOCOL: u8 = 113;

/// The family header and destination of RTM_NEWROUTE and RTM_DELROUTE for `target`.
pub fn fill(message: &mut Encoder, target: &IpNet) {
    let family = match target {
        IpNet::V4(_) => libc::AF_INET,
        IpNet::V6(_) => libc::AF_INET6,
    };
    // struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags (4).
    let table = libc::RT_TABLE_MAIN;
    message.put(&[
        u8::try_from(family).unwrap_or(0),
        target.prefix_len(),
        0,
        0,
        table,
        PROTOCOL,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_BLACKHOLE,
        0,
        0,
        0,
        0,
    ]);
    match target.network() {
        IpAddr::V4(address) => message.attribute(libc::RTA_DST, &address.octets()),
        IpAddr::V6(address) => message.attribute(libc::RTA_DST, &address.octets()),
    }
}

/// The destination of a route in a dump, if the route is ours.
pub fn decode(message: &Message<'_>) -> Option<IpNet> {
    (message.kind == libc::RTM_NEWROUTE).then_some(())?;
    let (&[_, length, _, _, _, protocol, _, kind, ..], attributes) = message.split::<12>()?;
    (protocol == PROTOCOL && kind == libc::RTN_BLACKHOLE).then_some(())?;
    let address = message::address(attributes.find(libc::RTA_DST)?.payload)?;
    IpNet::new(address, length).ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::Messages;

    fn sent(target: &str) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.message(libc::RTM_NEWROUTE, 0, 0, |message| fill(message, &target.parse().unwrap()));
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_asked_for_is_what_a_list_shows() {
        for target in ["192.0.2.7/32", "192.0.2.0/24", "2001:db8::7/128", "2001:db8::/64"] {
            let bytes = sent(target);
            let message = Messages(&bytes).next().unwrap().unwrap();
            assert_eq!(decode(&message), Some(target.parse().unwrap()));
        }
    }

    #[test]
    fn a_route_of_somebody_else_is_not_ours() {
        let mut bytes = sent("192.0.2.7/32");
        bytes[16 + 5] = libc::RTPROT_STATIC;
        assert_eq!(decode(&Messages(&bytes).next().unwrap().unwrap()), None);
    }

    proptest! {
        #[test]
        fn any_route_is_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&Message { kind: libc::RTM_NEWROUTE, flags: 0, sequence: 0, payload: &payload });
        }
    }
}
