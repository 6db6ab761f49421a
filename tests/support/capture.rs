//! Captures made byte by byte: datagrams without checksums (a network card would have added them), in any file format.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const SYN: u8 = 2;
pub const RST_ACK: u8 = 0x14;
pub const SYN_ACK: u8 = 0x12;

/// An IPv4 datagram with a TCP header.
pub fn tcp(source: [u8; 4], source_port: u16, destination: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    let mut segment = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    // The sequence number tells one probe from another.
    segment.extend_from_slice(&u32::from(port).to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    ipv4(source, destination, 6, &segment)
}

/// An IPv4 datagram with a UDP header.
pub fn udp(source: [u8; 4], source_port: u16, destination: [u8; 4], port: u16) -> Vec<u8> {
    let ports = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    ipv4(source, destination, 17, &[&ports, &[0, 8, 0, 0][..]].concat())
}

/// An IPv6 packet whose first header after the fixed one is `next`.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&head, &source.octets()[..], &destination.octets()[..], payload].concat()
}

/// A TCP header with its checksum.
pub fn segment6(source: Ipv6Addr, destination: Ipv6Addr, port: u16, flags: u8) -> Vec<u8> {
    segment(&source.octets(), &destination.octets(), port, flags)
}

/// A TCP header with its checksum, between addresses of either family.
pub fn segment(source: &[u8], destination: &[u8], port: u16, flags: u8) -> Vec<u8> {
    let ports = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    let rest = [0, 0, 0, 0, 0x50, flags, 4, 0, 0, 0, 0, 0];
    let mut segment = [&ports[..], &u32::from(port).to_be_bytes(), &rest].concat();
    let sum = checksum(&[source, destination, &[0, 0, 0, 20, 0, 0, 0, 6], &segment].concat());
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// A UDP header with its checksum, likewise.
pub fn datagram(source: &[u8], destination: &[u8], port: u16) -> Vec<u8> {
    let mut datagram = [40_000, port, 8, 0].map(u16::to_be_bytes).concat();
    let sum = checksum(&[source, destination, &[0, 0, 0, 8, 0, 0, 0, 17], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// RFC 1071, of an even number of bytes.
pub fn checksum(pseudo: &[u8]) -> [u8; 2] {
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// An IPv4 datagram without options in two fragments, the first with 8 bytes of its payload.
pub fn torn4(datagram: &[u8], identification: u8) -> [Vec<u8>; 2] {
    let (header, payload) = datagram.split_at(20);
    let (first, second) = payload.split_at(8);
    [(first, 0x20, 0), (second, 0, 1)].map(|(piece, more, units)| {
        let mut fragment = [header, piece].concat();
        fragment[3] = 20 + piece.len() as u8;
        fragment[5..8].copy_from_slice(&[identification, more, units]);
        fragment
    })
}

/// `payload` of protocol `next` in two fragments, the first of `tear` bytes.
pub fn torn6(next: u8, payload: &[u8], tear: u16, identification: u8) -> [Vec<u8>; 2] {
    let header = |place: u16| {
        let [high, low] = place.to_be_bytes();
        [next, 0, high, low, 0, 0, 0, identification]
    };
    let (first, second) = payload.split_at(tear.into());
    [[&header(1), first].concat(), [&header(tear), second].concat()]
}

/// An IPv4 datagram without options.
pub fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    [&head, &source[..], &destination[..], payload].concat()
}

/// A quick SYN scan of ports 1 to `count`, a frame a millisecond.
pub fn scan(source: [u8; 4], destination: [u8; 4], count: u16) -> Vec<(u64, Vec<u8>)> {
    (1..=count)
        .map(|port| (START + u64::from(port) * 1_000, tcp(source, 40_000, destination, port, SYN)))
        .collect()
}

/// 2026-11-22 00:38:01 UTC, in microseconds.
pub const START: u64 = 1_795_307_881_000_000;

/// How a classic capture is written.
#[derive(Clone, Copy, Debug)]
pub struct Classic {
    pub big_endian: bool,
    pub nanoseconds: bool,
    pub link: u32,
}

/// Raw IP, as Linux writes it.
pub const RAW: Classic = Classic { big_endian: false, nanoseconds: false, link: 101 };

impl Classic {
    fn u32(self, number: u32) -> [u8; 4] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    /// The whole file. Frames are (microseconds since 1970, datagram); the link header is put before them.
    pub fn file(self, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let versions: [u8; 4] = if self.big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let mut out =
            [self.u32(magic), versions, [0; 4], [0; 4], self.u32(65_535), self.u32(self.link)].concat();
        for (time, datagram) in frames {
            let frame = [link_header(self.link, datagram), datagram.clone()].concat();
            let fraction = (time % 1_000_000) as u32 * if self.nanoseconds { 1_000 } else { 1 };
            let length = u32::try_from(frame.len()).unwrap();
            for number in [(time / 1_000_000) as u32, fraction, length, length] {
                out.extend_from_slice(&self.u32(number));
            }
            out.extend_from_slice(&frame);
        }
        out
    }
}

/// What stands before a datagram of IPv4 on a link of this number.
pub fn link_header(link: u32, _datagram: &[u8]) -> Vec<u8> {
    match link {
        0 => vec![2, 0, 0, 0],
        108 => vec![0, 0, 0, 2],
        1 => vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 42, 8, 0],
        113 => vec![0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0],
        276 => vec![8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => Vec::new(),
    }
}

/// A pcapng file in the making, little- or big-endian.
pub struct Ng {
    pub big_endian: bool,
    pub bytes: Vec<u8>,
}

impl Ng {
    pub fn new(big_endian: bool) -> Ng {
        let mut file = Ng { big_endian, bytes: Vec::new() };
        let body = [file.u32(0x1a2b_3c4d).to_vec(), file.u16(1).to_vec(), vec![0, 0], vec![0xff; 8]].concat();
        file.block(0x0a0d_0d0a, &body);
        file
    }

    pub fn u16(&self, number: u16) -> [u8; 2] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub fn u32(&self, number: u32) -> [u8; 4] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub fn block(&mut self, kind: u32, body: &[u8]) {
        let length = self.u32(u32::try_from(12 + body.len().next_multiple_of(4)).unwrap());
        let parts = [self.u32(kind), length].concat();
        self.bytes.extend_from_slice(&parts);
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend_from_slice(&length);
    }

    /// An interface with a name and a resolution (`if_tsresol`).
    pub fn interface(&mut self, link: u16, name: &str, resolution: u8) {
        let mut body = [self.u16(link), [0, 0], [0, 0], [0, 0]].concat();
        body.extend_from_slice(&[self.u16(2), self.u16(u16::try_from(name.len()).unwrap())].concat());
        body.extend_from_slice(name.as_bytes());
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend_from_slice(&[self.u16(9), self.u16(1)].concat());
        body.extend_from_slice(&[resolution, 0, 0, 0, 0, 0, 0, 0]);
        self.block(1, &body);
    }

    pub fn packet(&mut self, interface: u32, ticks: u64, frame: &[u8]) {
        let length = self.u32(u32::try_from(frame.len()).unwrap());
        let (high, low) = (self.u32((ticks >> 32) as u32), self.u32(ticks as u32));
        let head = [self.u32(interface), high, low, length, length].concat();
        self.block(6, &[&head, frame].concat());
    }
}

/// The text form that events show.
pub fn shown(address: [u8; 4]) -> String {
    IpAddr::from(Ipv4Addr::from(address)).to_string()
}
