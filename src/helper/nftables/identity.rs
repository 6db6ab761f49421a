//! Whose table, base chain and rules stand: the kernel's numbers for them, as it lists them or tells of a batch. Helper.
//!
//! Another by the same name, or a rule that says the same, has another number. Of our own batches the kernel tells the
//! numbers as it commits them (NLM_F_ECHO), so whatever somebody else did right after is not taken for ours.
#![forbid(unsafe_code)]

use crate::helper::ruleset::{PROBE, TABLE};
use crate::netlink::Message;
use crate::netlink::nftables::{self, Command, Item};

/// The numbers of what stands by the names of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// That of the table, and its flags: a dormant one drops nothing.
    table: Option<(u64, u32)>,
    /// That of the base chain, which may be without rules; then another in its place would not show.
    base_chain: Option<u64>,
    /// Those of all rules, with the chain of each, in order: the kernel tells of them in another than it lists them.
    rules: Vec<(u64, String)>,
}

impl Identity {
    /// Whether there is a table.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Takes in what the kernel says there is.
    pub(super) fn learn(&mut self, message: &Message<'_>) {
        match nftables::listed(message, TABLE) {
            Some((number, Item::Table { flags })) => self.table = Some((number, flags)),
            Some((number, Item::Chain(name))) if name == PROBE => self.base_chain = Some(number),
            Some((number, Item::Rule { chain })) => self.add((number, chain)),
            Some((_, Item::Chain(_))) | None => {}
        }
    }

    fn add(&mut self, rule: (u64, String)) {
        let place = self.rules.partition_point(|other| *other < rule);
        self.rules.insert(place, rule);
    }

    /// Both together; what `other` has in one's place counts.
    pub(super) fn with(mut self, other: Identity) -> Identity {
        other.rules.into_iter().for_each(|rule| self.add(rule));
        Identity {
            table: other.table.or(self.table),
            base_chain: other.base_chain.or(self.base_chain),
            rules: self.rules,
        }
    }

    /// What stands after these `commands`, of which the kernel has `told` this. Nothing that is known, if it has not told
    /// of every rule, or nothing at all.
    pub(super) fn after(mut self, commands: &[Command], told: Identity) -> Identity {
        for command in commands {
            if let Command::EmptyChain(chain) = command {
                self.rules.retain(|(_, of)| of != chain);
            } else if *command == Command::DeleteTable {
                self = Identity::default();
            }
        }
        let made = commands.iter().filter(|command| command.is_a_rule()).count();
        let stands = commands.last() != Some(&Command::DeleteTable) && told.rules.len() == made;
        if stands { self.with(told) } else { Identity::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &[(&str, u64)]) -> Identity {
        let rules = rules.iter().map(|(chain, number)| (*number, (*chain).to_owned())).collect();
        Identity { rules, ..Identity::default() }
    }

    #[test]
    fn what_stands_is_what_stood_and_what_the_kernel_has_told_of() {
        let rule = |chain| Command::NewRule(chain, Vec::new());
        let table = Identity { table: Some((90, 0)), base_chain: Some(6), ..rules(&[("never", 7)]) };
        let install = [Command::NewTable, Command::DeleteTable, Command::NewTable, rule("never")];
        let made = rules(&[(PROBE, 1)]).after(&install, table.clone());
        assert_eq!(made, table);
        let heeding = made.after(&[rule(PROBE)], rules(&[(PROBE, 8)]));
        assert_eq!(heeding, table.clone().with(rules(&[(PROBE, 8)])));
        let unheard = heeding.clone().after(&[rule(PROBE)], Identity::default());
        assert!(!unheard.is_there());
        let emptied = heeding.after(&[Command::EmptyChain(PROBE), rule(PROBE)], rules(&[(PROBE, 9)]));
        assert_eq!(emptied, table.clone().with(rules(&[(PROBE, 9)])));
        // Told of the one that was made to be deleted.
        assert!(!emptied.after(&[Command::NewTable, Command::DeleteTable], table).is_there());
    }
}
