//! By which interface a packet comes and which way it goes, as the kernel knows it without a look at its bytes.
//!
//! Pure, main thread. What is addressed to another host must never get beyond it.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::interest::{PacketTypes, Watched};

/// Interfaces that may be told apart.
const MOST_INTERFACES: usize = 64;
/// if_arp.h: ARPHRD_LOOPBACK.
const LOOPBACK: u32 = 772;

impl Writer {
    pub(super) fn packet_types(&mut self, types: PacketTypes, next: Mark) -> Mark {
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        let wanted: &[u32] = match types {
            PacketTypes::ToUs => &[0],
            PacketTypes::ToUsAndFromUs => &[0, outgoing],
        };
        let test = self.assembler.any_of(wanted, next, self.reject);
        self.about(libc::SKF_AD_PKTTYPE, test)
    }

    pub(super) fn interfaces(&mut self, watched: &Watched, next: Mark) -> Mark {
        match watched {
            Watched::All => next,
            Watched::AllButLoopback => {
                let test = self.assembler.test(code::IF_EQUAL, LOOPBACK, self.reject, next);
                self.about(libc::SKF_AD_HATYPE, test)
            }
            Watched::Indexes(indexes) if indexes.len() <= MOST_INTERFACES => {
                let test = self.assembler.any_of(indexes, next, self.reject);
                self.about(libc::SKF_AD_IFINDEX, test)
            }
            Watched::Indexes(_) => {
                self.widened = true;
                next
            }
        }
    }
}
