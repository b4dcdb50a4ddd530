//! Brokers that hang: connected, and silent for longer than an answer takes. librdkafka reports that only after a minute.

use super::statistics::{Broker, Statistics};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Fetches, heartbeats and messages are answered within a second; a fetch, if nothing comes, after `fetch.wait.max.ms`.
const HANG_TIMEOUT: Duration = Duration::from_secs(5);

/// The brokers that have not answered a client's request.
pub struct Hanging {
    patience: Duration,
    /// The time at which each broker's answer became due, or at which it last answered.
    since: BTreeMap<String, Instant>,
}

impl Hanging {
    /// For a client whose fetches may wait this long.
    pub fn new(fetch_wait: Duration) -> Self {
        Self { patience: fetch_wait + HANG_TIMEOUT, since: BTreeMap::new() }
    }

    /// Those that hang by these statistics, by librdkafka's name, and for how long.
    pub fn observe<'s>(&mut self, statistics: &'s Statistics, now: Instant) -> Vec<(&'s str, &'s Broker, Duration)> {
        self.since.retain(|name, _| statistics.awaited().any(|(silent, _)| silent == name));
        let silent = statistics.awaited().map(|(name, broker)| {
            // A connection that was idle for long has not been silent for long: nothing was asked.
            let since = self.since.entry(name.clone()).or_insert(now);
            *since = now.checked_sub(broker.silent_for()).map_or(*since, |heard| heard.max(*since));
            (name.as_str(), broker, now.duration_since(*since))
        });
        silent.filter(|(_, _, silent)| *silent > self.patience).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(requests: u32, silent_ms: u64) -> Statistics {
        let broker = format!(
            r#"{{"source":"learned","state":"UP","stateage":1,"waitresp_cnt":{requests},"rxidle":{silent_ms}000}}"#
        );
        Statistics::read(format!(r#"{{"brokers":{{"kafka:9092/1":{broker}}}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn a_broker_hangs_that_was_asked_and_has_been_silent_since() {
        let (mut hanging, began) = (Hanging::new(Duration::ZERO), Instant::now());
        let mut hangs = |second: u64, requests, silent_ms| {
            let now = began + Duration::from_secs(second);
            !hanging.observe(&statistics(requests, silent_ms), now).is_empty()
        };
        // It was idle for a minute before it was asked.
        assert!(!hangs(0, 1, 60_000));
        assert!(!hangs(4, 1, 64_000));
        assert!(hangs(6, 1, 66_000));
        // It answers, late.
        assert!(!hangs(7, 1, 200));
        assert!(!hangs(12, 1, 4_900));
        assert!(hangs(13, 1, 5_900));
        // The client sends it a new request.
        assert!(!hangs(14, 0, 6_900));
        assert!(!hangs(15, 1, 7_900));
    }
}
