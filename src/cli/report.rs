//! The command line of `report`.

use super::values::duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Latency logs, of one run or of several: their histograms are added up
    #[arg(required_unless_present = "compare", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Two runs, side by side, with ratios
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["files", "format", "promise"])]
    pub compare: Option<Vec<PathBuf>>,

    /// How to show it
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub format: ReportFormat,

    /// Write to this file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Only these stages; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub stage: Vec<String>,

    /// Leave out what came before, counted from the start of the first log
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub from: Option<Duration>,

    /// Leave out what came then and later
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub to: Option<Duration>,

    /// What `e2e` is judged by
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub promise: Duration,
}

/// A form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For the terminal, with a small chart
    Table,
    /// The percentile distribution as HdrHistogram's tools print it, of one stage
    Hgrm,
    /// For programs
    Json,
    /// A page with charts, in one file
    Html,
    /// The percentile curves as a picture
    Svg,
    /// The same, in pixels
    Png,
}
