//! The live line on a terminal: as long as the terminal is wide, and below the log.

use crate::output;
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// The width where the terminal does not say it.
const USUAL_WIDTH: usize = 80;

/// A part of a line, and how little it matters: the first ones to leave out where there is no room are those with the largest number.
pub type Part = (u8, String);

/// A place on the terminal that is drawn again and again. Log lines are written above it.
pub struct LiveLine {
    bar: ProgressBar,
}

impl LiveLine {
    /// A place without any text, in the form of this template of indicatif.
    pub fn new(template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("a constant template that is valid"));
        Self { bar }
    }

    /// Whether standard error is a terminal.
    pub fn is_shown() -> bool {
        std::io::stderr().is_terminal()
    }

    /// The number of columns.
    pub fn width() -> usize {
        Term::stderr().size_checked().map_or(USUAL_WIDTH, |(_, columns)| columns.into())
    }

    /// Draws this text.
    pub fn draw(&self, text: String) {
        output::keep_below(Some(self.bar.clone()));
        self.bar.set_message(text);
        self.bar.tick();
    }

    /// Removes it.
    pub fn clear(&self) {
        output::keep_below(None);
        self.bar.finish_and_clear();
    }
}

/// The parts that fit into so many columns, in their order.
pub fn fit(mut parts: Vec<Part>, columns: usize) -> String {
    let join = |parts: &[Part]| parts.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" · ");
    while parts.len() > 1 && join(&parts).chars().count() > columns {
        let last = (0..parts.len()).max_by_key(|&nth| (parts[nth].0, nth)).unwrap_or(0);
        parts.remove(last);
    }
    cut(&join(&parts), columns)
}

/// A text in so many columns.
pub fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_least_is_left_out_until_the_line_fits() {
        let parts = || vec![(1, "101 rows/s".into()), (3, "5,408 rows".into()), (0, "e2e p99 4.50 s".into())];
        assert_eq!(fit(parts(), 80), "101 rows/s · 5,408 rows · e2e p99 4.50 s");
        assert_eq!(fit(parts(), 40), "101 rows/s · 5,408 rows · e2e p99 4.50 s");
        assert_eq!(fit(parts(), 39), "101 rows/s · e2e p99 4.50 s");
        assert_eq!(fit(parts(), 20), "e2e p99 4.50 s");
        assert_eq!(fit(parts(), 8), "e2e p99…");
    }
}
