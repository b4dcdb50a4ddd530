//! `clickstream report`: latency logs, added up.

use crate::cli::ReportArgs;
use crate::latency_log::{self, Stages};
use crate::table;
use anyhow::Result;

/// Prints the table of percentiles of all files together.
///
/// # Errors
/// When a file is no latency log or holds nothing.
pub fn run(args: &ReportArgs) -> Result<()> {
    let mut sums = Stages::new();
    for path in &args.files {
        if let Some(warning) = latency_log::add(&mut sums, path)? {
            tracing::warn!("{warning}");
        }
    }
    print!("{}", table::render(|stage| sums.get(stage)));
    Ok(())
}
