//! Latency logs: HdrHistogram interval logs, format V2, one compressed histogram for each stage and interval.
//!
//! Format: HdrHistogram's `HistogramLogWriter` and `HistogramLogReader`
//! (<https://hdrhistogram.github.io/HdrHistogram/>), whose own tools read these files. Each interval is one write of
//! whole lines, so a SIGKILL costs only the last interval. Comments hold values for which those tools have no field;
//! they skip them: the conditions of the run, the values out of range, and the number of batches. Logs of other writers are read, too.

mod decode;
mod encoding;
mod line;
mod old;
mod read;
mod write;

#[cfg(test)]
pub use read::read;
pub use read::{Interval, Reading, Source};
pub use write::{Taken, Writer, create_new};

/// The conditions of a run, such as the settings and the versions of the programs: names and values.
pub type Conditions = Vec<(String, String)>;

/// The condition that has the promise: the time within which an event can be queried.
pub const BATCH_TIMEOUT: &str = "batch-timeout";

#[cfg(test)]
mod foreign;
#[cfg(test)]
mod tests;
