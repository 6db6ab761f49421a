//! By which interface a packet comes and which way it goes, as the kernel knows it without a look at its bytes.
//!
//! Pure, main thread. What is addressed to another host must never get beyond it, nor what is meant for many.
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
        let to_many = self.meant_for_many(received);
        let to_us = self.assembler.test(code::IF_EQUAL, u32::from(libc::PACKET_HOST), received, to_many);
        let way = self.assembler.test(code::IF_EQUAL, u32::from(libc::PACKET_OUTGOING), sent, to_us);
        self.about(libc::SKF_AD_PKTTYPE, way)
    }

    /// A host hears a datagram that is to itself in a frame that is to many too. What else comes in those, all day in any
    /// LAN, is to everybody or to a group; a subnet's broadcast address mostly ends in 255.
    fn meant_for_many(&mut self, received: Mark) -> Mark {
        let six = self.assembler.test(code::IF_EQUAL, 0xff, self.reject, received);
        let six = self.assembler.operation(code::LOAD_BYTE, 24, six);
        let four = self.assembler.test(code::IF_EQUAL, 255, self.reject, received);
        let four = self.assembler.operation(code::LOAD_BYTE, 19, four);
        let four = self.assembler.test(code::IF_AT_LEAST, 224, self.reject, four);
        let four = self.assembler.operation(code::LOAD_BYTE, 16, four);
        let six_or_none = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IPV6 as u32, six, self.reject);
        let family = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IP as u32, four, six_or_none);
        let family = self.about(libc::SKF_AD_PROTOCOL, family);
        let frames = [libc::PACKET_BROADCAST, libc::PACKET_MULTICAST].map(u32::from);
        self.assembler.any_of(&frames, family, self.reject)
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
