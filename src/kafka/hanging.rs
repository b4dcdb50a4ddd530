//! Brokers that hang: connected, and silent for longer than an answer takes. librdkafka reports that only after a minute.
//! And a Kafka that is away: a broker hangs, or none is connected.

use super::statistics::{Broker, Statistics};
use flows::Pauses;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Fetches, heartbeats and messages are answered within a second; a fetch, if nothing comes, after `fetch.wait.max.ms`.
const HANG_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The time of a new connection, after a broker has closed one.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The brokers that have not answered a client's request.
pub struct Hanging {
    patience: Duration,
    /// The time at which each broker's answer became due, or at which it last answered.
    since: BTreeMap<String, Instant>,
    /// The time of Kafka's last sign of life, and when its silence was noticed.
    away: Option<(Instant, Instant)>,
    pauses: Pauses,
}

impl Hanging {
    /// For a client whose fetches may wait this long.
    pub fn new(fetch_wait: Duration) -> Self {
        Self { patience: fetch_wait + HANG_TIMEOUT, since: BTreeMap::new(), away: None, pauses: Pauses::default() }
    }

    /// Those that hang by these statistics, by librdkafka's name, and for how long.
    pub fn observe<'s>(&mut self, statistics: &'s Statistics, now: Instant) -> Vec<(&'s str, &'s Broker, Duration)> {
        if self.pauses.look(now).is_some() {
            self.since.clear();
            self.away = None;
        }
        self.since.retain(|name, _| statistics.awaited().any(|(silent, _)| silent == name));
        let silent = statistics.awaited().map(|(name, broker)| {
            // A connection that was idle for long has not been silent for long: nothing was asked.
            let since = self.since.entry(name.clone()).or_insert(now);
            *since = now.checked_sub(broker.silent_for()).map_or(*since, |heard| heard.max(*since));
            (name.as_str(), broker, now.duration_since(*since))
        });
        silent.filter(|(_, _, silent)| *silent > self.patience).collect()
    }

    /// Since when Kafka has been away, by these statistics and by how long the brokers have hung that hang.
    pub fn away_since(
        &mut self,
        statistics: &Statistics,
        hanging: impl Iterator<Item = Duration>,
        now: Instant,
    ) -> Option<Instant> {
        let heard = statistics.brokers.values().filter_map(|broker| broker.heard(now)).max();
        let begins = hanging.max().map(|silent| now.checked_sub(silent).unwrap_or(now));
        let begins = begins.or_else(|| heard.is_none().then_some(now));
        // A connection may be up and silent: a coordinator need not answer while a member joins its group.
        let lasts = self.away.filter(|(_, noticed)| begins.is_some() || heard.is_none_or(|heard| heard <= *noticed));
        self.away = lasts.or_else(|| begins.map(|begins| (begins, now)));
        self.away.map(|(since, _)| since).filter(|since| now.duration_since(*since) >= RECONNECT_TIMEOUT)
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
        assert!(!hangs(1, 1, 61_000));
        assert!(hangs(2, 1, 62_000));
        // It answers, late.
        assert!(!hangs(3, 1, 200));
        assert!(!hangs(4, 1, 1_200));
        assert!(hangs(5, 1, 2_200));
        // The client sends it a new request.
        assert!(!hangs(6, 0, 3_200));
        assert!(!hangs(7, 1, 4_200));
    }

    #[test]
    fn kafka_is_away_from_its_last_answer_until_a_broker_answers() {
        let (mut hanging, began) = (Hanging::new(Duration::ZERO), Instant::now());
        let mut away = |ms: u64, json: &str| {
            let (statistics, now) = (Statistics::read(json.as_bytes()).unwrap(), began + Duration::from_millis(ms));
            let silent: Vec<_> = hanging.observe(&statistics, now).into_iter().map(|(_, _, silent)| silent).collect();
            hanging
                .away_since(&statistics, silent.into_iter(), now)
                .map(|since| since.duration_since(began).as_millis())
        };
        let broker = |state: &str, silent_ms: u64| {
            format!(
                r#"{{"brokers":{{"k/1":{{"source":"learned","state":"{state}","stateage":1,"waitresp_cnt":1,"rxidle":{silent_ms}000}}}}}}"#
            )
        };
        assert_eq!(away(0, &broker("UP", 10)), None);
        assert_eq!(away(1_000, &broker("UP", 1_000)), None);
        assert_eq!(away(2_000, &broker("UP", 1_900)), Some(100));
        assert_eq!(away(6_000, &broker("UP", 5_900)), Some(100));
        // The connection is given up, and made again.
        assert_eq!(away(9_000, &broker("CONNECT", 100)), Some(100));
        assert_eq!(away(9_500, r#"{"brokers":{}}"#), Some(100));
        // A frozen broker is connected, and has never answered on that connection.
        let silent = broker("UP", 0).replace("\"rxidle\":0000", "\"rxidle\":-1");
        assert!(silent.contains("-1"));
        assert_eq!(away(9_600, &silent), Some(100));
        // Its coordinator, which is asked to let this client join a group, has been silent since before.
        let joining = broker("UP", 9_500).replace("\"learned\"", "\"logical\"");
        assert_eq!(away(9_700, &joining), Some(100));
        assert_eq!(away(10_000, &broker("UP", 10)), None);
        assert_eq!(away(11_000, &broker("DOWN", 10)), None, "it may be connected again at once");
        assert_eq!(away(12_000, &broker("DOWN", 10)), Some(11_000));
        // This process was stopped for a minute.
        assert_eq!(away(13_000, &broker("UP", 10)), None);
        assert_eq!(away(73_000, &broker("UP", 60_000)), None);
        assert_eq!(away(74_900, &broker("UP", 61_900)), Some(73_000));
    }
}
