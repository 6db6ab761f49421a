//! Whether a port is in a set, as a search of bounded size.
//!
//! Pure, main thread. A set too ragged for it is widened, and that is said: never narrowed.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use crate::config::PortSet;

/// Ranges a port set may have. Eight searches of 27 still fit, twice over, into 20,480 bytes: the `net.core.optmem_max`
/// of kernels before 6.8, where old and new filter count together during a swap.
const MOST_RANGES: usize = 27;

/// Where a port stands in the transport header, the same in TCP, UDP and SCTP.
#[derive(Clone, Copy)]
pub(super) enum Port {
    Source = 0,
    Destination = 2,
}

impl Writer {
    pub(super) fn destination_port(&mut self, ports: &PortSet, next: Mark) -> Mark {
        self.port_in(ports, Port::Destination, next, self.reject)
    }

    pub(super) fn port_in(&mut self, ports: &PortSet, port: Port, yes: Mark, no: Mark) -> Mark {
        let (ranges, widened) = coarsened(ports.ranges());
        self.widened |= widened;
        let search = self.assembler.in_ranges(&ranges, yes, no);
        self.assembler.operation(code::LOAD_HALF_X, port as u32, search)
    }
}

/// At most [`MOST_RANGES`], by closing the narrowest gaps first.
fn coarsened(ranges: Vec<(u16, u16)>) -> (Vec<(u16, u16)>, bool) {
    let surplus = ranges.len().saturating_sub(MOST_RANGES);
    if surplus == 0 {
        return (ranges, false);
    }
    let gap = |pair: &[(u16, u16)]| match pair {
        [before, after] => after.0.saturating_sub(before.1),
        _ => 0,
    };
    let mut narrowest: Vec<(u16, usize)> = ranges.windows(2).map(gap).zip(1..).collect();
    narrowest.sort_unstable();
    let closed: std::collections::BTreeSet<usize> =
        narrowest.iter().take(surplus).map(|&(_, at)| at).collect();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(MOST_RANGES);
    for (at, range) in ranges.into_iter().enumerate() {
        match out.last_mut() {
            Some(before) if closed.contains(&at) => before.1 = range.1,
            _ => out.push(range),
        }
    }
    (out, true)
}
