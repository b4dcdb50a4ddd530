//! Latencies of events: taken out of a pipeline, logged, and reported.

pub mod log;
pub mod percentile;
mod recorder;
pub mod report;
pub mod table;
mod window;

pub use recorder::Recorder;
pub use window::{Recent, Window};
