//! The table: each figure is printed as soon as it is known, and all of them are written to a file at the end.
#![forbid(unsafe_code)]

use serde::Serialize;

/// One row.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    note: String,
}

/// The rows so far.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Begins a part of the table.
    pub fn part(&self, title: &str) {
        println!("\n{title}");
    }

    /// Adds a row and prints it.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        let figure = Figure { what: what.into(), value, unit, note: note.into() };
        println!("  {:<46} {:>10} {:<12} {}", figure.what, short(value), unit, figure.note);
        self.0.push(figure);
    }

    /// Writes everything as JSON, for programs that compare runs.
    pub fn save(&self, machine: &str) {
        let seconds = std::time::UNIX_EPOCH.elapsed().expect("the clock is set").as_secs();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-results");
        let path = folder.join(format!("{seconds}.json"));
        let text = serde_json::json!({ "time": seconds, "machine": machine, "figures": self.0 });
        std::fs::create_dir_all(&folder).expect("the project's folder can be written");
        std::fs::write(&path, format!("{text:#}\n")).expect("the project's folder can be written");
        println!("\nwritten to {}", path.display());
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        ..1.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle of `values`; of an even number, the upper of both.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The value that `percent` of `values` do not exceed.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1).expect("something was measured");
    sorted[(sorted.len() * percent / 100).min(last)]
}

/// `p5 … p95`, to go with a median.
pub fn spread(values: &[f64]) -> String {
    format!(
        "5 %: {}, 95 %: {}, of {}",
        short(percentile(values, 5)),
        short(percentile(values, 95)),
        values.len()
    )
}
