//! What the tests against real services stand on.

// Each test target uses its own part of this.
#![allow(dead_code)]

pub mod acl;
pub mod browser;
pub mod clickhouse;
pub mod demo;
pub mod door;
pub mod eviction;
pub mod java;
pub mod kafka;
pub mod manifest;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod sampler;
pub mod secured;
pub mod stack;
pub mod test_env;
pub mod wire;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything may take that has no deadline by law: generous, since the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The shortest session that Kafka's brokers allow: a dead or frozen member is out of its group after that.
pub const SHORT_SESSION: [&str; 2] = ["--kafka", "session.timeout.ms=6000"];

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks until it is `Ok`, and returns that.
///
/// # Panics
/// When it is not `within` this time, naming `what` was waited for and what was seen last.
#[track_caller]
pub fn eventually<T, S: Debug>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "not within {within:?}: {what}; last seen: {seen:?}"),
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether it is so, for [`eventually`], with what was seen.
pub fn is<S>(so: bool, seen: S) -> Result<(), S> {
    if so { Ok(()) } else { Err(seen) }
}
