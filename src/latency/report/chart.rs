//! The percentile curve of one stage, drawn with characters.

use super::Run;
use super::curve::{self, curve};
use crate::latency::table::short;
use hdrhistogram::Histogram;

/// Characters of the drawing, if the terminal has as many; each holds two by four dots (Unicode's braille patterns).
const WIDTH: usize = 72;
const HEIGHT: usize = 9;
/// Room for the name of a latency.
const MARGIN: usize = 9;
/// A braille pattern's dots, by column and by row from above.
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BLANK: u32 = 0x2800;

/// Draws the run's headline, not wider than this; nothing where there are too few events for a curve.
pub fn render(run: &Run, width: usize) -> String {
    let stage = run.headline();
    let points = curve(stage);
    if points.len() < 2 * curve::STEPS {
        return String::new();
    }
    let width = WIDTH.min(width.saturating_sub(MARGIN + 3)).max(2);
    draw(&stage.name, &points, &stage.histogram, width)
}

fn draw(name: &str, points: &[(f64, u64)], histogram: &Histogram<u64>, width: usize) -> String {
    let log = |nanos: u64| (nanos.max(1) as f64).log10();
    let (low, high) = (log(points[0].1), log(histogram.max()));
    let (low, high) = if high - low < 0.3 { (low - 0.15, high + 0.15) } else { (low, high) };
    let nines = points[points.len() - 1].0;
    let mut cells = vec![vec![0_u8; width]; HEIGHT];
    let mut before: Option<usize> = None;
    for x in 0..width * 2 {
        let at = x as f64 / (width * 2 - 1) as f64 * (points.len() - 1) as f64;
        let height = (log(points[at.round() as usize].1) - low) / (high - low);
        let y = ((1.0 - height.clamp(0.0, 1.0)) * (HEIGHT * 4 - 1) as f64).round() as usize;
        // A jump is drawn as a line, not left open.
        let from = before.replace(y).map_or(y, |before| if before > y { before - 1 } else { y });
        for y in y..=from {
            cells[y / 4][x / 2] |= DOTS[x % 2][y % 4];
        }
    }
    let mut out = format!("\n{name}: latency at each percentile\n");
    for (row, line) in cells.iter().enumerate() {
        let labelled = row % 4 == 0;
        let value = 10_f64.powf(high - (high - low) * row as f64 / (HEIGHT - 1) as f64);
        let label = if labelled { short(three_digits(value)) } else { String::new() };
        let dots: String = line.iter().filter_map(|&dots| char::from_u32(BLANK + u32::from(dots))).collect();
        out +=
            &format!("{label:>MARGIN$} {} {}\n", if labelled { '┤' } else { '│' }, dots.trim_end_matches('\u{2800}'));
    }
    out + &axis(nines, width)
}

/// The line below the drawing, with the names of the nines.
fn axis(nines: f64, width: usize) -> String {
    let place = |nine: usize| (nine as f64 / nines * (width - 1) as f64).round() as usize;
    let (mut ticks, mut names) = (vec!['─'; width], String::new());
    for nine in 0..=nines as usize {
        ticks[place(nine)] = '┴';
        let name = curve::name(nine);
        // Centred below its tick, as far as there is room.
        let start = place(nine).saturating_sub(name.len() / 2);
        let room = names.len();
        if nine == 0 || (start > room && start + name.len() <= width + 1) {
            names += &format!("{}{name}", " ".repeat(start.saturating_sub(room)));
        }
    }
    let ticks: String = ticks.into_iter().collect();
    format!("{:MARGIN$} └─{ticks}\n{:MARGIN$}   {names}\n\n", "", "")
}

fn three_digits(value: f64) -> u64 {
    let unit = 10_f64.powf(value.log10().floor() - 2.0).max(1.0);
    ((value / unit).round() * unit) as u64
}
