//! Who asked for `status`, and waits for a sign of life of the helper: the sensor alone would be well while nobody is
//! blocked or let in.
//!
//! Main thread, pure: the question is queued, time passed in. Asks nothing while nobody waits. Any answer of the helper
//! will do, so that nobody waits for all that a flood has queued before.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::control::server::ClientId;
use crate::protocol::Request;
use crate::protocol::channel::RequestWriter;

/// How long the helper may take: longer than iptables waits by design for another that holds its lock, five seconds, and
/// less than a health check gives us, ten.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// Those who wait, and until when; as many as the control socket serves at most.
#[derive(Debug, Default)]
pub struct Pulse {
    waiting: Vec<(ClientId, Instant)>,
}

impl Pulse {
    /// Has `client` wait for the helper's next answer, whichever. Whoever is not there any more waits no longer.
    pub fn ask(
        &mut self,
        client: ClientId,
        now: Instant,
        is_there: impl Fn(ClientId) -> bool,
        requests: &mut RequestWriter,
    ) {
        self.waiting.retain(|(client, _)| is_there(*client));
        // A full queue needs no question: its requests will be answered, or the helper stands still.
        let _ = requests.send(|id| Request::Ping { id });
        self.waiting.push((client, now + PATIENCE));
    }

    /// The helper answered something: whoever waited for that.
    pub fn heard(&mut self) -> Vec<ClientId> {
        self.waiting.drain(..).map(|(client, _)| client).collect()
    }

    /// Whoever has waited long enough by `now`.
    pub fn missed(&mut self, now: Instant) -> Vec<ClientId> {
        self.waiting.extract_if(.., |(_, until)| *until <= now).map(|(client, _)| client).collect()
    }

    /// When [`missed`](Self::missed) has somebody; `None` while nobody waits.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first().map(|&(_, until)| until)
    }
}
