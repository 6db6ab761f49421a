//! Sets of ports and their text form: `1,7,20-25`.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::error::Fault;
use super::list::items;

/// A set of TCP or UDP ports; membership is one load. Copies share their 8 KiB until one of them changes: a daemon holds
/// some sixty sets, most of them empty or the same.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Arc<[u64; 1024]>);

static EMPTY: LazyLock<PortSet> = LazyLock::new(|| PortSet(Arc::new([0; 1024])));

/// Runs of ports in a text that is kept short.
const MOST_SHOWN: usize = 256;

impl PortSet {
    /// No port.
    pub fn new() -> PortSet {
        EMPTY.clone()
    }

    /// Every port from 1 to below `end`.
    pub fn below(end: u32) -> PortSet {
        (1..=u16::MAX).take_while(|&port| u32::from(port) < end).collect()
    }

    /// The ports that are not in `other`.
    pub fn without(&self, other: &PortSet) -> PortSet {
        let mut out = self.clone();
        out.own().iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine &= !theirs);
        out
    }

    /// Adds `port`.
    pub fn insert(&mut self, port: u16) {
        self.own()[usize::from(port) / 64] |= 1 << (port % 64);
    }

    /// Takes `port` out.
    pub fn remove(&mut self, port: u16) {
        self.own()[usize::from(port) / 64] &= !(1 << (port % 64));
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
        let words = (0..=u16::MAX).step_by(64).zip(self.0.iter()).filter(|&(_, &word)| word != 0);
        words.flat_map(|(first, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
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

    /// The text form, cut where it would fill a screen: `1,3,5 and 32765 more`. Of a set of single ports all over the range
    /// that form is 190 KiB long, and an event with two of them longer than a line may be.
    pub fn in_short(&self) -> String {
        let ranges = self.ranges();
        let (shown, rest) = ranges.split_at(ranges.len().min(MOST_SHOWN));
        let more: usize = rest.iter().map(|&(first, last)| usize::from(last - first) + 1).sum();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", Runs(shown))
    }

    /// Reads `1,7,20-25`. Port 0, ports above 65535 and reversed ranges are refused where they stand.
    pub fn parse(text: &str) -> Result<PortSet, Fault> {
        let mut out = PortSet::new();
        for (at, item) in items(text, &[',']) {
            let (first, last) = range(item).map_err(|fault| fault.shifted(at))?;
            (first..=last).for_each(|port| out.insert(port));
        }
        Ok(out)
    }

    /// The bitmap as this set's alone.
    fn own(&mut self) -> &mut [u64; 1024] {
        Arc::make_mut(&mut self.0)
    }

    /// The set of this bitmap.
    pub fn from_words(words: [u64; 1024]) -> PortSet {
        PortSet(Arc::new(words))
    }

    /// The set as a bitmap: port `n` is bit `n % 64` of word `n / 64`.
    pub fn words(&self) -> &[u64; 1024] {
        &self.0
    }

    /// Ports of either set.
    pub fn union(&self, other: &PortSet) -> PortSet {
        let mut out = self.clone();
        out.own().iter_mut().zip(other.0.iter()).for_each(|(mine, theirs)| *mine |= theirs);
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

fn range(item: &str) -> Result<(u16, u16), Fault> {
    let Some((left, right)) = item.split_once('-') else {
        return port(item).map(|port| (port, port));
    };
    let first = port(left.trim_end())?;
    let second_at = item.len() - right.trim_start().len();
    let last = port(right.trim_start()).map_err(|fault| fault.shifted(second_at))?;
    if first > last {
        return Err(Fault::new(0, format!("range {item} runs backwards; write {last}-{first}")));
    }
    Ok((first, last))
}

fn port(text: &str) -> Result<u16, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err(Fault::new(0, "port 0 cannot be watched; ports are 1 to 65535")),
        Ok(port) if digits => Ok(port),
        _ if digits => Err(Fault::new(0, format!("port {text} is above 65535"))),
        _ => Err(Fault::new(0, format!("`{text}` is not a port; write ports and ranges like 1,7,20-25"))),
    }
}

/// The canonical text form: ascending, ranges joined, `1,20-25`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Runs(&self.ranges()).fmt(f)
    }
}

/// Runs of ports, both ends included, in their text form.
struct Runs<'a>(&'a [(u16, u16)]);

impl fmt::Display for Runs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_ranges_are_read_in_canonical_form() {
        for (text, canonical) in [
            ("1,7,20-25", "1,7,20-25"),
            ("25-20000,1, 7 , 7 - 9,,", "1,7-9,25-20000"),
            ("1-65535", "1-65535"),
            ("", ""),
        ] {
            assert_eq!(PortSet::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn a_long_set_is_shown_by_its_first_ports_and_how_many_more_there_are() {
        for text in ["", "1,7,20-25", "1-65535"] {
            assert_eq!(PortSet::parse(text).unwrap().in_short(), text);
        }
        let odd: PortSet = (1..=u16::MAX).step_by(2).collect();
        let (shown, more) = (PortSet::below(513), " and 32512 more");
        let shown: PortSet = shown.iter().filter(|port| odd.contains(*port)).collect();
        assert_eq!(odd.in_short(), format!("{shown}{more}"));
        let mut with_a_run = odd;
        with_a_run.insert(65_534);
        assert!(with_a_run.in_short().ends_with(" and 32513 more"));
    }

    #[test]
    fn a_bad_port_is_refused_where_it_stands() {
        for (text, offset) in [
            ("1,0", 2),
            ("0-5", 0),
            ("1,70000", 2),
            ("1, 5-70000", 5),
            ("9-5", 0),
            ("1,http", 2),
            ("1,-5", 2),
            ("5-", 2),
            ("1,+5", 2),
            ("1-2-3", 2),
            ("1 2", 0),
            ("99999999999999999999", 0),
        ] {
            assert_eq!(PortSet::parse(text).unwrap_err().offset, offset, "{text}");
        }
    }

    #[test]
    fn below_and_without_make_the_advanced_range() {
        let watched = PortSet::below(10).without(&PortSet::parse("1,3-4,99").unwrap());
        assert_eq!(watched.to_string(), "2,5-9");
        assert_eq!((PortSet::below(65536).len(), PortSet::below(0).len()), (65535, 0));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(ports in proptest::collection::vec(1u16.., 0..60)) {
            let set: PortSet = ports.into_iter().collect();
            prop_assert_eq!(PortSet::parse(&set.to_string()).unwrap(), set);
        }

        #[test]
        fn no_text_makes_it_panic_and_faults_lie_inside(text in "\\PC{0,30}|[0-9, -]{0,30}") {
            if let Err(fault) = PortSet::parse(&text) {
                prop_assert!(fault.offset <= text.len());
            }
        }
    }
}
