//! What the two programs weigh on disk.
#![forbid(unsafe_code)]

use super::Effort;
use super::figures::Figures;

/// Adds the rows.
pub fn measure(_: Effort, figures: &mut Figures) {
    let sizes = [env!("CARGO_BIN_EXE_portsentry-rs"), env!("CARGO_BIN_EXE_portsentry-rs-helper")]
        .map(|path| std::fs::metadata(path).expect("cargo built it").len() as f64 / 1e6);
    figures.part("Size on disk (target of both: ≤ 3.5)");
    let rival = std::fs::metadata("/usr/sbin/portsentry").map(|file| file.len() as f64 / 1e6);
    let both = sizes[0] + sizes[1];
    figures.compare(
        "programs on disk (1.2 needs the C library)",
        "≤ 3.5",
        "MB",
        [vec![], vec![both], vec![both], rival.into_iter().collect()],
    );
    figures.add("portsentry-rs", sizes[0], "MB", "");
    figures.add("portsentry-rs-helper", sizes[1], "MB", "");
}
