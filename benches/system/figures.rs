//! The table: each figure is printed as soon as it is known, and all of them are written to a file at the end.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::contender::Contender;

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
pub struct Figures {
    figures: Vec<Figure>,
    rows: Vec<Row>,
}

/// A row of the table in which the contenders stand side by side.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    target: &'static str,
    unit: &'static str,
    /// Of each of [`Contender::ALL`] the median of those times that it came to pass; none where it does not apply or never did.
    medians: [Option<f64>; 4],
    /// How often it never came to pass, which no median tells.
    missing: [usize; 4],
    spreads: [String; 4],
}

impl Figures {
    /// Begins a part of the table.
    pub fn part(&self, title: &str) {
        println!("\n{title}");
    }

    /// Adds a row and prints it.
    pub fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        let figure = Figure { what: what.into(), value, unit, note: note.into() };
        println!("  {:<46} {:>10} {:<12} {}", figure.what, short(value), unit, figure.note);
        self.figures.push(figure);
    }

    /// Adds a row of the contenders' table; columns that do not apply are empty, what never came to pass is no number.
    pub fn compare(
        &mut self,
        what: &'static str,
        target: &'static str,
        unit: &'static str,
        columns: [Vec<f64>; 4],
    ) {
        let missing = columns.each_ref().map(|column| column.iter().filter(|it| !it.is_finite()).count());
        let values = columns.map(|column| column.into_iter().filter(|it| it.is_finite()).collect::<Vec<_>>());
        let medians = values.each_ref().map(|column| (!column.is_empty()).then(|| median(column)));
        let spreads = values.map(|column| if column.is_empty() { String::new() } else { spread(&column) });
        self.rows.push(Row { what, target, unit, medians, missing, spreads });
    }

    /// Prints the contenders' table.
    pub fn print_table(&self) {
        let names = Contender::ALL.map(Contender::name);
        println!("\n{:<52} {:>8} {:<12}{}", "side by side, in one run", "target", "", cells(names));
        for Row { what, target, unit, medians, missing, .. } in &self.rows {
            let values = std::array::from_fn::<_, 4, _>(|at| {
                let never = if missing[at] > 0 { format!("{}× never ", missing[at]) } else { String::new() };
                never + &medians[at].map_or("–".to_owned(), short)
            });
            println!("{what:<52} {target:>8} {unit:<12}{}", cells(values.each_ref().map(String::as_str)));
        }
    }

    /// Writes a plot beside the results, as `NAME.svg`.
    pub fn plot(&self, name: &str, svg: &str) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-results");
        std::fs::create_dir_all(&folder).expect("the project's folder can be written");
        std::fs::write(folder.join(format!("{name}.svg")), svg).expect("the project's folder can be written");
    }

    /// Writes everything as JSON, for programs that compare runs.
    pub fn save(&self, machine: &str) {
        let seconds = std::time::UNIX_EPOCH.elapsed().expect("the clock is set").as_secs();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-results");
        let path = folder.join(format!("{seconds}.json"));
        let text = serde_json::json!({ "time": seconds, "machine": machine, "columns": Contender::ALL.map(Contender::name), "rows": self.rows, "figures": self.figures });
        std::fs::create_dir_all(&folder).expect("the project's folder can be written");
        std::fs::write(&path, format!("{text:#}\n")).expect("the project's folder can be written");
        println!("\nwritten to {}", path.display());
    }
}

fn cells(values: [&str; 4]) -> String {
    values.map(|value| format!("{value:>14}")).concat()
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
