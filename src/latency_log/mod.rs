//! Latency logs: HdrHistogram interval logs, format V2, one compressed histogram for each stage and interval.
//!
//! Format: HdrHistogram's `HistogramLogWriter` and `HistogramLogReader` (<https://hdrhistogram.github.io/HdrHistogram/>),
//! whose own tools read these files. An interval is written at once and its lines are whole: after a SIGKILL all but the last
//! interval is there. What those tools have no field for stands in comments, which they skip. Logs of other writers are read too.

mod decode;
mod line;
mod old;
mod read;
mod recorder;
mod write;

pub use read::{Interval, read};
pub use recorder::Recorder;

#[cfg(test)]
mod foreign;
#[cfg(test)]
mod tests;
