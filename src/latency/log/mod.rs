//! Latency logs: HdrHistogram interval logs, format V2, one compressed histogram for each stage and interval.
//!
//! Format: HdrHistogram's `HistogramLogWriter` and `HistogramLogReader`
//! (<https://hdrhistogram.github.io/HdrHistogram/>), whose own tools read these files. Each interval is one write of
//! whole lines, so a SIGKILL costs only the last interval. Comments hold values for which those tools have no field;
//! they skip them. Logs of other writers are read, too.

mod decode;
mod encoding;
mod line;
mod old;
mod read;
mod write;

pub use read::{Interval, read};
pub use write::{Taken, Writer, create_new};

#[cfg(test)]
mod foreign;
#[cfg(test)]
mod tests;
