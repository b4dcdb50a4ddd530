//! The percentile curves of all stages as a picture for a README: light or dark by the reader's system.

use super::curve::{self, curve};
use super::escape::escape;
use super::{Measured, Run, text};
use crate::latency::table::{short, time, wrapped};
use std::fmt::Write;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 460.0;
/// The drawing within, and the room around it for names.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;
/// Characters in a line below the drawing, in small type.
const FACT_CHARACTERS: usize = 130;
/// Names of lines keep this far apart.
const LINE: f64 = 17.0;

/// Colours of a stage, on light and on dark ground. The whole way is the strong one.
pub fn colours(stage: &str) -> (&'static str, &'static str) {
    match stage {
        "slip" => ("#db2777", "#f472b6"),
        "ack" => ("#0891b2", "#22d3ee"),
        "transit" => ("#2563eb", "#60a5fa"),
        "batch" => ("#d97706", "#fbbf24"),
        "insert" => ("#059669", "#34d399"),
        "commit" => ("#7c3aed", "#a78bfa"),
        "e2e" => ("#111827", "#f3f4f6"),
        "backlog" => ("#92400e", "#d6a35c"),
        _ => ("#6b7280", "#9ca3af"),
    }
}

struct Axes {
    nines: f64,
    /// The ends of the axis: logarithms to base ten, or nanoseconds on a linear axis.
    low: f64,
    high: f64,
    linear: bool,
}

impl Axes {
    fn of(run: &Run, linear: bool) -> Self {
        let recorded = |stage: &Measured| (stage.histogram.value_at_quantile(0.0).max(1), stage.histogram.max());
        let ends = run.stages.iter().map(recorded).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((1, 10));
        let nines = run.stages.iter().map(|stage| curve::nines(stage.samples)).fold(1.0, f64::max);
        let (low, high) = if linear {
            let high = ends.1 as f64 * 1.05;
            (0.0, (high / step(high)).ceil() * step(high))
        } else {
            ((ends.0 as f64).log10().floor(), ((ends.1 as f64).log10() + 0.05).ceil())
        };
        Self { nines, low, high, linear }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + nines / self.nines * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, nanos: f64) -> f64 {
        let at = if self.linear { nanos } else { nanos.max(1.0).log10() };
        TOP + (self.high - at) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }

    /// The latencies that have a line across the picture.
    fn marks(&self) -> Vec<f64> {
        if self.linear {
            let step = step(self.high);
            return (0..=(self.high / step).round() as i32).map(|nth| f64::from(nth) * step).collect();
        }
        (self.low as i32..=self.high as i32).map(|decade| 10_f64.powi(decade)).collect()
    }
}

/// A round number that goes four to ten times into this one.
fn step(high: f64) -> f64 {
    let decade = 10_f64.powf(high.log10().floor());
    [0.1, 0.2, 0.25, 0.5, 1.0].into_iter().map(|part| part * decade).find(|step| high / step <= 10.0).unwrap_or(decade)
}

/// The picture.
pub fn render(run: &Run, promised_ns: u64, linear: bool) -> String {
    let (axes, facts) = (Axes::of(run, linear), facts(run, promised_ns));
    let height = HEIGHT + facts.len() as f64 * LINE + LINE / 2.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         font-family=\"Inter, system-ui, sans-serif\" font-size=\"13\">\n<title>Latency by percentile</title>\n{}",
        style(run)
    );
    let _ = writeln!(out, "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>");
    let _ = writeln!(
        out,
        "<text class=\"title\" x=\"24\" y=\"32\" font-size=\"16\" font-weight=\"600\">Latency by percentile</text>"
    );
    let _ = writeln!(out, "<text x=\"{}\" y=\"32\" text-anchor=\"end\">{}</text>", WIDTH - 24.0, run.throughput());
    grid(&mut out, &axes);
    if run.verdict(promised_ns).is_some() {
        promise(&mut out, &axes, promised_ns);
    }
    lines(&mut out, run, &axes);
    for (nth, fact) in facts.iter().enumerate() {
        let y = HEIGHT + nth as f64 * LINE;
        let _ = writeln!(out, "<text x=\"24\" y=\"{y}\" font-size=\"11\">{}</text>", escape(fact));
    }
    out + "</svg>\n"
}

/// The lines below the drawing: how the promise was kept, statistics that a curve does not show, and the conditions of the run.
fn facts(run: &Run, promised_ns: u64) -> Vec<String> {
    let stage = run.headline();
    let shown = |column| stage.row().value(column).map_or("–".into(), time);
    let statistics = ["mean", "stddev", "max"].map(|column| format!("{column} {}", shown(column)));
    let mut facts = vec![format!("{}; {}: {}", text::began(run), stage.name, statistics.join(", "))];
    facts.extend(run.verdict(promised_ns).map(|judged| judged.line()));
    facts.extend(text::conditions(run).into_iter().map(|(name, conditions)| format!("{name}: {conditions}")));
    facts
        .iter()
        .flat_map(|fact| wrapped(fact, FACT_CHARACTERS).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn style(run: &Run) -> String {
    // Each colour stands as a plain rule first, for renderers that know no media queries.
    let mut light = String::from(
        ".ground{fill:#ffffff}.grid{stroke:#e5e7eb}text{fill:#4b5563}.title{fill:#111827}.promise{stroke:#dc2626}.promised{fill:#dc2626}",
    );
    let mut dark = String::from(
        ".ground{fill:#14171e}.grid{stroke:#2b313d}text{fill:#aab2c0}.title{fill:#f3f4f6}.promise{stroke:#f87171}.promised{fill:#f87171}",
    );
    for (nth, stage) in run.stages.iter().enumerate() {
        let (on_light, on_dark) = colours(&stage.name);
        let _ = write!(light, ".s{nth}{{stroke:{on_light}}}.n{nth}{{fill:{on_light}}}");
        let _ = write!(dark, ".s{nth}{{stroke:{on_dark}}}.n{nth}{{fill:{on_dark}}}");
    }
    format!("<style>{light}@media (prefers-color-scheme: dark){{{dark}}}</style>\n")
}

fn grid(out: &mut String, axes: &Axes) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for nanos in axes.marks() {
        let y = axes.y(nanos);
        let _ = writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            y + 4.5,
            short(nanos as u64)
        );
    }
    for nine in 0..=axes.nines as usize {
        let x = axes.x(nine as f64);
        let _ = writeln!(out, "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 22.0,
            curve::name(nine)
        );
    }
}

fn promise(out: &mut String, axes: &Axes, promised_ns: u64) {
    let y = axes.y(promised_ns as f64);
    if y > TOP && y < HEIGHT - BOTTOM {
        let right = WIDTH - RIGHT;
        let _ = writeln!(
            out,
            "<line class=\"promise\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke-dasharray=\"5 4\"/>"
        );
        let _ = writeln!(
            out,
            "<text class=\"promised\" x=\"{}\" y=\"{:.1}\">promise: {}</text>",
            LEFT + 8.0,
            y - 6.0,
            short(promised_ns)
        );
    }
}

fn lines(out: &mut String, run: &Run, axes: &Axes) {
    let mut names = Vec::new();
    for (nth, stage) in run.stages.iter().enumerate() {
        let points = curve(stage);
        let place = |&(nines, nanos): &(f64, u64)| format!("{:.1},{:.1}", axes.x(nines), axes.y(nanos as f64));
        let path: Vec<_> = points.iter().map(place).collect();
        let width = if stage.name == flows::Stage::EndToEnd.as_str() { 3 } else { 2 };
        let _ = writeln!(
            out,
            "<polyline class=\"s{nth}\" fill=\"none\" stroke-width=\"{width}\" stroke-linejoin=\"round\" points=\"{}\"/>",
            path.join(" ")
        );
        if let Some(&(nines, nanos)) = points.last() {
            names.push((axes.y(nanos as f64), axes.x(nines), nth, stage.name.as_str()));
        }
    }
    // Names beside the ends of their lines, moved down where two would meet.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (y, x, nth, name) in names {
        let y = y.max(free);
        free = y + LINE;
        let _ = writeln!(
            out,
            "<text class=\"n{nth}\" font-weight=\"600\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 8.0,
            y + 4.5,
            escape(name)
        );
    }
}
