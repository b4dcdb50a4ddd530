//! librdkafka's statistics: the part of its JSON that is read here. Its STATISTICS.md documents all of it.

use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The statistics that a client reports every `statistics.interval.ms`.
#[derive(Deserialize)]
pub struct Statistics {
    /// By librdkafka's name for each: `HOST:PORT/ID`, or the role of one that only points to a broker.
    pub brokers: HashMap<String, Broker>,
    #[serde(default)]
    msg_size: u64,
    #[serde(default)]
    topics: HashMap<String, Topic>,
    #[serde(default)]
    eos: Idempotence,
    #[serde(default)]
    cgrp: Group,
}

/// A connection to a broker.
#[derive(Deserialize)]
pub struct Broker {
    pub source: String,
    pub state: String,
    /// Time in that state, in µs.
    pub stateage: i64,
    /// `HOST:PORT`
    #[serde(default)]
    pub nodename: String,
    /// Requests that are not answered yet.
    #[serde(default)]
    waitresp_cnt: i64,
    /// Time since it has sent anything on this connection, in µs; -1 if it has sent nothing.
    #[serde(default)]
    rxidle: i64,
}

impl Broker {
    /// Whether it is one, and not a pointer to one like a group's coordinator, which is listed too.
    pub fn is_real(&self) -> bool {
        matches!(self.source.as_str(), "configured" | "learned")
    }

    /// Whether it is connected and has answered. The kernel of a frozen broker takes connections, and librdkafka uses one that has not
    /// answered its first request, as if the broker were too old for that request.
    pub fn is_up(&self) -> bool {
        self.state == "UP" && self.rxidle >= 0
    }

    /// When it last sent anything on this connection; none without a connection on which it has.
    pub fn heard(&self, now: Instant) -> Option<Instant> {
        self.is_up().then(|| now.checked_sub(self.silent_for()).unwrap_or(now))
    }

    /// Time since it has sent anything.
    pub fn silent_for(&self) -> Duration {
        Duration::from_micros(self.rxidle.try_into().unwrap_or(0))
    }
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    #[serde(default)]
    fetchq_size: u64,
}

#[derive(Default, Deserialize)]
struct Group {
    #[serde(default)]
    join_state: String,
}

#[derive(Default, Deserialize)]
struct Idempotence {
    #[serde(default)]
    idemp_state: String,
}

impl Statistics {
    /// Reads them; none where this is not what librdkafka writes.
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json)
            .inspect_err(|error| tracing::debug!("statistics of librdkafka that cannot be read: {error}"))
            .ok()
    }

    /// Brokers with an unanswered request, by librdkafka's name. A coordinator does not count while a member joins a
    /// group: it answers when the other members have joined.
    pub fn awaited(&self) -> impl Iterator<Item = (&String, &Broker)> {
        let is_member = self.cgrp.join_state == "steady";
        let must_answer =
            move |broker: &Broker| broker.is_up() && broker.waitresp_cnt > 0 && (broker.is_real() || is_member);
        self.brokers.iter().filter(move |(_, broker)| must_answer(broker))
    }

    /// Bytes of messages that wait to be sent, or that were fetched ahead.
    pub fn queued_bytes(&self) -> u64 {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        self.msg_size + partitions.map(|partition| partition.fetchq_size).sum::<u64>()
    }

    /// Whether an idempotent producer has the producer id without which it sends nothing.
    pub fn has_producer_id(&self) -> bool {
        self.eos.idemp_state == "Assigned"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::client::ClientContext;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
    use rdkafka::{ClientConfig, message::DeliveryResult};
    use std::sync::Mutex;

    #[test]
    fn queued_bytes_are_added_up_in_any_layout() {
        let json = r#"{"brokers": {}, "msg_size" : 7, "x": [],
            "topics":{"t":{"partitions":{"0":{"fetchq_size":30},"-1":{"fetchq_size":5}}}}}"#;
        assert_eq!(Statistics::read(json.as_bytes()).unwrap().queued_bytes(), 42);
        assert!(Statistics::read(b"no statistics").is_none());
    }

    #[test]
    fn a_producer_id_is_found_in_any_layout() {
        for (json, has) in [
            (r#"{"brokers":{},"eos":{"idemp_state":"Assigned"}}"#, true),
            (r#"{"brokers":{}, "eos": { "txn_state": "Init", "idemp_state" : "Assigned" }}"#, true),
            (r#"{"brokers":{},"eos":{"idemp_state":"RequestPID"}}"#, false),
            (r#"{"brokers":{},"topics":{"\"idemp_state\": \"Assigned\"":{}}}"#, false),
        ] {
            assert_eq!(Statistics::read(json.as_bytes()).unwrap().has_producer_id(), has, "{json}");
        }
    }

    #[test]
    fn a_broker_must_answer_each_request_but_one_to_join_a_group() {
        let must_answer = |member: &str, source: &str, state: &str, requests: i64| {
            let broker = format!(r#"{{"source":"{source}","state":"{state}","stateage":1,"waitresp_cnt":{requests}}}"#);
            let json = format!(r#"{{"brokers":{{"kafka:9092/1":{broker}}},"cgrp":{{"join_state":"{member}"}}}}"#);
            Statistics::read(json.as_bytes()).unwrap().awaited().count() == 1
        };
        assert!(must_answer("", "learned", "UP", 1) && must_answer("steady", "logical", "UP", 1));
        assert!(!must_answer("wait-join", "logical", "UP", 1));
        assert!(!must_answer("steady", "learned", "UP", 0) && !must_answer("steady", "learned", "CONNECT", 1));
    }

    /// Keeps the last ones.
    #[derive(Default)]
    struct Kept(Mutex<Option<Statistics>>);

    impl ClientContext for Kept {
        fn stats_raw(&self, json: &[u8]) {
            *self.0.lock().unwrap() = Statistics::read(json);
        }
    }

    impl ProducerContext for Kept {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    #[test]
    fn statistics_of_librdkafka_are_read() {
        let cluster = MockCluster::new(1).unwrap();
        let producer: BaseProducer<Kept> = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("enable.idempotence", "true")
            .set("statistics.interval.ms", "50")
            .create_with_context(Kept::default())
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            producer.poll(Duration::from_millis(50));
            let kept = producer.context().0.lock().unwrap();
            let is_up = |broker: &Broker| broker.is_up() && broker.nodename == cluster.bootstrap_servers();
            if kept.as_ref().is_some_and(|kept| kept.has_producer_id() && kept.brokers.values().any(is_up)) {
                return;
            }
            assert!(Instant::now() < deadline, "the producer has its id, and a broker");
        }
    }
}
