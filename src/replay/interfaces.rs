//! The names of a capture's interfaces, by the numbers under which probes carry them.
#![forbid(unsafe_code)]

/// Names that are kept; probes that came in by any more have no interface.
const MOST: usize = 1024;

/// The names so far.
#[derive(Debug, Default)]
pub(super) struct Interfaces(Vec<String>);

impl Interfaces {
    /// The number of an interface; 0 where it is not known.
    pub(super) fn number(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return 0 };
        let known = self.0.iter().position(|known| known == name);
        let at = known.or_else(|| {
            (self.0.len() < MOST).then(|| {
                self.0.push(name.to_owned());
                self.0.len().saturating_sub(1)
            })
        });
        at.and_then(|at| u32::try_from(at).ok()?.checked_add(1)).unwrap_or(0)
    }

    /// The name behind a number.
    pub(super) fn name(&self, number: u32) -> Option<&str> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.0.get(at).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_and_none_has_none() {
        let mut interfaces = Interfaces::default();
        let numbers = [Some("eth0"), None, Some("eth1"), Some("eth0")].map(|name| interfaces.number(name));
        assert_eq!(numbers, [1, 0, 2, 1]);
        assert_eq!(
            numbers.map(|number| interfaces.name(number)),
            [Some("eth0"), None, Some("eth1"), Some("eth0")]
        );
        (0..2 * MOST).for_each(|number| _ = interfaces.number(Some(&number.to_string())));
        assert_eq!((interfaces.0.len(), interfaces.number(Some("late"))), (MOST, 0));
    }
}
