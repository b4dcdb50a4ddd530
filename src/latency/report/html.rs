//! A run as one self-contained page: it needs no network and no other file, and opens from disk.
//!
//! The texts are in the page itself; uPlot draws the charts from the data beside them.

use super::curve::{STEPS, curve, nines};
use super::escape::escape;
use super::svg::colours;
use super::timeline::{Columns, band_from};
use super::{Measured, Run};
use crate::latency::percentile::supported;
use crate::latency::table::{PERCENTILES, TOO_FEW, promise, short, time};
use crate::numbers::grouped;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Utc};
use flows::Stage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const PAGE: &str = include_str!("page/page.html");
const SCRIPT: &str = include_str!("page/page.js");
const CHARTS: &str = include_str!("page/charts.js");
const STYLE: &str = include_str!("page/page.css");
const UPLOT: &str = include_str!("../../../assets/uplot/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("../../../assets/uplot/uPlot.min.css");
const UPLOT_LICENCE: &str = include_str!("../../../assets/uplot/LICENSE");

/// The page.
pub fn render(run: &Run, promised_ns: u64, remarks: &[String]) -> String {
    let script = format!("/* uPlot 1.6.32\n{UPLOT_LICENCE}*/\n{UPLOT}\n{CHARTS}\n{SCRIPT}");
    let style = format!("{UPLOT_STYLE}\n{STYLE}");
    // Nothing but these very bytes may run, and nothing may be fetched or sent.
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(&script),
        hash(&style)
    );
    let began = DateTime::<Utc>::from_timestamp_millis((run.range.0 * 1e3) as i64).unwrap_or_default();
    let files: Vec<_> = run.files.iter().map(|path| path.display().to_string()).collect();
    let filled = [
        ("{{policy}}", policy.as_str()),
        ("{{style}}", &style),
        ("{{files}}", &escape(&files.join(", "))),
        ("{{began}}", &began.format("%Y-%m-%d %H:%M:%S UTC").to_string()),
        ("{{length}}", &length(run.seconds())),
        ("{{version}}", env!("CARGO_PKG_VERSION")),
        ("{{tiles}}", &tiles(run.headline())),
        ("{{promise}}", &verdict(run, promised_ns)),
        ("{{remarks}}", &list(remarks.iter().chain(&run.warnings))),
        ("{{table}}", &table(run)),
        // `<` could end the element that the data stands in.
        ("{{data}}", &data(run, promised_ns).to_string().replace('<', "\\u003c")),
        ("{{script}}", &script),
    ];
    fill(PAGE, &filled)
}

/// Puts values in the place of their names, each once, so that no value is taken for a name.
fn fill(page: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = page;
    for (name, value) in values {
        let (before, behind) = rest.split_once(name).expect("the page has each name once, in this order");
        out += before;
        out += value;
        rest = behind;
    }
    out + rest
}

fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// `10 min 5 s`
fn length(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match (whole / 3_600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The few numbers that are looked for first.
fn tiles(stage: &Measured) -> String {
    let histogram = &stage.histogram;
    let percentiles = PERCENTILES[..4].iter().map(|&(name, percentile)| (name, supported(histogram, percentile)));
    let mut out = String::new();
    for (name, value) in percentiles.chain([("max", Some(histogram.max()))]) {
        let shown = value.map_or("–".into(), time);
        let _ = write!(out, "<div class=\"tile\"><dt>{} {name}</dt><dd>{shown}</dd></div>", escape(&stage.name));
    }
    let _ = write!(out, "<div class=\"tile\"><dt>events</dt><dd>{}</dd></div>", grouped(histogram.len()));
    out
}

fn verdict(run: &Run, promised_ns: u64) -> String {
    let e2e = run.stage(Stage::EndToEnd.as_str());
    let Some((e2e, line)) = e2e.and_then(|e2e| Some((e2e, promise(&e2e.histogram, promised_ns)?))) else {
        return String::new();
    };
    let (class, said) = if e2e.histogram.max() < promised_ns { ("kept", "Kept") } else { ("broken", "Not kept") };
    format!("<p id=\"promise\" class=\"{class}\"><b>{said}</b> {line}</p>")
}

fn list<'l>(lines: impl Iterator<Item = &'l String>) -> String {
    let items: String = lines.map(|line| format!("<li>{}</li>", escape(line))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"remarks\">{items}</ul>") }
}

/// The numbers of the table in the terminal; each cell has the whole value too, in nanoseconds.
fn table(run: &Run) -> String {
    let mut out =
        String::from("<thead><tr><th scope=\"col\">stage</th><th scope=\"col\">count</th><th scope=\"col\">min</th>");
    for (name, _) in PERCENTILES {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out += "<th scope=\"col\">max</th><th scope=\"col\">mean</th></tr></thead><tbody>";
    let mut missing = false;
    for (nth, stage) in run.stages.iter().enumerate() {
        let histogram = &stage.histogram;
        let name = escape(&stage.name);
        let _ = write!(
            out,
            "<tr data-stage=\"{name}\"><th scope=\"row\"><i class=\"key\" data-nth=\"{nth}\"></i>{name}</th>"
        );
        let _ = write!(out, "<td data-count=\"{0}\">{1}</td>", histogram.len(), grouped(histogram.len()));
        let mut cell = |name: &str, value: Option<u64>| {
            missing |= value.is_none();
            let _ = match value {
                Some(nanos) => write!(out, "<td data-name=\"{name}\" data-ns=\"{nanos}\">{}</td>", time(nanos)),
                None => write!(out, "<td data-name=\"{name}\">–</td>"),
            };
        };
        cell("min", Some(histogram.min()));
        PERCENTILES.iter().for_each(|&(name, percentile)| cell(name, supported(histogram, percentile)));
        cell("max", Some(histogram.max()));
        cell("mean", Some(histogram.mean() as u64));
        out += "</tr>";
    }
    out += "</tbody>";
    if missing {
        let _ = write!(out, "<caption>{TOO_FEW}</caption>");
    }
    out
}

/// The data of the charts.
fn data(run: &Run, promised_ns: u64) -> Value {
    let columns = Columns::of(run);
    let most = run.stages.iter().map(|stage| nines(stage.histogram.len())).fold(1.0, f64::max);
    let axis: Vec<f64> = (0..=(most * STEPS as f64) as usize).map(|step| step as f64 / STEPS as f64).collect();
    let stages: Vec<_> = run
        .stages
        .iter()
        .map(|stage| {
            let (light, dark) = colours(&stage.name);
            let values: Vec<_> = curve(&stage.histogram).into_iter().map(|(_, nanos)| nanos).collect();
            let means: Vec<_> = columns
                .sums(stage)
                .into_iter()
                .map(|(events, sum)| (events > 0).then(|| (sum / events as f64) as u64))
                .collect();
            json!({ "name": stage.name, "light": light, "dark": dark, "curve": values, "means": means })
        })
        .collect();
    let headline = run.headline();
    let cells = columns.cells(headline);
    let top = cells.iter().map(|&(_, band, _)| band).max().unwrap_or(0);
    let events: Vec<_> = columns.sums(headline).into_iter().map(|(events, _)| events).collect();
    json!({
        "promise": run.stage(Stage::EndToEnd.as_str()).map(|_| promised_ns),
        "promised": short(promised_ns),
        "nines": axis,
        "stages": stages,
        "time": { "start": columns.start, "width": columns.width, "number": columns.number },
        "headline": headline.name,
        "events": events,
        "bands": (0..=top + 1).map(band_from).collect::<Vec<_>>(),
        "cells": cells,
    })
}
