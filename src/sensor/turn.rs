//! One turn of the main thread, or of a replay: the moment that all of it goes by, and the events that it brings.
//!
//! Pure. Tells nobody: whoever began the turn does, once what matters more is done.
#![forbid(unsafe_code)]

use super::clock::Now;
use crate::event::{Event, EventType};

/// A turn.
pub struct Turn {
    /// When it began.
    pub now: Now,
    /// With the index of the interface where a packet is behind them, else 0.
    events: Vec<(Event, u32)>,
}

impl Turn {
    /// One that has brought nothing yet.
    pub fn at(now: Now) -> Turn {
        Turn { now, events: Vec::new() }
    }

    /// An event with nothing but its kind and the turn's time.
    pub fn event(&self, kind: EventType) -> Event {
        Event::new(self.now.wall, kind)
    }

    /// Has `event` told; `interface` is the index of the one that its packet came in by, 0 where that is not known or
    /// no packet is behind it.
    pub fn add(&mut self, event: Event, interface: u32) {
        self.events.push((event, interface));
    }

    /// Has it told that something went wrong.
    pub fn error(&mut self, error: impl Into<String>) {
        self.add(Event { error: Some(error.into()), ..self.event(EventType::Error) }, 0);
    }

    /// What is to be told, in its order, with the interfaces by their names.
    pub fn events<'a>(self, name: impl Fn(u32) -> Option<&'a str>) -> impl Iterator<Item = Event> {
        self.events.into_iter().map(move |(mut event, interface)| {
            if let Some(flow) = &mut event.flow {
                flow.in_iface = name(interface).map(str::to_owned);
            }
            event
        })
    }
}
