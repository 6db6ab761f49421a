//! Sets of ports and their text form: `1,7,20-25`.
#![forbid(unsafe_code)]

use std::fmt;

/// A set of TCP or UDP ports; membership is one load.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    /// No port.
    pub fn new() -> PortSet {
        PortSet(Box::new([0; 1024]))
    }

    /// Adds `port`.
    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port) / 64] |= 1 << (port % 64);
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: u16) {
        self.0[usize::from(port) / 64] &= !(1 << (port % 64));
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] & (1 << (port % 64)) != 0
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// How many ports are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).filter(|&port| self.contains(port))
    }

    /// Runs of neighbouring ports in ascending order, both ends included.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut out: Vec<(u16, u16)> = Vec::new();
        for port in self.iter() {
            match out.last_mut() {
                Some(run) if run.1 + 1 == port => run.1 = port,
                _ => out.push((port, port)),
            }
        }
        out
    }

    /// Ports of either set.
    pub fn union(&self, other: &PortSet) -> PortSet {
        let mut out = self.clone();
        out.0.iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
        out
    }
}

impl Default for PortSet {
    fn default() -> PortSet {
        PortSet::new()
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> PortSet {
        let mut out = PortSet::new();
        ports.into_iter().for_each(|port| out.insert(port));
        out
    }
}

/// The canonical text form: ascending, ranges joined, `1,20-25`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match last == first {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({self})")
    }
}
