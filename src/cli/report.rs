//! `clickstream report`: latency logs, added up and shown.

use super::values::duration;
use crate::latency::report::{Run, Window, chart, compare, hgrm, html, json, png, remarks, svg};
use crate::latency::table;
use crate::{output, private};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Latency logs of one or several processes: their histograms are added up
    #[arg(required_unless_present = "compare", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Compare two runs side by side, with ratios
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["files", "format", "promise"])]
    pub compare: Option<Vec<PathBuf>>,

    /// The format of the report
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,

    /// Write the report to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Report only these stages; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub stage: Vec<String>,

    /// Leave out earlier intervals, counted from the start of the first log
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub from: Option<Duration>,

    /// Leave out intervals from this time on
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub to: Option<Duration>,

    /// The limit for `e2e`
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub promise: Duration,
}

/// A form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for the terminal, with a small chart
    Table,
    /// The percentile distribution of one stage, as HdrHistogram's tools print it
    Hgrm,
    /// JSON, for programs
    Json,
    /// A page with charts, in one file
    Html,
    /// The percentile curves as a picture
    Svg,
    /// The percentile curves as a bitmap
    Png,
}

/// Shows the sum of all files, or two of them side by side.
///
/// # Errors
/// When a file is not a latency log or is empty, a stage is missing, or the output cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let window = Window { from: args.from, to: args.to };
    let read = |files: &[_]| {
        let mut run = Run::read(files, window)?;
        run.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        run.keep(&args.stage).map(|()| run)
    };
    let output = args.output.as_deref();
    output.map(check_output).transpose()?;
    if let Some([a, b]) = args.compare.as_deref() {
        let runs = [read(std::slice::from_ref(a))?, read(std::slice::from_ref(b))?];
        return write(output, compare::render(&runs[0], &runs[1]).as_bytes());
    }
    let run = read(&args.files)?;
    let promised_ns = u64::try_from(args.promise.as_nanos()).unwrap_or(u64::MAX);
    // There are no remarks on hidden stages; but other stages explain the shape of a shown one.
    let remarks = remarks(&run);
    let text = match args.format {
        Format::Table => shown(&run, promised_ns, &remarks),
        Format::Hgrm => hgrm::render(&run),
        Format::Json => json::render(&run, promised_ns, &remarks),
        Format::Html => html::render(&run, promised_ns, &remarks),
        Format::Svg => svg::render(&run, promised_ns),
        Format::Png if output.is_none() && std::io::stdout().is_terminal() => {
            bail!("--format png is not text: write it to a file with --output FILE")
        }
        Format::Png => return write(output, &png::render(&svg::render(&run, promised_ns))?),
    };
    write(output, text.as_bytes())
}

fn shown(run: &Run, promised_ns: u64, remarks: &[String]) -> String {
    let e2e = run.stage(flows::Stage::EndToEnd.as_str());
    let promise = e2e.and_then(|e2e| table::promise(&e2e.histogram, promised_ns));
    let lines: String = promise.iter().chain(remarks).map(|line| format!("{line}\n")).collect();
    table::table(&run.rows()) + &chart::render(run) + &lines
}

fn write(output: Option<&Path>, bytes: &[u8]) -> Result<()> {
    match output {
        Some(path) => private::replace(path)
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| format!("cannot write --output {}", path.display())),
        None => output::bytes(bytes),
    }
}

/// Checks that a file can be written, before logs are read for it, and does not change it.
fn check_output(path: &Path) -> Result<()> {
    let checked = private::check(path).and_then(|()| match std::fs::metadata(path) {
        // Opening a pipe or a device has effects, so it is opened once.
        Ok(about) if !about.is_file() && !about.is_dir() => Ok(()),
        Ok(_) => OpenOptions::new().append(true).open(path).map(drop),
        Err(_) => File::create_new(path).and_then(|_| std::fs::remove_file(path)),
    });
    checked.with_context(|| format!("cannot write --output {}", path.display()))
}
