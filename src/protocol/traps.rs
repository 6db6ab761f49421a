//! Where the tripwire lies: its terms in the settings, and pages of ports in requests. Pure; both roles.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::settings::BLOCKS_A_MINUTE;

/// The most sources that may trip in a minute: what the highest BLOCK_LIMIT leaves to them.
pub const MOST_TRIPS: u32 = BLOCKS_A_MINUTE / 2;

/// Ports of one page.
pub const PAGE: u16 = 256;

/// On what terms the kernel trips a source by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Names of the interfaces that are watched; none: all.
    pub interfaces: Vec<String>,
    /// Sources a minute, and at once: what BLOCK_LIMIT leaves to those of a single forgeable packet.
    pub per_minute: u32,
}

impl Terms {
    /// Whether they have a meaning: names that an interface can have (IFNAMSIZ), and a limit that may be.
    pub fn are_sound(&self) -> bool {
        let is_name = |name: &String| matches!(name.len(), 1..=15) && !name.contains('\0');
        let is_limit = (1..=MOST_TRIPS).contains(&self.per_minute);
        is_limit && self.interfaces.len() <= 256 && self.interfaces.iter().all(is_name)
    }
}

/// Whether a port is UDP's; if not, it is TCP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// TCP.
    No,
    /// UDP.
    Yes,
}

impl Datagrams {
    /// Either.
    pub const BOTH: [Datagrams; 2] = [Datagrams::No, Datagrams::Yes];
}

/// Which of 256 neighbouring ports are traps; all others of them are none from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The first port is this times [`PAGE`].
    pub number: u8,
    /// Port `n` of the page is bit `n % 8` of byte `n / 8`.
    pub bits: [u8; PAGE as usize / 8],
}

impl Page {
    /// The page with this number on which the ports are traps for which `is_trap` holds.
    pub fn of(number: u8, is_trap: impl Fn(u16) -> bool) -> Page {
        let mut page = Page { number, bits: [0; PAGE as usize / 8] };
        for port in page.ports().filter(|&port| is_trap(port)) {
            if let Some(byte) = page.bits.get_mut(usize::from(port % PAGE) / 8) {
                *byte |= 1 << (port % 8);
            }
        }
        page
    }

    /// Every page.
    pub fn all(is_trap: impl Fn(u16) -> bool) -> impl Iterator<Item = Page> {
        (0..=u8::MAX).map(move |number| Page::of(number, &is_trap))
    }

    /// Whether no port is a trap.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&byte| byte == 0)
    }

    /// Every port that the page is about.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = u16::from(self.number) * PAGE;
        first..=first + (PAGE - 1)
    }

    /// Whether `port` is on this page, and a trap.
    pub fn contains(&self, port: u16) -> bool {
        let byte = self.bits.get(usize::from(port % PAGE) / 8).copied().unwrap_or(0);
        port / PAGE == u16::from(self.number) && byte & 1 << (port % 8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_of_its_own_ports_what_the_set_says() {
        let set = [0, 1, 255, 256, 511, 65_280, 65_535];
        for (number, page) in Page::all(|port| set.contains(&port)).enumerate() {
            let said: Vec<u16> = (0..=u16::MAX).filter(|&port| page.contains(port)).collect();
            let expected: Vec<u16> =
                set.into_iter().filter(|&port| usize::from(port / PAGE) == number).collect();
            assert_eq!((said.is_empty(), said), (page.is_empty(), expected), "{number}");
        }
    }
}
