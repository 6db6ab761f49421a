//! By which interface a packet comes and which way it goes, as the kernel knows it without a look at its bytes.
//!
//! Pure, main thread. What is addressed to another host must never get beyond it.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::interest::Watched;

/// Interfaces that may be told apart.
const MOST_INTERFACES: usize = 64;
/// if_arp.h: ARPHRD_LOOPBACK.
const LOOPBACK: u32 = 772;

impl Writer {
    /// To this host by a watched interface, or from it: by any, but for loopback where that is not watched.
    pub(super) fn arrival(&mut self, watched: &Watched, next: Mark) -> Mark {
        let received = self.interfaces(watched, next);
        let sent = match watched {
            Watched::All | Watched::AllButLoopback => received,
            Watched::Indexes(_) => {
                let test = self.assembler.test(code::IF_EQUAL, LOOPBACK, received, next);
                self.about(libc::SKF_AD_HATYPE, test)
            }
        };
        let to_us = self.assembler.test(code::IF_EQUAL, u32::from(libc::PACKET_HOST), received, self.reject);
        let way = self.assembler.test(code::IF_EQUAL, u32::from(libc::PACKET_OUTGOING), sent, to_us);
        self.about(libc::SKF_AD_PKTTYPE, way)
    }

    fn interfaces(&mut self, watched: &Watched, next: Mark) -> Mark {
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
