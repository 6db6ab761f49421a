//! A set of ports that threads share: one bit a port, which all read and change at once, without a lock.
//!
//! Of fixed size. Promises nothing of the order in which another thread sees two ports change.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::PortSet;

/// Port `n` is bit `n % 64` of word `n / 64`, as in a [`PortSet`].
#[derive(Debug)]
pub struct SharedPorts(Box<[AtomicU64; 1024]>);

impl SharedPorts {
    /// No port.
    pub fn new() -> SharedPorts {
        SharedPorts(Box::new([const { AtomicU64::new(0) }; 1024]))
    }

    /// Whether `port` is among them.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64].load(Relaxed) & bit(port) != 0
    }

    /// Adds `port`. Gives whether it was not there; nothing is written where it was.
    #[inline]
    pub fn insert(&self, port: u16) -> bool {
        let is_new = !self.contains(port);
        if is_new {
            self.0[usize::from(port) / 64].fetch_or(bit(port), Relaxed);
        }
        is_new
    }

    /// Adds all of `ports`.
    pub fn extend(&self, ports: &PortSet) {
        for (word, &more) in self.0.iter().zip(ports.words()) {
            word.fetch_or(more, Relaxed);
        }
    }

    /// Becomes `ports`, word by word. Gives whether that changed anything.
    pub fn replace(&self, ports: &PortSet) -> bool {
        let words = self.0.iter().zip(ports.words());
        words.fold(false, |changed, (word, &new)| changed | (word.swap(new, Relaxed) != new))
    }

    /// Empties it. Allocates nothing.
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Empties it, and gives what was in it.
    pub fn take(&self) -> PortSet {
        PortSet::from_words(self.0.each_ref().map(|word| word.swap(0, Relaxed)))
    }

    /// As they stand.
    pub fn ports(&self) -> PortSet {
        PortSet::from_words(self.0.each_ref().map(|word| word.load(Relaxed)))
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl Default for SharedPorts {
    fn default() -> SharedPorts {
        SharedPorts::new()
    }
}

fn bit(port: u16) -> u64 {
    1 << (port % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_go_in_once_and_come_out_as_they_went_in() {
        let (ports, some) = (SharedPorts::new(), [0, 63, 64, 65_535]);
        assert_eq!(some.map(|port| ports.insert(port)), [true; 4]);
        assert_eq!(some.map(|port| ports.insert(port)), [false; 4]);
        assert!(some.iter().all(|&port| ports.contains(port)) && !ports.contains(1));
        assert_eq!(ports.ports(), some.into_iter().collect());
        ports.extend(&[1, 64].into_iter().collect());
        assert_eq!(ports.take(), [0, 1, 63, 64, 65_535].into_iter().collect());
        let none = PortSet::new();
        assert_eq!((ports.ports(), ports.replace(&none)), (none, false));
        let one = [7].into_iter().collect();
        assert_eq!([ports.replace(&one), ports.replace(&one), ports.contains(7)], [true, false, true]);
        ports.clear();
        assert_eq!(ports.ports(), PortSet::new());
    }
}
