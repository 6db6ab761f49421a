//! What crosses the privilege boundary: [`Settings`] once, then fixed 64-byte [`Request`] and [`Reply`] frames.
//!
//! Pure but for `channel`, which reads and writes frames on a pipe. Decoding is total: a frame is understood whole
//! or refused whole, and the helper ends on the first one it refuses.
#![forbid(unsafe_code)]

pub mod channel;
pub mod frame;
pub mod reply;
pub mod request;
pub mod responses;
pub mod settings;
pub mod traps;
pub mod wording;

pub use frame::{Frame, FrameError};
pub use reply::{Fault, Note, Outcome, Reply};
pub use request::Request;
pub use responses::{Response, Responses};
pub use settings::Settings;
pub use traps::{Datagrams, Page, Terms};

/// Length of every frame on either pipe, bytes.
pub const FRAME_LENGTH: usize = 64;

/// Blocks that one [`Request::List`] is answered with at most: requests have their turn between a long list's pages.
pub const LIST_PAGE: usize = 4096;

/// First byte of every frame; raised when the layout changes.
pub const FRAME_VERSION: u8 = 2;
