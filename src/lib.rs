//! `clickstream`: click events from Kafka to ClickHouse, nothing lost, nothing twice.
//!
//! The pipelines are in the crate `flows`; here are the adapters to Kafka and ClickHouse, the command line and the wiring.

#![warn(missing_docs)]
// `println!` panics if its reader is gone: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod bench;
mod check;
pub mod cli;
pub mod clickhouse;
mod connect;
mod dashboard;
mod demo;
mod erase;
mod failpoints;
pub mod ingest;
mod json_line;
pub mod kafka;
mod latency;
mod log_throttle;
mod output;
mod printable;
mod private;
pub mod produce;
mod rejects;
mod secrets;
mod shutdown;
mod stuck;
mod telemetry;

use flows::numbers;
pub use shutdown::Shutdown;
pub use telemetry::Ready;
