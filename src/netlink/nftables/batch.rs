//! A batch: commands that the kernel carries out all together or not at all.
//!
//! Pure; the helper sends what is encoded here and reads the answers.
#![forbid(unsafe_code)]

use super::element::{Element, elements};
use super::{Expression, Kind, Set};
use crate::netlink::message::Encoder;

/// What [`Command::describe`] says of a rule, whose ENOENT means more than a missing table.
pub const MAKE_A_RULE: &str = "make a rule";
/// What it says of a set, whose EEXIST means that there is one of another kind.
pub const MAKE_A_SET: &str = "make a set";

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make the table if it is not there.
    NewTable,
    /// Delete the table, which must be there, with all it holds.
    DeleteTable,
    /// Make a set.
    NewSet(Set),
    /// Make a chain, at a hook (number, priority) or to jump to.
    NewChain(&'static str, Option<(u32, i32)>),
    /// Append a rule to a chain.
    NewRule(&'static str, Vec<Expression>),
    /// Put a rule before all others of a chain.
    InsertRule(&'static str, Vec<Expression>),
    /// Delete all rules of a chain.
    EmptyChain(&'static str),
    /// Add elements to a set. What is there already stays as it is on kernels before 6.12, and gets the new time since.
    AddElements(String, Vec<Element>),
    /// Delete elements of a set; if one is not there, the batch fails.
    DeleteElements(String, Vec<Element>),
    /// Delete all elements of a set.
    EmptySet(String),
}

impl Command {
    /// What the command does, to be read after "cannot".
    pub fn describe(&self) -> &'static str {
        match self {
            Command::NewTable => "make the table",
            Command::DeleteTable => "delete the table",
            Command::NewSet(_) => MAKE_A_SET,
            Command::NewChain(..) => "make a chain",
            Command::NewRule(..) | Command::InsertRule(..) => MAKE_A_RULE,
            Command::EmptyChain(_) => "empty a chain",
            Command::AddElements(..) => "add to a set",
            Command::DeleteElements(..) => "delete from a set",
            Command::EmptySet(_) => "empty a set",
        }
    }

    /// Whether it makes a rule.
    pub const fn is_a_rule(&self) -> bool {
        matches!(self, Command::NewRule(..) | Command::InsertRule(..))
    }

    /// Whether it changes something wherever it comes true. A batch in which nothing does gets no generation.
    pub const fn is_a_change(&self) -> bool {
        match self {
            Command::NewTable | Command::NewSet(_) | Command::NewChain(..) => false,
            Command::AddElements(..) | Command::EmptySet(_) | Command::EmptyChain(_) => false,
            Command::NewRule(..) | Command::InsertRule(..) => true,
            Command::DeleteTable | Command::DeleteElements(..) => true,
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Command::NewTable => Kind::NewTable,
            Command::DeleteTable => Kind::DeleteTable,
            Command::NewSet(_) => Kind::NewSet,
            Command::NewChain(..) => Kind::NewChain,
            Command::NewRule(..) | Command::InsertRule(..) => Kind::NewRule,
            Command::EmptyChain(_) => Kind::DeleteRule,
            Command::AddElements(..) => Kind::NewElements,
            Command::DeleteElements(..) | Command::EmptySet(_) => Kind::DeleteElements,
        }
    }

    /// `nlmsg_flags` besides NLM_F_REQUEST. Of tables, chains and rules the kernel tells which numbers they got.
    const fn flags(&self) -> u16 {
        let place = if matches!(self, Command::NewRule(..)) { libc::NLM_F_APPEND } else { 0 };
        let is_told = matches!(self.kind(), Kind::NewTable | Kind::NewChain | Kind::NewRule);
        let told = if is_told { libc::NLM_F_ECHO } else { 0 };
        self.kind().flags() | (place | told) as u16
    }

    fn fill(&self, message: &mut Encoder, table: &str, id: u32) {
        match self {
            Command::NewTable | Command::DeleteTable => super::table(message, table),
            Command::NewSet(set) => super::set(message, table, set, id),
            Command::NewChain(name, hook) => super::chain(message, table, name, *hook),
            Command::NewRule(chain, rule) | Command::InsertRule(chain, rule) => {
                super::rule(message, table, chain, rule);
            }
            Command::EmptyChain(chain) => super::rules_of(message, table, chain),
            Command::AddElements(set, list) | Command::DeleteElements(set, list) => {
                elements(message, table, set, list);
            }
            Command::EmptySet(set) => elements(message, table, set, &[]),
        }
    }
}

/// How many sequence numbers a batch of so many commands takes: its begin and end count too.
pub fn sequence_numbers(commands: &[Command]) -> u32 {
    u32::try_from(commands.len()).unwrap_or(u32::MAX).saturating_add(2)
}

/// Encodes a batch. Its begin bears the sequence number `first`, the commands those after it.
/// The last command alone asks for an acknowledgement: errors are reported unasked, and before it.
pub fn encode(commands: &[Command], table: &str, first: u32) -> Encoder {
    let request = libc::NLM_F_REQUEST as u16;
    let mut encoder = Encoder::default();
    encoder.message(super::BATCH_BEGIN, request, first, super::batch_header);
    let mut sequence = first;
    for (number, command) in commands.iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let last = number.saturating_add(1) == commands.len();
        let flags = request | command.flags() | if last { libc::NLM_F_ACK as u16 } else { 0 };
        encoder.message(command.kind().number(), flags, sequence, |message| {
            command.fill(message, table, sequence)
        });
    }
    encoder.message(super::BATCH_END, request, sequence.wrapping_add(1), super::batch_header);
    encoder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Messages;

    #[test]
    fn only_the_last_command_asks_for_an_acknowledgement() {
        let commands = [Command::NewTable, Command::DeleteTable];
        let bytes = encode(&commands, "portsentry", u32::MAX).finish().unwrap();
        let messages: Vec<_> = Messages(&bytes).map(Result::unwrap).collect();
        let asks: Vec<bool> = messages.iter().map(|m| m.flags & libc::NLM_F_ACK as u16 != 0).collect();
        assert_eq!(asks, [false, false, true, false]);
        assert_eq!(messages.iter().map(|m| m.sequence).collect::<Vec<_>>(), [u32::MAX, 0, 1, 2]);
        assert_eq!(sequence_numbers(&commands), 4);
    }
}
