//! The ways to respond, and sets of them as they stand in frames and in the ledger. Pure; both roles.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One way to respond. Numbers are bits of [`Responses`] and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Response {
    /// Timed sets in the table `inet portsentry`.
    Nftables = 0,
    /// Rules in a chain of our own, by the iptables programs.
    Iptables = 1,
    /// Blackhole routes: the host answers no more.
    Route = 2,
    /// A line in hosts.deny.
    HostsDeny = 3,
    /// KILL_ROUTE, a command that blocks.
    Command = 4,
    /// KILL_RUN_CMD, a command that tells: it blocks nobody, but for BLOCK_*=2.
    RunCommand = 5,
}

impl Response {
    /// All of them.
    pub const ALL: [Response; 6] = [
        Response::Nftables,
        Response::Iptables,
        Response::Route,
        Response::HostsDeny,
        Response::Command,
        Response::RunCommand,
    ];

    /// As BLOCK_WITH and the `action.with` field write it.
    pub fn name(self) -> &'static str {
        match self {
            Response::Nftables => "nftables",
            Response::Iptables => "iptables",
            Response::Route => "route",
            Response::HostsDeny => "hosts_deny",
            Response::Command => "command",
            Response::RunCommand => "run_command",
        }
    }

    /// Whether the kernel brings it about at once, asked by the helper itself.
    pub fn is_at_once(self) -> bool {
        matches!(self, Response::Nftables | Response::Route)
    }

    /// Whether its success means that the source is shut out.
    pub fn blocks(self) -> bool {
        self != Response::RunCommand
    }
}

/// A set of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Responses(u8);

impl Responses {
    /// None.
    pub const NONE: Responses = Responses(0);

    /// All of both.
    pub fn and(self, other: impl Into<Responses>) -> Responses {
        Responses(self.0 | other.into().0)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: impl Into<Responses>) -> Responses {
        Responses(self.0 & !other.into().0)
    }

    /// Those that are in `other` too.
    pub fn among(self, other: impl Into<Responses>) -> Responses {
        Responses(self.0 & other.into().0)
    }

    /// Whether it is in.
    pub fn contains(self, response: Response) -> bool {
        self.0 & 1 << response as u8 != 0
    }

    /// Whether KILL_RUN_CMD is all there is (BLOCK_*=2): told as a block, and nobody is shut out.
    pub fn is_run_only(self) -> bool {
        !self.is_empty() && !self.block()
    }

    /// Whether one of them shuts the source out.
    pub fn block(self) -> bool {
        self.iter().any(Response::blocks)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// One after the other, by number.
    pub fn iter(self) -> impl Iterator<Item = Response> {
        Response::ALL.into_iter().filter(move |&response| self.contains(response))
    }
}

impl From<Response> for Responses {
    fn from(response: Response) -> Responses {
        Responses(1 << response as u8)
    }
}

impl FromIterator<Response> for Responses {
    fn from_iter<I: IntoIterator<Item = Response>>(responses: I) -> Responses {
        responses.into_iter().fold(Responses::NONE, Responses::and)
    }
}

impl From<Responses> for u8 {
    fn from(responses: Responses) -> u8 {
        responses.0
    }
}

/// Bits that mean no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#04x} is no set of responses")]
pub struct UnknownResponses(u8);

impl TryFrom<u8> for Responses {
    type Error = UnknownResponses;

    fn try_from(bits: u8) -> Result<Responses, UnknownResponses> {
        let all = Response::ALL.into_iter().collect::<Responses>();
        if bits & !all.0 == 0 { Ok(Responses(bits)) } else { Err(UnknownResponses(bits)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_foreign_bits_are_refused() {
        for bits in 0..=u8::MAX {
            match Responses::try_from(bits) {
                Ok(set) => assert_eq!(set.iter().collect::<Responses>(), set),
                Err(_) => assert!(bits >= 64),
            }
        }
        assert!(!Responses::from(Response::RunCommand).block());
        assert!(Responses::from(Response::RunCommand).and(Response::Route).block());
    }
}
