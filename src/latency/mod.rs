//! Latencies of events: taken out of a pipeline, logged, and reported.

pub mod conditions;
pub mod log;
pub mod percentile;
pub mod promise;
mod recorder;
pub mod report;
pub mod table;
mod window;

pub use recorder::Recorder;
pub use window::{Recent, Window};
