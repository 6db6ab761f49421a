//! What route netlink tells of addresses, links and routes (rtnetlink(7)), as typed values.
//!
//! Pure; both roles. Only reads: nothing here changes the host's network.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{self, Attribute, Attributes, Encoder, Message};

/// Notifications of links, addresses and routes of both families: `RTMGRP_*` of linux/rtnetlink.h.
pub const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE) as u32;

/// `struct rtnexthop`.
const NEXT_HOP_LENGTH: usize = 8;
/// linux/rtnetlink.h; the libc crate has it for glibc alone.
const RTA_VIA: u16 = 18;
/// linux/if_link.h.
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
/// linux/if_link.h (Linux 5.5).
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;

/// One address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its interface.
    pub interface: u32,
    /// The address itself, not a point-to-point link's far end.
    pub local: IpAddr,
    /// Length of its on-link prefix.
    pub prefix_len: u8,
    /// The configured broadcast address, IPv4 only.
    pub broadcast: Option<IpAddr>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Others that it has besides (`altname`): udev gives every card those of its place and its hardware address.
    pub alternatives: Vec<String>,
    /// `ARPHRD_*` of linux/if_arp.h: 1 Ethernet, 772 loopback, 65534 none (tun).
    pub hardware: u16,
    /// `IFF_*` flags, 0x1 up, 0x8 loopback.
    pub flags: u32,
    /// What comes in by it is passed on to others, over IPv4 or IPv6.
    pub forwards: bool,
    /// The bridge whose port it is, by its index.
    pub bridge: Option<u32>,
}

impl Link {
    /// Whether this is one of its names.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|other| other == name)
    }

    /// Whether both have the same names.
    pub fn has_names_of(&self, other: &Link) -> bool {
        self.name == other.name && self.alternatives == other.alternatives
    }
}

/// What a message, of a dump or of a notification, is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An address came, changed or went.
    Address {
        /// It came or changed: it did not go.
        is_there: bool,
        /// Which.
        address: Address,
    },
    /// An interface came, changed or went.
    Link {
        /// It came or changed: it did not go.
        is_there: bool,
        /// Which.
        link: Link,
    },
    /// A route to others came, changed or went.
    Route(Route),
    /// A network that is this host's own as a whole (`ip route add local`), or one address of its own, anycast ones too.
    Local {
        /// It came or changed: it did not go.
        is_there: bool,
        /// Which.
        network: IpNet,
    },
}

/// A route to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// It came or changed: it did not go.
    pub is_there: bool,
    /// It leads anywhere.
    pub is_default: bool,
    /// Its next hops that have an address.
    pub gateways: Vec<IpAddr>,
}

/// What is asked for in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// All interfaces.
    Links,
    /// All addresses.
    Addresses,
    /// All routes.
    Routes,
}

impl List {
    /// `nlmsg_type` of the request.
    pub const fn number(self) -> u16 {
        match self {
            List::Links => libc::RTM_GETLINK,
            List::Addresses => libc::RTM_GETADDR,
            List::Routes => libc::RTM_GETROUTE,
        }
    }

    /// The family header: all zero asks for every family. `ifinfomsg` has 16 bytes, `rtmsg` 12, `ifaddrmsg` 8.
    pub fn fill(self, message: &mut Encoder) {
        match self {
            List::Links => message.put(&[0; 16]),
            List::Addresses => message.put(&[0; 8]),
            List::Routes => message.put(&[0; 12]),
        }
    }
}

/// Understands a message; `None` if it tells nothing that we want to know.
pub fn decode(message: &Message<'_>) -> Option<News> {
    match message.kind {
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let is_there = message.kind == libc::RTM_NEWADDR;
            decode_address(message).map(|address| News::Address { is_there, address })
        }
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            let is_there = message.kind == libc::RTM_NEWLINK;
            decode_link(message).map(|link| News::Link { is_there, link })
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => decode_route(message),
        _ => None,
    }
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, interface (4).
fn decode_address(message: &Message<'_>) -> Option<Address> {
    let (&[_, prefix_len, _, _, a, b, c, d], attributes) = message.split::<8>()?;
    let find = |kind| attributes.find(kind).and_then(|attribute| attribute.address());
    Some(Address {
        interface: u32::from_ne_bytes([a, b, c, d]),
        local: find(libc::IFA_LOCAL).or_else(|| find(libc::IFA_ADDRESS))?,
        prefix_len,
        broadcast: find(libc::IFA_BROADCAST),
    })
}

/// `struct ifinfomsg`: family, pad, hardware type (2), index (4), flags (4), change mask (4). Messages of AF_BRIDGE
/// about the same interface say nothing new, nor do wireless events (net/wireless/wext-core.c): these have the first of
/// its names alone.
fn decode_link(message: &Message<'_>) -> Option<Link> {
    let (&[family, _, h0, h1, i0, i1, i2, i3, f0, f1, f2, f3, ..], attributes) = message.split::<16>()?;
    let is_whole = i32::from(family) == libc::AF_UNSPEC && attributes.find(libc::IFLA_WIRELESS).is_none();
    is_whole.then_some(())?;
    Some(Link {
        index: u32::from_ne_bytes([i0, i1, i2, i3]),
        name: attributes.find(libc::IFLA_IFNAME)?.text(),
        alternatives: alternatives(attributes),
        hardware: u16::from_ne_bytes([h0, h1]),
        flags: u32::from_ne_bytes([f0, f1, f2, f3]),
        forwards: attributes.find(libc::IFLA_AF_SPEC).is_some_and(|families| forwards(families.nested())),
        bridge: bridge(attributes),
    })
}

fn alternatives(attributes: Attributes<'_>) -> Vec<String> {
    let names = attributes.find(IFLA_PROP_LIST).into_iter().flat_map(|list| list.nested());
    names.filter(|name| name.kind == IFLA_ALT_IFNAME).map(|name| name.text()).collect()
}

/// Of another master, as a bond, nothing is told.
fn bridge(attributes: Attributes<'_>) -> Option<u32> {
    let kind = attributes.find(libc::IFLA_LINKINFO)?.nested().find(libc::IFLA_INFO_SLAVE_KIND)?;
    (kind.text() == "bridge").then(|| attributes.find(libc::IFLA_MASTER)?.ne32()).flatten()
}

/// `IFLA_INET_CONF` and `IFLA_INET6_CONF` are arrays of 32-bit settings, of which forwarding is the first
/// (linux/ip.h, linux/ipv6.h).
fn forwards(mut families: Attributes<'_>) -> bool {
    families.any(|family| {
        let settings = match i32::from(family.kind) {
            libc::AF_INET => IFLA_INET_CONF,
            libc::AF_INET6 => IFLA_INET6_CONF,
            _ => return false,
        };
        let settings = family.nested().find(settings);
        settings
            .and_then(|all| all.payload.first_chunk())
            .is_some_and(|first| u32::from_ne_bytes(*first) != 0)
    })
}

/// `struct rtmsg`: family, destination length, source length, tos, table, protocol, scope, type, flags (4).
/// Two routes of length 1 are the old way to outdo a default route without touching it (VPN clients do): they count as that.
/// Of local routes those of the table that every packet is held against: in others they are for packets with a mark, all
/// there are perhaps (TPROXY). A router has an anycast address in each of its IPv6 networks (RFC 4291 §2.6.1) that no list
/// of addresses names; what is sent to one is as much its own, and answered.
fn decode_route(message: &Message<'_>) -> Option<News> {
    let (&[_, length, _, _, table, _, _, kind, ..], attributes) = message.split::<12>()?;
    let is_there = message.kind == libc::RTM_NEWROUTE;
    match kind {
        libc::RTN_UNICAST => {
            Some(News::Route(Route { is_there, is_default: length <= 1, gateways: gateways(attributes) }))
        }
        libc::RTN_LOCAL | libc::RTN_ANYCAST if table == libc::RT_TABLE_LOCAL => {
            let first = attributes.find(libc::RTA_DST)?.address()?;
            Some(News::Local { is_there, network: IpNet::new(first, length).ok()? })
        }
        _ => None,
    }
}

/// The gateway of a route, and those of its next hops (`RTA_MULTIPATH`).
fn gateways(attributes: Attributes<'_>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = attributes.filter_map(gateway).collect();
    let hops = attributes.find(libc::RTA_MULTIPATH).map_or(&[][..], |hops| hops.payload);
    found.extend(NextHops(hops).flat_map(|hop| hop.filter_map(gateway)));
    found
}

/// `RTA_GATEWAY`, or `RTA_VIA` (a family of two bytes, then the address): an IPv6 gateway of an IPv4 route.
fn gateway(attribute: Attribute<'_>) -> Option<IpAddr> {
    match attribute.kind {
        libc::RTA_GATEWAY => attribute.address(),
        RTA_VIA => message::address(attribute.payload.get(2..)?),
        _ => None,
    }
}

/// The attributes of each `struct rtnexthop` (length (2), flags, hops, interface (4)).
struct NextHops<'a>(&'a [u8]);

impl<'a> Iterator for NextHops<'a> {
    type Item = Attributes<'a>;

    fn next(&mut self) -> Option<Attributes<'a>> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let attributes = self.0.get(NEXT_HOP_LENGTH..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attributes(attributes))
    }
}

#[cfg(test)]
mod tests;
