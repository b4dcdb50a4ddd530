//! Two runs, side by side: each stage with both and how many times as long the second took.

use super::svg::colours;
use super::{Measured, Run, html, text};
use crate::latency::table::{TOO_FEW, batches, columns, prose, short, time};
use crate::numbers::grouped;
use flows::Stage;
use serde_json::json;
use std::fmt::Write;

const PAGE: &str = include_str!("page/compare.html");
const SCRIPT: &str = include_str!("page/compare.js");

/// A line for each number of each stage that both runs have, not wider than this.
pub fn render(a: &Run, b: &Run, promised_ns: u64, remark: Option<&str>, width: usize) -> String {
    let mut out = String::new();
    for (run, name) in [(a, 'A'), (b, 'B')] {
        out += &prose(&format!("{name}: {}", html::names(run)), width);
        let conditions = text::conditions(run).into_iter().map(|(_, conditions)| conditions);
        let judged = run.verdict(promised_ns).map(|judged| judged.line());
        let facts = conditions.chain([format!("{}: {}", text::began(run), run.throughput())]);
        for fact in facts.chain(drained(run)).chain(judged) {
            prose(&fact, width.saturating_sub(3)).lines().for_each(|line| out += &format!("   {line}\n"));
        }
    }
    remark.into_iter().for_each(|remark| out += &prose(remark, width));
    let _ = writeln!(out, "\n{:<8} {:<7} {:>11} {:>11} {:>8}", "stage", "", "A", "B", "B / A");
    let table = out.len();
    let both = shared(a, b);
    both.iter().for_each(|[a, b]| compare(&mut out, a, b));
    let rows: Vec<_> = both
        .iter()
        .flat_map(|[a, b]| [(a, 'A'), (b, 'B')])
        .map(|(stage, name)| (label(stage, name), stage.row()))
        .collect();
    let rows: Vec<_> = rows.iter().map(|(name, row)| (name.as_str(), *row)).collect();
    lonely(a, b).into_iter().chain(batches(&rows)).for_each(|line| out += &prose(&line, width));
    if out[table..].contains('–') {
        out += &prose(TOO_FEW, width);
    }
    out
}

/// The name of a stage of one of the runs.
fn label(stage: &Measured, run: char) -> String {
    format!("{} {run}", stage.name)
}

/// How fast the backlog of a start was ingested.
fn drained(run: &Run) -> Option<String> {
    (run.backlog > 0).then(|| format!("backlog: {}", run.drain()))
}

/// The stages that both have: the whole way first, then in the order of an event's way.
fn shared<'r>(a: &'r Run, b: &'r Run) -> Vec<[&'r Measured; 2]> {
    let mut both: Vec<_> = a.stages.iter().filter_map(|stage| Some([stage, b.stage(&stage.name)?])).collect();
    // Backlogs first, if one of them is about one.
    let headline = if b.is_backlog() { b.headline() } else { a.headline() };
    both.sort_by_key(|[stage, _]| (stage.name != headline.name, stage.name != Stage::EndToEnd.as_str()));
    both
}

/// The stages that only one of the runs has.
fn lonely(a: &Run, b: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for (run, other, name) in [(a, b, 'A'), (b, a, 'B')] {
        let lonely = run.stages.iter().filter(|stage| other.stage(&stage.name).is_none());
        lines.extend(lonely.map(|stage| format!("{}: only in {name}", stage.name)));
    }
    lines
}

fn ratio(a: u64, b: u64) -> String {
    format!("{:.2}", b as f64 / a.max(1) as f64)
}

fn compare(out: &mut String, a: &Measured, b: &Measured) {
    let (a_events, b_events) = (a.histogram.len(), b.histogram.len());
    let _ = writeln!(
        out,
        "{:<8} {:<7} {:>11} {:>11} {:>8}",
        a.name,
        "count",
        grouped(a_events),
        grouped(b_events),
        ratio(a_events, b_events)
    );
    for name in columns(usize::MAX) {
        let [a, b] = [a, b].map(|stage| stage.row().value(name));
        let ratio = a.zip(b).map_or("–".into(), |(a, b)| ratio(a, b));
        let shown = |value: Option<u64>| value.map_or("–".into(), time);
        let _ = writeln!(out, "{:<8} {name:<7} {:>11} {:>11} {ratio:>8}", "", shown(a), shown(b));
    }
}

/// A page with the curves of both in one chart, and both in one table.
pub fn page(a: &Run, b: &Run, promised_ns: u64, remark: Option<&str>, linear: bool) -> String {
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (nth, pair) in shared(a, b).into_iter().enumerate() {
        for (stage, name) in pair.into_iter().zip(['A', 'B']) {
            let mut line = html::line(stage, &label(stage, name));
            line["dashed"] = json!(name == 'B');
            // The others can be added by a click.
            line["shown"] = json!(nth == 0);
            lines.push(line);
            rows.push((label(stage, name), colours(&stage.name), stage.row()));
        }
    }
    let all: Vec<_> = rows.iter().map(|(name, _, row)| (name.as_str(), *row)).collect();
    let table = html::table(&rows, batches(&all));
    let data = json!({
        "promise": promised_ns,
        "promised": short(promised_ns),
        "linear": linear,
        "nines": html::axis(a.stages.iter().chain(&b.stages)),
        "stages": lines,
    });
    let remarks: Vec<_> = remark.map(str::to_owned).into_iter().chain(lonely(a, b)).collect();
    let about = |run: &Run, name: char| {
        let logs = text::conditions(run);
        format!(
            "<section><h2>{name}: {}</h2><p class=\"facts\"><span>{}</span> <span>{}</span> <span>{}</span></p>{}{}</section>",
            super::escape::escape(&html::names(run)),
            text::began(run),
            run.throughput(),
            drained(run).unwrap_or_default(),
            html::conditions(&logs),
            html::verdict(run, promised_ns)
        )
    };
    html::assemble(
        PAGE,
        SCRIPT,
        &data,
        &[
            ("a", &about(a, 'A')),
            ("b", &about(b, 'B')),
            ("remarks", &html::list(remarks.iter())),
            ("table", &with_ratios(&table, a, b)),
        ],
    )
}

/// The table with a row of ratios behind each pair of rows.
fn with_ratios(table: &str, a: &Run, b: &Run) -> String {
    let mut out = table.to_owned();
    for [stage, other] in shared(a, b) {
        let name = super::escape::escape(&stage.name);
        let count = ratio(stage.histogram.len(), other.histogram.len());
        let mut row = format!(
            "<tr class=\"ratio\" data-ratio=\"{name}\"><th scope=\"row\">B / A</th><td data-name=\"count\">{count}</td>"
        );
        for column in columns(usize::MAX) {
            let values = stage.row().value(column).zip(other.row().value(column));
            let shown = values.map_or("–".into(), |(a, b)| ratio(a, b));
            let _ = write!(row, "<td data-name=\"{column}\">{shown}</td>");
        }
        row += "</tr>";
        let pair = out.find(&format!("<tr data-stage=\"{name} B\">")).expect("a row of each stage that both have");
        let end = pair + out[pair..].find("</tr>").expect("a row ends") + "</tr>".len();
        out.insert_str(end, &row);
    }
    out
}
