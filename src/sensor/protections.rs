//! Networks that have become never-blocked while we run: the helper is told of them, and the outside of what it refused.
//!
//! Main thread, pure: requests are queued, events returned. Never more are on their way at once than leave room for
//! blocks. Whose block ends for it the helper says itself.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use ipnet::IpNet;

use super::turn::Turn;
use crate::networks::Networks;
use crate::protocol::channel::RequestWriter;
use crate::protocol::{Outcome, Request};

/// On their way at once: the helper gives the kernel all of them together, and blocks wait no longer than for that.
const AT_ONCE: usize = 256;

/// What the helper is still to be told, and what it has not answered yet.
#[derive(Default)]
pub struct Protections {
    waiting: VecDeque<IpNet>,
    asked: HashMap<u64, IpNet>,
    /// How many were refused, and the first of them with the reason.
    refused: usize,
    first_refused: Option<(IpNet, Outcome)>,
}

impl Protections {
    /// These too, whoever is `shut_out` before all others: it may be the owner who asks.
    pub fn ask(&mut self, networks: impl IntoIterator<Item = IpNet>, shut_out: &Networks) {
        let (first, others): (Vec<IpNet>, Vec<IpNet>) =
            networks.into_iter().partition(|network| shut_out.overlaps(network));
        first.into_iter().rev().for_each(|network| self.waiting.push_front(network));
        self.waiting.extend(others);
    }

    /// Sends the next ones where all that were sent are answered. What finds no room waits for another turn: the
    /// helper's answers wake us.
    pub fn go_on(&mut self, requests: &mut RequestWriter) {
        if !self.asked.is_empty() {
            return;
        }
        while let Some(&network) = self.waiting.front().filter(|_| self.asked.len() < AT_ONCE) {
            let Ok(id) = requests.send(|id| Request::Protect { id, network }) else { break };
            self.waiting.pop_front();
            self.asked.insert(id, network);
        }
    }

    /// The helper answered. `false` if it was not to one of these.
    pub fn on_done(&mut self, id: u64, outcome: Outcome, turn: &mut Turn) -> bool {
        let Some(network) = self.asked.remove(&id) else { return false };
        if outcome != Outcome::Lifted {
            self.refused += 1;
            self.first_refused.get_or_insert((network, outcome));
        }
        let is_last = self.asked.is_empty() && self.waiting.is_empty();
        if let Some((first, outcome)) = self.first_refused.filter(|_| is_last) {
            turn.error(told(self.refused, first, outcome));
            (self.refused, self.first_refused) = (0, None);
        }
        true
    }
}

fn told(count: usize, first: IpNet, outcome: Outcome) -> String {
    let reason = match outcome {
        Outcome::RefusedFull => "it holds as many as it may; a block of theirs stays".to_owned(),
        Outcome::Failed(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("the firewall did not take them: {error}; the tripwire may still shut them out")
        }
        Outcome::Blocked
        | Outcome::AlreadyBlocked
        | Outcome::Lifted
        | Outcome::NotBlocked
        | Outcome::RefusedNeverBlock
        | Outcome::RefusedPrefix
        | Outcome::RefusedRate => "it refused them".to_owned(),
    };
    format!(
        "NEVER_BLOCK: the helper could not protect all that was added ({count}, first {first}): {reason}; restart"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(count: u32) -> Vec<IpNet> {
        (0..count).map(|at| IpNet::from(std::net::IpAddr::from((0x0b00_0000 + at).to_be_bytes()))).collect()
    }

    #[test]
    fn no_more_are_on_their_way_than_leave_room_for_blocks_and_none_is_lost() {
        let (mut protections, mut requests) = (Protections::default(), RequestWriter::new(1024));
        protections.ask(networks(1000), &Networks::default());
        for _ in 0..2 {
            protections.go_on(&mut requests);
            assert_eq!((requests.frames().room(), protections.asked.len()), (1024 - AT_ONCE, AT_ONCE));
        }
        let mut full = RequestWriter::new(7);
        let mut protections = Protections::default();
        protections.ask(networks(10), &Networks::default());
        protections.go_on(&mut full);
        assert_eq!((protections.asked.len(), protections.waiting.len()), (7, 3));
    }

    #[test]
    fn who_is_shut_out_is_let_in_before_all_others() {
        let (mut protections, mut requests) = (Protections::default(), RequestWriter::new(1));
        protections.ask(networks(1000), &Networks::new(networks(501).pop()));
        protections.go_on(&mut requests);
        assert_eq!(protections.asked.into_values().collect::<Vec<_>>(), networks(501).split_off(500));
    }
}
