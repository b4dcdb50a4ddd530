//! `clickstream report`: latency logs, added up and shown.

use super::values::{duration, percent, some_time};
use crate::latency::promise::{Judged, PROMISE_NS, nanos};
use crate::latency::report::{Run, Window, compare, hgrm, html, json, png, remarks, svg, text};
use crate::latency::table::{short, width};
use crate::{output, private};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Latency logs of one or several processes: their histograms are added up. A directory stands for its logs, `-` for
    /// standard input
    #[arg(required_unless_present = "compare", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Compare two runs side by side, with ratios; as a table, or with `--format html` as a page
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["files", "require"])]
    pub compare: Option<Vec<PathBuf>>,

    /// The format of the report [default: by the name of the --output file, else table]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

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

    /// The limit for `e2e` [default: the --batch-timeout of the run, which its log names, else 5s]
    #[arg(long, value_parser = some_time, value_name = "TIME")]
    pub promise: Option<Duration>,

    /// Fail, with exit code 1, if a smaller share of the events than this was within the promise
    #[arg(long, value_parser = percent, value_name = "PERCENT")]
    pub require: Option<f64>,

    /// Draw latencies on a linear axis, not a logarithmic one
    #[arg(long)]
    pub linear: bool,
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

impl Format {
    /// The format that a file of this name is expected to have; none for a name without an ending.
    fn of(path: &Path) -> Result<Option<Self>> {
        let Some(ending) = path.extension() else { return Ok(None) };
        let ending = ending.to_string_lossy().to_ascii_lowercase();
        if matches!(ending.as_str(), "txt" | "htm") {
            return Ok(Some(if ending == "htm" { Self::Html } else { Self::Table }));
        }
        let format = Self::value_variants().iter().find(|format| format.name() == ending);
        let unknown = || {
            format!(
                "--output {}: no format has the ending .{ending}, and nothing was written: use .txt, .html, .svg, .png, .json or .hgrm, \
                 or set --format",
                path.display()
            )
        };
        format.copied().map(Some).with_context(unknown)
    }

    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

impl ReportArgs {
    /// The format that was asked for, by its name or by that of the file.
    fn format(&self) -> Result<Format> {
        let named = self.output.as_deref().map_or(Ok(None), Format::of);
        match (self.format, named) {
            (Some(format), Ok(Some(other))) if format != other => bail!(
                "--format {} and --output {} contradict each other, and nothing was written: leave out --format, or give the file another \
                 name",
                format.name(),
                self.output.as_deref().unwrap_or(Path::new("")).display()
            ),
            (Some(format), _) => Ok(format),
            (None, named) => Ok(named?.unwrap_or(Format::Table)),
        }
    }

    /// The promise to judge by, and a remark if the logs have several.
    fn promised(&self, runs: &[&Run]) -> (u64, Option<String>) {
        let mut configured: Vec<_> = runs.iter().flat_map(|run| run.promises()).collect();
        configured.sort_unstable();
        configured.dedup();
        match (self.promise, &configured[..]) {
            (Some(promise), _) => (nanos(promise), None),
            (None, []) => (PROMISE_NS, None),
            (None, &[promise]) => (nanos(promise), None),
            (None, &[.., longest]) => {
                let all: Vec<_> = configured.iter().map(|&promise| short(nanos(promise))).collect();
                let said = format!(
                    "the logs were written under different promises (--batch-timeout {}): the longest is judged; --promise sets another",
                    all.join(", ")
                );
                (nanos(longest), Some(said))
            }
        }
    }

    fn read(&self, files: &[PathBuf]) -> Result<Run> {
        let mut run = Run::read(files, Window { from: self.from, to: self.to })?;
        run.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        run.keep(&self.stage).map(|()| run)
    }
}

/// Shows the sum of all files, or two of them side by side.
///
/// # Errors
/// When a file is not a latency log or is empty, a stage is missing, the output cannot be written, or a required promise was not
/// kept.
pub fn run(args: &ReportArgs) -> Result<()> {
    let (format, output) = (args.format()?, args.output.as_deref());
    output.map(check_output).transpose()?;
    if let Some([a, b]) = args.compare.as_deref() {
        return compare(args, format, [a, b]);
    }
    let run = args.read(&args.files)?;
    let (promised_ns, several) = args.promised(&[&run]);
    // There are no remarks on hidden stages; but other stages explain the shape of a shown one.
    let remarks: Vec<_> = remarks(&run).into_iter().chain(several).collect();
    let width = if output.is_some() { usize::MAX } else { width() };
    let text = match format {
        Format::Table => text::render(&run, promised_ns, &remarks, width),
        Format::Hgrm => hgrm::render(&run),
        Format::Json => json::render(&run, promised_ns, &remarks),
        Format::Html => html::render(&run, promised_ns, &remarks, args.linear),
        Format::Svg => svg::render(&run, promised_ns, args.linear),
        Format::Png if output.is_none() && std::io::stdout().is_terminal() => {
            bail!("--format png is not text: write it to a file with --output FILE")
        }
        Format::Png => {
            write(output, &png::render(&svg::render(&run, promised_ns, args.linear))?)?;
            return require(args, run.judged(promised_ns));
        }
    };
    write(output, text.as_bytes())?;
    require(args, run.judged(promised_ns))
}

/// Two runs side by side.
fn compare(args: &ReportArgs, format: Format, [a, b]: [&PathBuf; 2]) -> Result<()> {
    let [a, b] = [args.read(std::slice::from_ref(a))?, args.read(std::slice::from_ref(b))?];
    let (promised_ns, several) = args.promised(&[&a, &b]);
    let wide = if args.output.is_some() { usize::MAX } else { width() };
    let text = match format {
        Format::Table => compare::render(&a, &b, promised_ns, several.as_deref(), wide),
        Format::Html => compare::page(&a, &b, promised_ns, several.as_deref(), args.linear),
        _ => bail!("--compare has the formats table and html"),
    };
    write(args.output.as_deref(), text.as_bytes())
}

/// Fails if a smaller share of the events was within the promise than is required.
fn require(args: &ReportArgs, judged: Option<Judged>) -> Result<()> {
    let Some(required) = args.require else { return Ok(()) };
    let Some(judged) = judged else {
        bail!("--require {required}: the logs have no `e2e`, so the promise cannot be judged")
    };
    match judged.percent() {
        // In whole events: no share is rounded up.
        Some(_) if judged.kept as f64 >= judged.of as f64 * required / 100.0 => Ok(()),
        _ => bail!("the promise was not kept, --require {required}: {}", judged.line()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ReportArgs,
    }

    fn args(line: &str) -> ReportArgs {
        Cli::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn the_name_of_the_file_says_the_format_and_a_contradiction_is_refused() {
        let format = |line| args(line).format();
        assert_eq!(format("report log").unwrap(), Format::Table);
        assert_eq!(format("report log -o x.html").unwrap(), Format::Html);
        assert_eq!(format("report log -o x.SVG").unwrap(), Format::Svg);
        assert_eq!(format("report log -o x.htm").unwrap(), Format::Html);
        assert_eq!(format("report log -o x.txt").unwrap(), Format::Table);
        assert_eq!(format("report log -o x").unwrap(), Format::Table);
        assert_eq!(format("report log -o x.dat --format json").unwrap(), Format::Json);
        assert_eq!(format("report log -o x.json --format json").unwrap(), Format::Json);
        let said = |line| format(line).unwrap_err().to_string();
        assert_eq!(
            said("report log -o x.html --format svg"),
            "--format svg and --output x.html contradict each other, and nothing was written: leave out --format, or give the file another \
             name"
        );
        assert_eq!(
            said("report log -o x.unknown"),
            "--output x.unknown: no format has the ending .unknown, and nothing was written: use .txt, .html, .svg, .png, .json or .hgrm, \
             or set --format"
        );
    }

    #[test]
    fn a_required_share_is_met_in_whole_events() {
        let judged = |kept, of| Some(Judged { below_ns: 5_000_000_000, kept, of, backlog: 0 });
        let require = |line, judged| require(&args(line), judged).map_err(|error| error.to_string());
        assert!(require("report log", judged(0, 10)).is_ok(), "nothing is required");
        assert!(require("report log --require 99.9", judged(999, 1_000)).is_ok());
        assert_eq!(
            require("report log --require 99.9", judged(998, 1_000)).unwrap_err(),
            "the promise was not kept, --require 99.9: e2e below 5 s: 99.80 % of 1,000"
        );
        assert!(require("report log --require 100", judged(9_999_999, 10_000_000)).is_err());
        assert!(require("report log --require 1", judged(0, 0)).unwrap_err().contains("not judged"));
        assert!(require("report log --require 1", None).unwrap_err().contains("no `e2e`"));
    }

    #[test]
    fn the_promise_is_the_one_of_the_run() {
        let run = |timeouts: &[&str]| {
            let conditions = |timeout: &&str| ("log".into(), vec![("batch-timeout".to_owned(), (*timeout).to_owned())]);
            Run { conditions: timeouts.iter().map(conditions).collect(), ..Run::default() }
        };
        let promised = |line, timeouts| args(line).promised(&[&run(timeouts)]);
        assert_eq!(promised("report log", &[]), (5_000_000_000, None));
        assert_eq!(promised("report log", &["200ms", "200ms"]), (200_000_000, None));
        assert_eq!(promised("report log --promise 1s", &["200ms"]), (1_000_000_000, None));
        let (longest, said) = promised("report log", &["2s", "200ms"]);
        assert_eq!(longest, 2_000_000_000);
        assert!(said.unwrap().contains("(--batch-timeout 200 ms, 2 s): the longest is judged"));
    }
}
