//! The laws of the pipelines, on paused time.

mod batching;
mod committing;
mod decoding;
mod diagnoses;
mod doubt;
mod latency;
mod membership;
mod owning;
mod producing;
mod proofs;
mod refusals;
mod starting;
#[path = "../support/mod.rs"]
mod support;
