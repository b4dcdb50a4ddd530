//! The laws of the pipelines, on paused time.

mod batching;
mod committing;
mod decoding;
mod diagnoses;
mod doubt;
mod latency;
mod producing;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
