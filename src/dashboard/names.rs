//! The names in the boards' SQL, for a table of the user's own.

use crate::clickhouse::{ClickHouseConfig, backquoted, quoted};

/// The board that fits any table; the others need the shop's columns.
const FITS_ANY: &str = "pipeline";

/// The table of events and the column with their time, where they are not those of the shop.
#[derive(Clone, Debug, Default)]
pub struct Names {
    table: Option<String>,
    time: Option<String>,
}

impl Names {
    /// The names for the table of this configuration; `time` is the column with an event's time.
    pub fn new(config: &ClickHouseConfig, time: Option<String>) -> Self {
        Self { table: config.table.clone(), time }
    }

    /// Whether a board of this uid can be shown.
    pub fn fit(&self, uid: &str) -> bool {
        self.table.is_none() || uid == FITS_ANY
    }

    /// The statement with these names. `FINAL` goes, since not every table has it.
    pub fn put_into(&self, sql: &str) -> String {
        let Some(table) = &self.table else { return sql.to_owned() };
        let sql = sql.replace(" FINAL", "").replace("'events'", &quoted(table));
        let sql = sql.replace("FROM events", &format!("FROM {}", backquoted(table)));
        match &self.time {
            Some(time) => with_word(&sql, "timestamp", &backquoted(time)),
            None => sql,
        }
    }
}

/// The text with another word in place of each `word` that stands alone.
fn with_word(text: &str, word: &str, other: &str) -> String {
    let is_inner = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let stands_alone = !replaced.is_empty() && before.is_empty() || !before.ends_with(is_inner);
        replaced.push_str(before);
        replaced.push_str(if stands_alone && !after.starts_with(is_inner) { other } else { word });
        rest = after;
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::super::boards::{BOARDS, board};
    use super::super::macros::Range;
    use super::*;

    #[test]
    fn the_board_that_fits_any_table_asks_only_for_its_own_names() {
        let names = Names { table: Some("w`eb".into()), time: Some("at".into()) };
        let range = Range { from_ms: 0, to_ms: 1, interval_ms: 1_000, topic: None };
        let board = board(FITS_ANY).expect("there is one");
        for target in board.about.panels.iter().flat_map(|panel| &panel.targets) {
            let sql = names.put_into(&target.sql(range).unwrap());
            assert!(!["events", "timestamp ", "timestamp)", " FINAL"].iter().any(|word| sql.contains(word)), "{sql}");
        }
        assert_eq!(BOARDS.iter().filter(|board| names.fit(&board.about.uid)).count(), 1);
    }

    #[test]
    fn a_word_is_replaced_where_it_stands_alone() {
        let sql = "max(timestamp) - timestamp + to_timestamp(timestamp_ms), timestamp";
        assert_eq!(with_word(sql, "timestamp", "`at`"), "max(`at`) - `at` + to_timestamp(timestamp_ms), `at`");
        assert_eq!(Names::default().put_into(sql), sql, "the shop's own names stay");
    }
}
