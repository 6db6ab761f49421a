//! A bar on a terminal that shows how far a long capture has been read. Says nothing where stderr is no terminal.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A capture that is read sooner needs no bar.
const SHORT: Duration = Duration::from_millis(500);
/// How often the bar moves.
const STEP: Duration = Duration::from_millis(100);
/// Frames between two looks at the clock.
const FRAMES: u32 = 1024;
const WIDTH: u64 = 30;

/// The bar of one capture.
#[derive(Debug)]
pub struct Progress {
    /// Bytes in all; `None` where nobody can tell, as on a pipe.
    total: Option<u64>,
    is_terminal: bool,
    next: Instant,
    frames: u32,
    is_shown: bool,
}

impl Progress {
    /// A bar for `total` bytes, not shown yet.
    pub fn new(total: Option<u64>) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { total, is_terminal, next: Instant::now() + SHORT, frames: 0, is_shown: false }
    }

    /// A frame was read, and `offset` bytes in all.
    pub fn on_frame(&mut self, offset: u64) {
        self.frames = self.frames.wrapping_add(1);
        if self.is_terminal && self.frames.is_multiple_of(FRAMES) && Instant::now() >= self.next {
            self.next = Instant::now() + STEP;
            self.is_shown = true;
            // Whoever closed stderr does not want to see it.
            let _ = write!(io::stderr(), "\r\x1b[K{}", rendered(offset, self.total));
        }
    }

    /// Takes the bar away, so that something else can be written in its place.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Never leaves half a bar behind, also where an error ends the reading.
impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn rendered(offset: u64, total: Option<u64>) -> String {
    let megabytes = offset / 1_000_000;
    let Some(total) = total.filter(|&total| total > 0) else { return format!("{megabytes} MB") };
    let part = |of: u64| (u128::from(offset.min(total)) * u128::from(of) / u128::from(total)) as usize;
    let bar = "#".repeat(part(WIDTH));
    format!("[{bar:<width$}] {:>3} %  {megabytes} MB", part(100), width = WIDTH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_never_overflows() {
        assert_eq!(rendered(0, Some(9_000_000)), format!("[{}]   0 %  0 MB", " ".repeat(30)));
        assert_eq!(rendered(3_000_000, Some(6_000_000)), format!("[{:<30}]  50 %  3 MB", "#".repeat(15)));
        assert_eq!(rendered(9_000_000, Some(6_000_000)), format!("[{}] 100 %  9 MB", "#".repeat(30)));
        assert_eq!(
            (rendered(5_000_000, None), rendered(u64::MAX, Some(0))),
            ("5 MB".into(), format!("{} MB", u64::MAX / 1_000_000))
        );
    }
}
