//! The harness of all tests against real services.

// Each test target uses its own part of this.
#![allow(dead_code)]

pub mod acl;
pub mod browser;
pub mod clickhouse;
pub mod demo;
pub mod eviction;
pub mod java;
pub mod kafka;
pub mod listener;
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

/// The deadline of every condition without one of its own: generous, since the machine may be busy with other tests.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

/// The shortest session that Kafka's brokers allow: a dead or frozen member is out of its group after that.
pub const SHORT_SESSION: [&str; 2] = ["--kafka", "session.timeout.ms=6000"];

/// The time between two looks at a condition: short beside all deadlines, and cheap.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Calls `look` until it is `Ok`, and returns that.
///
/// # Panics
/// When it is not `Ok` `within` this time. The message has the condition `what`, and the last value seen.
#[track_caller]
pub fn eventually<T, S: Debug>(within: Duration, what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "not within {within:?}: {what}; last seen: {seen:?}"),
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The condition `so` for [`eventually`], with the value seen.
pub fn is<S>(so: bool, seen: S) -> Result<(), S> {
    if so { Ok(()) } else { Err(seen) }
}
