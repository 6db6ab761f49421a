//! A watch for the tests of all rooms.
#![forbid(unsafe_code)]

use super::*;
use crate::detect::weights::Sensitivity;

/// No port is watched, and the first probe would be an alarm that blocks.
pub(crate) fn watch(sensitivity: Sensitivity) -> Watch {
    Watch {
        tcp_ports: PortSet::new(),
        udp_ports: PortSet::new(),
        scan_trigger: 0,
        ipv6_prefix: 64,
        one_by_one: Networks::default(),
        vantage: Vantage::Host,
        walk: Walk::new(sensitivity),
        block_tcp: BlockMode::Block,
        block_udp: BlockMode::Block,
    }
}
