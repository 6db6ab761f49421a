//! A line plot as SVG, by hand: three kinds of elements need no crate.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 64.0;
const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#4f772d", "#7b2d8b"];

/// One plot.
pub struct Plot<'a> {
    pub title: &'a str,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    /// Name and points of each line.
    pub lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

/// An axis from 0, or in powers of ten from 1.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    pub label: &'a str,
    pub logarithmic: bool,
}

impl Axis<'_> {
    fn scaled(self, value: f64) -> f64 {
        if self.logarithmic { value.max(1.0).log10() } else { value }
    }

    /// Where the axis ends and where it is marked, scaled.
    fn marks(self, most: f64) -> (f64, Vec<(f64, String)>) {
        if self.logarithmic {
            let end = most.max(10.0).log10().ceil();
            let named = |power: i32| (f64::from(power), short(10_f64.powi(power)));
            return (end, (0..=end as i32).map(named).collect());
        }
        let power = 10_f64.powf(most.max(1e-9).log10().floor());
        let step = [0.2, 0.5, 1.0, 2.0].map(|part| part * power).into_iter().find(|step| most / step <= 6.0);
        let step = step.unwrap_or(2.0 * power);
        let count = (most / step).ceil().max(1.0);
        (
            count * step,
            (0..=count as i32).map(|at| (f64::from(at) * step, short(f64::from(at) * step))).collect(),
        )
    }
}

impl Plot<'_> {
    /// The file's text.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(0.0, f64::max);
        let ((right, across), (top, up)) =
            (self.x.marks(most(|point| point.0)), self.y.marks(most(|point| point.1)));
        let place = |x: f64, y: f64| {
            (MARGIN + x / right * (WIDTH - 2.0 * MARGIN), HEIGHT - MARGIN - y / top * (HEIGHT - 2.0 * MARGIN))
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
            let _ = writeln!(
                out,
                "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
            );
        };
        text(WIDTH / 2.0, 22.0, "middle", "#000", self.title);
        text(WIDTH / 2.0, HEIGHT - 16.0, "middle", "#000", self.x.label);
        text(8.0, 44.0, "start", "#000", self.y.label);
        across
            .iter()
            .for_each(|(x, name)| text(place(*x, 0.0).0, HEIGHT - MARGIN + 18.0, "middle", "#555", name));
        up.iter().for_each(|(y, name)| text(MARGIN - 6.0, place(0.0, *y).1 + 4.0, "end", "#555", name));
        for ((at, (name, _)), colour) in self.lines.iter().enumerate().zip(COLOURS) {
            text(WIDTH - MARGIN, 44.0 + 16.0 * at as f64, "end", colour, name);
        }
        let grid = up.iter().map(|(y, _)| (place(0.0, *y), place(right, *y)));
        let grid = grid.chain(across.iter().map(|(x, _)| (place(*x, 0.0), place(*x, top))));
        for ((x1, y1), (x2, y2)) in grid {
            let _ = writeln!(
                out,
                "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
            );
        }
        for ((_, points), colour) in self.lines.iter().zip(COLOURS) {
            let points = points.iter().map(|&(x, y)| place(self.x.scaled(x), self.y.scaled(y)));
            let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
        }
        out.push_str("</svg>\n");
        out
    }
}

fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{} M", value / 1e6),
        1e3.. => format!("{} k", value / 1e3),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}
