//! `clickstream`: click events from Kafka to ClickHouse, nothing lost, nothing twice.
//!
//! The pipelines are in the crate `flows`; here are the adapters to Kafka and ClickHouse, the command line and the wiring.

#![warn(missing_docs)]
// `println!` panics if its reader is gone: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
pub mod cli;
pub mod clickhouse;
mod commands;
mod connect;
mod dashboard;
mod demo;
mod failpoints;
mod http;
pub mod ingest;
pub mod kafka;
mod latency_log;
mod log;
mod log_throttle;
mod manifest;
mod metrics;
mod output;
mod percentile;
mod printable;
mod private;
pub mod produce;
mod rejections;
mod report;
mod secrets;
mod shutdown;
mod status;
mod stuck;
mod table;

pub use metrics::Ready;
pub use shutdown::Shutdown;
