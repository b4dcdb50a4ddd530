//! `clickstream report`: latency logs, added up.

use crate::cli::ReportArgs;
use crate::{latency_log, table};
use anyhow::Result;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Prints the table of percentiles of all files together.
///
/// # Errors
/// When a file is no latency log or holds nothing.
pub fn run(args: &ReportArgs) -> Result<()> {
    let mut sums: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    for path in &args.files {
        let (stages, warning) = latency_log::read(path)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        for (name, histogram) in stages {
            match sums.get_mut(&name) {
                Some(sum) => *sum += histogram,
                None => {
                    sums.insert(name, histogram);
                }
            }
        }
    }
    print!("{}", table::render(|stage| sums.get(stage)));
    Ok(())
}
