//! What the two programs weigh on disk.
#![forbid(unsafe_code)]

use super::Effort;
use super::figures::Figures;

/// Adds the rows.
pub fn measure(_: Effort, figures: &mut Figures) {
    let sizes = [env!("CARGO_BIN_EXE_portsentry-rs"), env!("CARGO_BIN_EXE_portsentry-rs-helper")]
        .map(|path| std::fs::metadata(path).expect("cargo built it").len() as f64 / 1e6);
    figures.part("Size on disk (target of both: ≤ 3.5)");
    figures.add("portsentry-rs", sizes[0], "MB", "");
    figures.add("portsentry-rs-helper", sizes[1], "MB", "");
}
