//! Sensor → helper. Pure; the sensor encodes, the helper decodes and trusts nothing in it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::frame::{self, Frame, FrameError, Writer, field};
use super::wording::is_address;
use super::{Datagrams, Page};
use crate::detect::probe::Protocol;

/// What the sensor may ask for. Every request carries an `id` that its replies repeat; ids rise by one from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Block a source.
    Block {
        /// Request number.
        id: u64,
        /// The source: one address, or an IPv6 prefix. Host bits are zero.
        target: IpNet,
        /// How long, seconds; 0 asks for BLOCK_TIME with the escalation for repeat offenders.
        seconds: u32,
        /// The port that was probed, for commands' `$PORT$`; 0 if an operator asked.
        port: u16,
        /// Its transport.
        protocol: Protocol,
        /// A handshake was completed, so the source is not spoofed; or an operator asked.
        verified: bool,
        /// KILL_RUN_CMD and nothing else (BLOCK_TCP=2, BLOCK_UDP=2): nobody is to be shut out.
        run_only: bool,
    },
    /// Lift a block.
    Unblock {
        /// Request number.
        id: u64,
        /// Exactly what was blocked.
        target: IpNet,
    },
    /// Answer with one [`crate::protocol::Reply::Entry`] a block, in the order of addresses, then `End`. After
    /// [`LIST_PAGE`](super::LIST_PAGE) of them there may be more.
    List {
        /// Request number.
        id: u64,
        /// The last one of the page before; `None` asks for the first page.
        after: Option<IpNet>,
    },
    /// Lift every block.
    Flush {
        /// Request number.
        id: u64,
    },
    /// Add a prefix to the never-block set until restart. There is no way to take one out.
    Protect {
        /// Request number.
        id: u64,
        /// The prefix; host bits are zero.
        network: IpNet,
    },
    /// Let the tripwire's traps among these ports be exactly those of the page.
    Traps {
        /// Request number.
        id: u64,
        /// Whether they are UDP's.
        datagrams: Datagrams,
        /// The ports.
        page: Page,
    },
    /// The tripwire is to leave this address alone for a while: what tripped it was no scan, or may be forged.
    Spare {
        /// Request number.
        id: u64,
        /// Whom.
        address: IpAddr,
    },
    /// Answer with `Pong`.
    Ping {
        /// Request number.
        id: u64,
    },
    /// The sensor ends on purpose: lift the blocks if the settings say so, answer with `Done`, and exit with 0.
    /// End of file without it means that the sensor died.
    Stop {
        /// Request number.
        id: u64,
    },
}

const BLOCK: u8 = 0x01;
const UNBLOCK: u8 = 0x02;
const LIST: u8 = 0x03;
const FLUSH: u8 = 0x04;
const PROTECT: u8 = 0x05;
const PING: u8 = 0x06;
const STOP: u8 = 0x07;
const TRAPS: u8 = 0x08;
const SPARE: u8 = 0x09;

impl Request {
    /// The request's number.
    pub fn id(&self) -> u64 {
        match *self {
            Request::Block { id, .. }
            | Request::Unblock { id, .. }
            | Request::List { id, .. }
            | Request::Flush { id }
            | Request::Protect { id, .. }
            | Request::Traps { id, .. }
            | Request::Spare { id, .. }
            | Request::Ping { id }
            | Request::Stop { id } => id,
        }
    }

    /// The request's frame. Host bits of networks are left out.
    pub fn encode(&self) -> Frame {
        let writer = match self {
            Request::Block { target, seconds, port, protocol, verified, run_only, .. } => Writer::new(BLOCK)
                .network(target)
                .put(frame::SECONDS, seconds.to_be_bytes())
                .put(frame::PORT, port.to_be_bytes())
                .put(frame::CODE, [*protocol as u8])
                .put(frame::VERIFIED, [u8::from(*verified)])
                .put(frame::RUN_ONLY, [u8::from(*run_only)]),
            Request::Unblock { target, .. } => Writer::new(UNBLOCK).network(target),
            Request::List { after, .. } => {
                after.iter().fold(Writer::new(LIST), |writer, after| writer.network(after))
            }
            Request::Flush { .. } => Writer::new(FLUSH),
            Request::Protect { network, .. } => Writer::new(PROTECT).network(network),
            Request::Traps { datagrams, page, .. } => Writer::new(TRAPS)
                .put(frame::PAGE, [page.number])
                .put(frame::DATAGRAMS, [u8::from(*datagrams == Datagrams::Yes)])
                .put(frame::TRAPS, page.bits),
            Request::Spare { address, .. } => Writer::new(SPARE).network(&IpNet::from(*address)),
            Request::Ping { .. } => Writer::new(PING),
            Request::Stop { .. } => Writer::new(STOP),
        };
        writer.put(frame::ID, self.id().to_be_bytes()).frame()
    }

    /// What `bytes` ask for. Total: every frame is one request or an error.
    pub fn decode(bytes: &Frame) -> Result<Request, FrameError> {
        let (kind, id) = (frame::kind(bytes)?, frame::id(bytes));
        let request = match kind {
            BLOCK => decode_block(bytes, id)?,
            UNBLOCK => Request::Unblock { id, target: frame::network(bytes, kind)? },
            LIST => Request::List { id, after: frame::network_if_any(bytes, kind)? },
            FLUSH => Request::Flush { id },
            PROTECT => Request::Protect { id, network: frame::network(bytes, kind)? },
            TRAPS => decode_traps(bytes, id)?,
            SPARE => decode_spare(bytes, id)?,
            PING => Request::Ping { id },
            STOP => Request::Stop { id },
            unknown => return Err(FrameError::Kind(unknown)),
        };
        match (id, request.encode() == *bytes) {
            (0, _) => Err(FrameError::Field { kind, field: "number" }),
            (_, true) => Ok(request),
            (_, false) => Err(FrameError::Reserved(kind)),
        }
    }
}

fn decode_block(bytes: &Frame, id: u64) -> Result<Request, FrameError> {
    Ok(Request::Block {
        id,
        target: frame::network(bytes, BLOCK)?,
        seconds: u32::from_be_bytes(field(bytes, frame::SECONDS)),
        port: u16::from_be_bytes(field(bytes, frame::PORT)),
        protocol: match field(bytes, frame::CODE) {
            [6] => Protocol::Tcp,
            [17] => Protocol::Udp,
            [132] => Protocol::Sctp,
            [1] => Protocol::Icmp,
            [0] => Protocol::Ip,
            [_] => return Err(FrameError::Field { kind: BLOCK, field: "protocol" }),
        },
        verified: frame::flag(bytes, frame::VERIFIED, BLOCK, "verified flag")?,
        run_only: frame::flag(bytes, frame::RUN_ONLY, BLOCK, "run-only flag")?,
    })
}

fn decode_traps(bytes: &Frame, id: u64) -> Result<Request, FrameError> {
    let [number] = field(bytes, frame::PAGE);
    let is_udp = frame::flag(bytes, frame::DATAGRAMS, TRAPS, "protocol")?;
    let datagrams = if is_udp { Datagrams::Yes } else { Datagrams::No };
    Ok(Request::Traps { id, datagrams, page: Page { number, bits: field(bytes, frame::TRAPS) } })
}

fn decode_spare(bytes: &Frame, id: u64) -> Result<Request, FrameError> {
    let network = frame::network(bytes, SPARE)?;
    match is_address(&network) {
        true => Ok(Request::Spare { id, address: network.addr() }),
        false => Err(FrameError::Field { kind: SPARE, field: "prefix length" }),
    }
}

/// Holds a stream of requests to its order: numbers rise by one from 1, so none can be replayed or left out.
#[derive(Debug, Default)]
pub struct Order {
    last: u64,
}

impl Order {
    /// Accepts `id` if it is the next one.
    pub fn check(&mut self, id: u64) -> Result<(), FrameError> {
        let expected = self.last.saturating_add(1);
        if id != expected {
            return Err(FrameError::Order { expected, got: id });
        }
        self.last = id;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_network() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<[u8; 4]>(), 0u8..=32).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap().trunc()),
            (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap().trunc()),
        ]
    }

    fn any_protocol() -> impl Strategy<Value = Protocol> {
        use Protocol::{Icmp, Ip, Sctp, Tcp, Udp};
        prop::sample::select(vec![Tcp, Udp, Sctp, Icmp, Ip])
    }

    fn any_request() -> impl Strategy<Value = Request> {
        let id = 1..=u64::MAX;
        let flags = any::<[bool; 2]>();
        let block = (id.clone(), any_network(), any::<u32>(), any::<u16>(), any_protocol(), flags).prop_map(
            |(id, target, seconds, port, protocol, [verified, run_only])| Request::Block {
                id,
                target,
                seconds,
                port,
                protocol,
                verified,
                run_only,
            },
        );
        prop_oneof![
            block,
            (id.clone(), any_network()).prop_map(|(id, target)| Request::Unblock { id, target }),
            (id.clone(), any_network()).prop_map(|(id, network)| Request::Protect { id, network }),
            (id.clone(), any::<bool>(), any::<u8>(), any::<[u8; 32]>()).prop_map(
                |(id, udp, number, bits)| {
                    let datagrams = if udp { Datagrams::Yes } else { Datagrams::No };
                    Request::Traps { id, datagrams, page: Page { number, bits } }
                }
            ),
            (id.clone(), any::<IpAddr>()).prop_map(|(id, address)| Request::Spare { id, address }),
            (id.clone(), prop::option::of(any_network())).prop_map(|(id, after)| Request::List { id, after }),
            id.clone().prop_map(|id| Request::Flush { id }),
            id.clone().prop_map(|id| Request::Ping { id }),
            id.prop_map(|id| Request::Stop { id }),
        ]
    }

    proptest! {
        #[test]
        fn a_request_survives_the_pipe(request in any_request()) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn every_flipped_bit_is_another_request_or_an_error(request in any_request()) {
            for bit in 0..FRAME_BITS {
                let mut bytes = request.encode();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = Request::decode(&bytes) {
                    prop_assert_ne!(other, request);
                    prop_assert_eq!(other.encode(), bytes);
                }
            }
        }

        #[test]
        fn any_bytes_are_one_request_or_an_error(mut bytes in any::<[[u8; 32]; 2]>(), kind in 0u8..11, version in 0u8..3) {
            bytes[0][0] = version;
            bytes[0][1] = kind;
            let bytes: Frame = bytes.concat().try_into().unwrap();
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }

    const FRAME_BITS: usize = crate::protocol::FRAME_LENGTH * 8;

    #[test]
    fn a_frame_of_the_other_pipe_is_no_request() {
        let reply = crate::protocol::Reply::Pong { id: 1 };
        assert!(matches!(Request::decode(&reply.encode()), Err(FrameError::Kind(_))));
    }

    #[test]
    fn host_bits_and_wrong_families_are_refused() {
        let good = Request::Unblock { id: 1, target: "10.0.0.0/8".parse().unwrap() }.encode();
        for (at, value) in [(19, 1), (20, 1), (32, 5), (33, 33)] {
            let mut bad = good;
            bad[at] = value;
            assert!(Request::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn there_is_no_request_of_number_0() {
        let request = Request::Ping { id: 0 };
        assert!(matches!(Request::decode(&request.encode()), Err(FrameError::Field { field: "number", .. })));
    }

    #[test]
    fn numbers_rise_by_one_from_one() {
        let mut order = Order::default();
        assert!(order.check(1).is_ok() && order.check(2).is_ok());
        for wrong in [2, 1, 0, 4, u64::MAX] {
            assert_eq!(order.check(wrong), Err(FrameError::Order { expected: 3, got: wrong }));
        }
        assert!(order.check(3).is_ok());
    }
}
