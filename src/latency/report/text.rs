//! A run as text for the terminal: its conditions, a table, a small chart, and conclusions.

use super::stack::Stack;
use super::timeline::Columns;
use super::{Run, chart};
use crate::latency::table::{self, prose, time};
use crate::printable::printable;
use chrono::{DateTime, Utc};
use flows::Stage;

/// The report.
pub fn render(run: &Run, promised_ns: u64, remarks: &[String], width: usize) -> String {
    let mut out = String::new();
    for (name, conditions) in conditions(run) {
        out += &prose(&format!("{name}: {conditions}"), width);
    }
    out += &prose(&format!("{}: {}", began(run), run.throughput()), width);
    let judged = run.verdict(promised_ns).map(|judged| prose(&judged.line(), width)).unwrap_or_default();
    let remarks = remarks.iter().map(|line| prose(line, width)).collect::<String>();
    let table = table::table(&run.rows(), width) + &stacked(run).map_or(String::new(), |line| prose(&line, width));
    let chart = chart::render(run, width);
    // In a backlog the ages of the events say little: its rate and its bottleneck come first.
    if run.is_backlog() {
        out + &remarks + &judged + "\n" + &table + &chart
    } else {
        out + "\n" + &table + &chart + &judged + &remarks
    }
}

/// The conditions of the logs that have some, in a line each, under the names of the files. Logs of equal conditions share one.
pub fn conditions(run: &Run) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for (path, conditions) in &run.conditions {
        let shown: Vec<_> =
            conditions.iter().map(|(name, value)| printable(&format!("{name} {value}")).to_string()).collect();
        let (name, shown) = (path.display().to_string(), shown.join(", "));
        match lines.iter_mut().find(|(_, known)| *known == shown) {
            Some((names, _)) => *names = format!("{names}, {name}"),
            None => lines.push((name, shown)),
        }
    }
    lines
}

/// When the run began.
pub fn began(run: &Run) -> String {
    let began = DateTime::<Utc>::from_timestamp_millis((run.range.0 * 1e3) as i64).unwrap_or_default();
    began.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Where the time goes, in a line: the parts that add up. None where there is only one.
fn stacked(run: &Run) -> Option<String> {
    let stack = Stack::of(run, &Columns::of(run));
    let shown = |nanos: f64| time(nanos as u64);
    let parts: Vec<_> =
        stack.parts.iter().zip(&stack.means).map(|((label, _), &mean)| format!("{label} {}", shown(mean))).collect();
    let name = &run.stage(Stage::EndToEnd.as_str())?.name;
    (parts.len() > 1).then(|| format!("mean of {name}: {} = {}", parts.join(" + "), shown(stack.total())))
}

#[cfg(test)]
mod tests {
    use super::super::remarks;
    use super::super::stack::tests::run_of;
    use super::super::{compare, svg};
    use super::*;

    /// A run of this many seconds, with its conditions: ten thousand events of each stage in a second.
    fn run(seconds: u64, transit_ms: i64, is_backlog: bool) -> Run {
        let stages = [(Stage::Transit, transit_ms), (Stage::Batch, 20), (Stage::Insert, 100), (Stage::Commit, 4)];
        let whole = [(Stage::EndToEnd, transit_ms + 120), (Stage::Backlog, transit_ms + 120)];
        let all = stages.into_iter().chain(whole.into_iter().take(1 + usize::from(is_backlog)));
        let recorded =
            (0..seconds).flat_map(|second| all.clone().map(move |(stage, took)| (second, stage, took, 10_000)));
        let mut run = run_of(&recorded.collect::<Vec<_>>());
        let conditions =
            [("command", "ingest"), ("batch-timeout", "200ms"), ("clickstream", "0.1.0"), ("ClickHouse", "26.8.1.1")];
        let conditions = conditions.map(|(name, value)| (name.to_owned(), value.to_owned()));
        run.conditions = vec![("ingest.hlog".into(), conditions.to_vec())];
        run.files = vec!["ingest.hlog".into()];
        run.stages.iter_mut().filter(|stage| stage.name == "insert").for_each(|stage| stage.samples = 123_456);
        run
    }

    #[test]
    fn a_report_fits_a_terminal_of_sixty_columns() {
        for run_of_it in [run(4, 5, false), run(4, 3_000_000, true)] {
            let remarks = remarks(&run_of_it);
            let text = render(&run_of_it, 5_000_000_000, &remarks, 60);
            let both = compare::render(&run_of_it, &run(2, 5, false), 5_000_000_000, Some("a remark"), 60);
            for line in text.lines().chain(both.lines()) {
                assert!(line.chars().count() <= 60, "{line}\nin\n{text}\n{both}");
            }
        }
    }

    #[test]
    fn a_backlogs_report_leads_with_its_rate_and_limit_and_judges_nothing_by_it() {
        let run = run(4, 3_000_000, true);
        let text = render(&run, 5_000_000_000, &remarks(&run), usize::MAX);
        let place = |said: &str| text.find(said).unwrap_or_else(|| panic!("no {said:?} in\n{text}"));
        let order = [
            "a backlog, ingested at 10,000 events/s (40,000 events in 4.0 s): the bottleneck is insert: it takes 100 ms",
            "means: batch 20.0 ms, insert 100 ms, commit 4.00 ms",
            "e2e below 5 s: not judged, as no event came while caught up; 40,000 were older (backlog)",
            "stage ",
        ];
        assert!(order.map(place).is_sorted(), "{text}");
    }

    #[test]
    fn text_and_picture_have_the_conditions_the_throughput_and_the_deviation() {
        let run = run(4, 5, false);
        let (text, picture) = (render(&run, 200_000_000, &[], usize::MAX), svg::render(&run, 200_000_000, false));
        for said in [
            "ingest.hlog: command ingest, batch-timeout 200ms, clickstream 0.1.0, ClickHouse 26.8.1.1",
            "1970-01-01 00:00:00 UTC",
            "40,000 events in 4.0 s, 10,000 events/s",
            "stddev",
            "e2e below 200 ms: 100 % of 40,000",
        ] {
            assert!(text.contains(said) && picture.contains(said), "{said:?} in\n{text}\n{picture}");
        }
        assert!(text.contains("mean of e2e: transit 5.00 ms + batch 20.0 ms + insert 100 ms = 125 ms"), "{text}");
        assert!(svg::render(&run, 200_000_000, true).contains(">0 µs<"), "a linear axis begins at zero");
    }
}
