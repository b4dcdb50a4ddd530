//! A run as one self-contained page: it needs no network and no other file, and opens from disk.
//!
//! The texts are in the page itself; uPlot draws the charts from the data beside them.

use super::curve::{STEPS, curve, nines};
use super::escape::escape;
use super::stack::Stack;
use super::svg::colours;
use super::timeline::{Columns, band_from};
use super::{Measured, Run, text};
use crate::latency::table::{Row, TOO_FEW, batches, columns, short, time};
use crate::numbers::grouped;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flows::Stage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const PAGE: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");
const CURVES: &str = include_str!("page/curves.js");
const CHARTS: &str = include_str!("page/charts.js");
const STYLE: &str = include_str!("page/page.css");
const UPLOT: &str = include_str!("../../../assets/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../../assets/uplot/uPlot.min.css");
const UPLOT_LICENCE: &str = include_str!("../../../assets/uplot/LICENSE");

/// The page.
pub fn render(run: &Run, promised_ns: u64, remarks: &[String], linear: bool) -> String {
    let rows: Vec<_> = run.stages.iter().map(|stage| (stage.name.clone(), colours(&stage.name), stage.row())).collect();
    let all: Vec<_> = run.stages.iter().map(|stage| (stage.name.as_str(), stage.row())).collect();
    let (verdict, remarks) = (verdict(run, promised_ns), list(remarks.iter().chain(&run.warnings)));
    // A backlog begins with its rate and its bottleneck, as in the text.
    let conclusions = if run.is_backlog() { remarks + &verdict } else { verdict + &remarks };
    assemble(
        PAGE,
        SCRIPT,
        &data(run, promised_ns, linear),
        &[
            ("files", &escape(&names(run))),
            ("began", &text::began(run)),
            ("throughput", &run.throughput().to_string()),
            ("conditions", &conditions(&text::conditions(run))),
            ("tiles", &if run.is_backlog() { backlog_tiles(run) } else { tiles(run.headline()) }),
            ("conclusions", &conclusions),
            ("table", &table(&rows, batches(&all))),
        ],
    )
}

/// A page out of its template: with its values, the common style, and the scripts.
pub fn assemble(page: &str, script: &str, data: &Value, values: &[(&str, &str)]) -> String {
    let script = format!("/* uPlot 1.6.32\n{UPLOT_LICENCE}*/\n{UPLOT}\n{CHARTS}\n{CURVES}\n{script}");
    let style = format!("{UPLOT_STYLE}\n{STYLE}");
    // Nothing but these very bytes may run, and nothing may be fetched or sent.
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(&script),
        hash(&style)
    );
    // `<` could end the element that the data stands in.
    let data = data.to_string().replace('<', "\\u003c");
    let common = [
        ("policy", policy.as_str()),
        ("style", &style),
        ("version", env!("CARGO_PKG_VERSION")),
        ("data", &data),
        ("script", &script),
    ];
    fill(page, &[&common, values].concat())
}

/// Puts values in the place of their names, so that no value is taken for a name.
fn fill(page: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, behind) = behind.split_once("}}").expect("a name ends");
        let (_, value) = values.iter().find(|(known, _)| *known == name).expect("each name has a value");
        out += before;
        out += value;
        rest = behind;
    }
    out + rest
}

fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// The names of the files of a run.
pub fn names(run: &Run) -> String {
    run.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The conditions of each log, under its name.
pub fn conditions(logs: &[(String, String)]) -> String {
    let item = |(name, said): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(said));
    let items: String = logs.iter().map(item).collect();
    if items.is_empty() { items } else { format!("<dl class=\"conditions\">{items}</dl>") }
}

fn tile(out: &mut String, name: &str, shown: &str) {
    let _ = write!(out, "<div class=\"tile\"><dt>{}</dt><dd>{shown}</dd></div>", escape(name));
}

/// The few numbers that are looked for first.
fn tiles(stage: &Measured) -> String {
    let mut out = String::new();
    for column in ["p50", "p90", "p99", "p99.9", "max"] {
        let shown = stage.row().value(column).map_or("–".into(), time);
        tile(&mut out, &format!("{} {column}", stage.name), &shown);
    }
    tile(&mut out, "events", &grouped(stage.histogram.len()));
    out
}

/// Those of a backlog: how fast it was ingested, and what that took.
fn backlog_tiles(run: &Run) -> String {
    let mut out = String::new();
    tile(&mut out, "events/s", &run.drain().rate_shown());
    for stage in [Stage::Batch, Stage::Insert, Stage::Commit] {
        let mean = run.mean(stage).map(|mean| mean as u64);
        tile(&mut out, &format!("{} mean", stage.as_str()), &mean.map_or("–".into(), time));
    }
    tile(&mut out, "backlog", &grouped(run.backlog));
    tile(&mut out, "events", &grouped(run.throughput().events));
    out
}

/// How the promise was kept.
pub fn verdict(run: &Run, promised_ns: u64) -> String {
    let Some(judged) = run.verdict(promised_ns) else { return String::new() };
    let (class, said) = match (judged.of, judged.is_kept()) {
        (0, _) => ("open", "Backlog"),
        (_, true) => ("kept", "Kept"),
        (_, false) => ("broken", "Not kept"),
    };
    format!("<p class=\"promise {class}\"><b>{said}</b> {}</p>", judged.line())
}

/// A list of remarks.
pub fn list<'l>(lines: impl Iterator<Item = &'l String>) -> String {
    let items: String = lines.map(|line| format!("<li>{}</li>", escape(line))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"remarks\">{items}</ul>") }
}

/// The numbers of the table in the terminal; each cell has the whole value too, in nanoseconds. A row has a name, a colour, and its
/// statistics.
pub fn table(rows: &[(String, (&str, &str), Row<'_>)], batches: Option<String>) -> String {
    let mut out = String::from("<thead><tr><th scope=\"col\">stage</th><th scope=\"col\">count</th>");
    columns(usize::MAX).for_each(|name| out += &format!("<th scope=\"col\">{name}</th>"));
    out += "</tr></thead><tbody>";
    let mut missing = false;
    for (name, (light, dark), row) in rows {
        let (name, count) = (escape(name), row.histogram.len());
        let _ = write!(
            out,
            "<tr data-stage=\"{name}\"><th scope=\"row\"><i class=\"key\" data-light=\"{light}\" data-dark=\"{dark}\"></i>{name}</th>\
             <td data-name=\"count\" data-count=\"{count}\">{}</td>",
            grouped(count)
        );
        for column in columns(usize::MAX) {
            let value = row.value(column);
            missing |= value.is_none();
            let exact = value.map_or(String::new(), |nanos| format!(" data-ns=\"{nanos}\""));
            let _ = write!(out, "<td data-name=\"{column}\"{exact}>{}</td>", value.map_or("–".into(), time));
        }
        out += "</tr>";
    }
    out += "</tbody>";
    let notes: Vec<_> = missing.then(|| TOO_FEW.to_owned()).into_iter().chain(batches).collect();
    if !notes.is_empty() {
        let _ = write!(out, "<caption>{}</caption>", escape(&notes.join(". ")));
    }
    out
}

/// The percentile axis that has room for all of these stages.
pub fn axis<'s>(stages: impl Iterator<Item = &'s Measured>) -> Vec<f64> {
    let most = stages.map(|stage| nines(stage.samples)).fold(1.0, f64::max);
    (0..=(most * STEPS as f64) as usize).map(|step| step as f64 / STEPS as f64).collect()
}

/// The data of a stage's curve.
pub fn line(stage: &Measured, name: &str) -> Value {
    let (light, dark) = colours(&stage.name);
    let values: Vec<_> = curve(stage).into_iter().map(|(_, nanos)| nanos).collect();
    json!({ "name": name, "light": light, "dark": dark, "curve": values, "strong": stage.name == Stage::EndToEnd.as_str() })
}

/// The data of the charts.
fn data(run: &Run, promised_ns: u64, linear: bool) -> Value {
    let columns = Columns::of(run);
    let headline = run.headline();
    let cells = columns.cells(headline);
    let top = cells.iter().map(|&(_, band, _)| band).max().unwrap_or(0);
    let events: Vec<_> = columns.sums(run.whole()).into_iter().map(|(events, _)| events).collect();
    json!({
        "promise": run.verdict(promised_ns).map(|_| promised_ns),
        "promised": short(promised_ns),
        "linear": linear,
        "nines": axis(run.stages.iter()),
        "stages": run.stages.iter().map(|stage| line(stage, &stage.name)).collect::<Vec<_>>(),
        "time": { "start": columns.start, "width": columns.width, "number": columns.number },
        "headline": headline.name,
        "rate": run.throughput().rate_shown(),
        "events": events,
        "bands": (0..=top + 1).map(band_from).collect::<Vec<_>>(),
        "cells": cells,
        "stack": stack(run, &columns),
        "beside": run.stage(Stage::Commit.as_str()).filter(|_| run.stages.len() > 1).map(|commit| beside(commit, &columns)),
    })
}

/// The parts that add up, in whole nanoseconds.
fn stack(run: &Run, columns: &Columns) -> Value {
    let stack = Stack::of(run, columns);
    let parts = stack.parts.iter().enumerate().map(|(nth, &(label, stage))| {
        let (light, dark) = colours(stage);
        let means: Vec<_> =
            stack.columns.iter().map(|column| column.as_ref().map(|means| means[nth].round())).collect();
        json!({ "name": label, "light": light, "dark": dark, "mean": stack.means[nth].round(), "means": means })
    });
    parts.collect()
}

/// A stage that is no part of the sum.
fn beside(stage: &Measured, columns: &Columns) -> Value {
    let (light, dark) = colours(&stage.name);
    let mean = |(events, sum): (u64, f64)| (events > 0).then(|| (sum / events as f64).round());
    let means: Vec<_> = columns.sums(stage).into_iter().map(mean).collect();
    json!({ "name": stage.name, "light": light, "dark": dark, "mean": stage.histogram.mean().round(), "means": means })
}

#[cfg(test)]
mod tests {
    use super::super::stack::tests::run_of;
    use super::*;
    use crate::latency::table;

    /// The text of a page, without its elements.
    fn cells(html: &str) -> Vec<String> {
        let rows = html.split("<tr data-stage").skip(1).map(|row| row.split("</tr>").next().unwrap());
        let text = |row: &str| {
            let shown = row.split('>').skip(1).map(|part| part.split('<').next().unwrap());
            shown.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        rows.map(text).collect()
    }

    #[test]
    fn the_numbers_of_the_page_are_those_of_the_table() {
        let stages = [Stage::Slip, Stage::Transit, Stage::Batch, Stage::Insert, Stage::Commit, Stage::EndToEnd];
        let recorded: Vec<_> =
            (0..4).flat_map(|second| stages.map(|stage| (second, stage, 7 * (second as i64 + 1), 3_000))).collect();
        let mut run = run_of(&recorded);
        for stage in run.stages.iter_mut().filter(|stage| stage.name == "insert") {
            stage.samples = 16;
        }
        let page = render(&run, 5_000_000_000, &[], false);
        let table = table::table(&run.rows(), usize::MAX);
        let lines: Vec<_> = table
            .lines()
            .skip(1)
            .take(stages.len())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(cells(&page), lines);
        assert!(page.contains("insert: 16 batches") && table.contains("insert: 16 batches"), "{table}");
        assert!(page.contains("12,000 events in 4.0 s, 3,000 events/s"));
        assert!(page.contains("<p class=\"promise kept\"><b>Kept</b> e2e below 5 s: 100 % of 12,000</p>"));
    }

    #[test]
    fn no_value_is_taken_for_a_name() {
        assert_eq!(fill("{{a}}, {{b}} and {{a}}", &[("b", "2"), ("a", "{{b}}")]), "{{b}}, 2 and {{b}}");
    }
}
