//! The present problems of one Kafka client.

use super::hanging::Hanging;
use super::reason::{Protocol, Reason, Resource, words};
use super::statistics::Statistics;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reason that lasts is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// An error that nothing ends is over after this time.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// Reasons by what they are about, a broker's address or a resource: the last one of each, until that works again.
///
/// It is the context of a client that only asks, and a part of the contexts of others.
pub struct Reasons {
    protocol: Protocol,
    brokers: String,
    operation: &'static str,
    topic: String,
    group: String,
    transactional_id: String,
    is_logging: bool,
    /// The group has taken this client as a member.
    has_joined: AtomicBool,
    /// Notes that Kafka has let this client do its work.
    is_allowed: AtomicBool,
    known: Mutex<BTreeMap<String, Known>>,
    hanging: Mutex<Hanging>,
}

struct Known {
    reason: Reason,
    noted: Instant,
    logged: Option<Instant>,
}

impl Known {
    /// Nothing says that an error is over that is about no broker and no right.
    fn is_over(&self) -> bool {
        self.reason.about().is_empty() && self.noted.elapsed() > FORGET_AFTER
    }
}

impl Reasons {
    /// For a client that works with one topic and needs the right to this `operation` there. Logs reasons as they come.
    pub fn of_worker(config: &ClientConfig, topic: &str, operation: &'static str) -> Self {
        Self { is_logging: true, topic: topic.to_owned(), ..Self::of_asker(config, operation) }
    }

    /// For a client that only sends occasional requests. Its caller reports the reason.
    pub fn of_asker(config: &ClientConfig, operation: &'static str) -> Self {
        let setting = |key| config.get(key).unwrap_or_default().to_owned();
        let fetch_wait = Duration::from_millis(setting("fetch.wait.max.ms").parse().unwrap_or(500));
        Self {
            protocol: Protocol::of(config),
            brokers: setting("bootstrap.servers"),
            operation,
            topic: String::new(),
            group: setting("group.id"),
            transactional_id: setting("transactional.id"),
            is_logging: false,
            has_joined: AtomicBool::default(),
            is_allowed: AtomicBool::default(),
            known: Mutex::default(),
            hanging: Mutex::new(Hanging::new(fetch_wait)),
        }
    }

    /// Notes an error that librdkafka reports.
    pub fn note(&self, code: Code, text: &str) {
        match self.missing_right(code, text) {
            Some(denied) => self.add(denied, true),
            None => self.read(code, text, true),
        }
    }

    /// Notes that Kafka has answered with this code; nothing, unless it says that a right is missing.
    pub fn note_answer(&self, code: Code) {
        if let Some(denied) = self.missing_right(code, "") {
            self.add(denied, true);
        }
    }

    /// The group has taken this client as a member.
    pub fn joined(&self) {
        self.has_joined.store(true, Relaxed);
    }

    /// Kafka has done what only this client's rights allow: none is missing.
    pub fn allowed(&self) {
        self.joined();
        self.is_allowed.store(true, Relaxed);
        self.known().retain(|about, known| {
            if known.reason.is_denied() && known.logged.is_some() {
                tracing::info!("Kafka: {about}: allowed again");
            }
            !known.reason.is_denied()
        });
    }

    /// The right that is missing, if one is.
    pub fn denial(&self) -> Option<Reason> {
        self.known().values().map(|known| &known.reason).find(|reason| reason.is_denied()).cloned()
    }

    /// The missing right, if this client never had it: a right that was revoked may come back.
    pub fn refusal(&self) -> Option<Reason> {
        let known = self.known();
        let mut denied = known.values().map(|known| &known.reason).filter(|reason| reason.is_denied());
        denied.find(|reason| !self.had_right(reason)).cloned()
    }

    fn had_right(&self, reason: &Reason) -> bool {
        let had = if reason.is_about_group() { &self.has_joined } else { &self.is_allowed };
        had.load(Relaxed)
    }

    /// Notes brokers that hang, and forgets problems of brokers that are connected and answer. Returns since when Kafka as a whole
    /// has been away.
    pub fn follow(&self, statistics: &Statistics) -> Option<Instant> {
        let (mut watch, now) = (self.hanging.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let mut heard: HashMap<&str, Instant> = HashMap::new();
        for broker in statistics.brokers.values() {
            let last = heard.get(broker.nodename.as_str()).copied().max(broker.heard(now));
            last.map(|last| heard.insert(&broker.nodename, last));
        }
        let hanging = watch.observe(statistics, now);
        let away = watch.away_since(statistics, hanging.iter().map(|(_, _, silent)| *silent), now);
        drop(watch);
        for (name, broker, _) in hanging {
            heard.remove(broker.nodename.as_str());
            self.add(Reason::hanging(name), true);
        }
        self.known().retain(|about, known| {
            let is_back = heard.get(about.as_str()).is_some_and(|heard| *heard >= known.noted);
            if is_back && known.logged.is_some() {
                tracing::info!("Kafka: {about} is back");
            }
            !is_back
        });
        away
    }

    /// Forgets everything: Kafka has answered.
    pub fn clear(&self) {
        self.known().clear();
    }

    /// The reason that explains most.
    pub fn worst(&self) -> Option<Reason> {
        let known = self.known();
        let current = known.values().filter(|known| !known.is_over());
        current.map(|known| &known.reason).min_by_key(|reason| reason.rank()).cloned()
    }

    /// Why a request failed that needs the right to this operation on a topic, or on whatever else the answer names.
    pub fn explain(&self, operation: &'static str, topic: &str, error: &KafkaError) -> Reason {
        let Some(code) = error.rdkafka_error_code() else { return Reason::words(error) };
        if let Some(resource) = self.resource(code, topic) {
            return Reason::denied(operation, resource);
        }
        if code == Code::UnsupportedFeature {
            return Reason::words(
                &"who answers does not do what clients ask for: the port of a controller, or a Kafka before 2.1?",
            );
        }
        if !SILENCE.contains(&code) {
            return Reason::words(&words(code));
        }
        // The reason was reported before.
        self.worst().map_or_else(|| Reason::silent(&self.brokers, code), |reason| reason.for_request(operation, topic))
    }

    fn read(&self, code: Code, text: &str, is_logged: bool) {
        let Some(reason) = Reason::read(code, text, self.protocol) else { return };
        // A client that is at work, or was made after another one was answered, is not one of the wrong kind.
        self.add(if self.is_logging && reason.is_guess() { reason.disconnected() } else { reason }, is_logged);
    }

    fn add(&self, reason: Reason, is_logged: bool) {
        let mut known = self.known();
        let before = known.get(&reason.about());
        let logged = before.and_then(|before| before.logged);
        let is_new = before.is_none_or(|before| !before.reason.is_like(&reason));
        let is_due = is_new || logged.is_none_or(|logged| logged.elapsed() > LOG_AGAIN);
        // A client that never had a right ends, and reports that.
        let is_refusal = reason.is_denied() && !self.had_right(&reason);
        let is_logged = is_logged && is_due && self.is_logging && !is_refusal;
        if is_logged {
            // A pipeline warns of a Kafka that is away; this is the detail.
            match reason.is_of_connection() {
                true => tracing::info!("Kafka, trying again: {reason}"),
                false => tracing::warn!("Kafka, trying again: {reason}"),
            }
        }
        let noted = Instant::now();
        let logged = if is_logged { Some(noted) } else { logged };
        match known.get_mut(&reason.about()) {
            Some(before) if !is_new && reason.is_of_coordinator() => (before.noted, before.logged) = (noted, logged),
            _ => drop(known.insert(reason.about(), Known { reason, noted, logged })),
        }
    }

    fn missing_right(&self, code: Code, text: &str) -> Option<Reason> {
        // A fatal error has the code that it was made of only in its text.
        let code = match code {
            Code::Fatal => DENIALS.into_iter().find(|code| text.contains(&words(*code)))?,
            code => code,
        };
        self.resource(code, &self.topic).map(|resource| Reason::denied(self.operation, resource))
    }

    fn resource(&self, code: Code, topic: &str) -> Option<Resource> {
        match code {
            Code::TopicAuthorizationFailed => Some(Resource::Topic(topic.to_owned())),
            Code::GroupAuthorizationFailed => Some(Resource::Group(self.group.clone())),
            Code::TransactionalIdAuthorizationFailed => Some(Resource::TransactionalId(self.transactional_id.clone())),
            Code::ClusterAuthorizationFailed if !self.topic.is_empty() => Some(Resource::Idempotence(topic.to_owned())),
            Code::ClusterAuthorizationFailed => Some(Resource::Cluster),
            _ => None,
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Each change is one step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a request that Kafka did not answer.
const SILENCE: [Code; 11] = [
    Code::BrokerTransportFailure,
    Code::AllBrokersDown,
    Code::OperationTimedOut,
    Code::TimedOutQueue,
    Code::WaitingForCoordinator,
    Code::WaitCache,
    Code::Resolve,
    Code::Authentication,
    Code::SSL,
    Code::PurgeQueue,
    Code::PurgeInflight,
];

/// Kafka's error code for a missing right.
const DENIALS: [Code; 4] = [
    Code::TopicAuthorizationFailed,
    Code::GroupAuthorizationFailed,
    Code::TransactionalIdAuthorizationFailed,
    Code::ClusterAuthorizationFailed,
];

impl ClientContext for Reasons {
    /// librdkafka only logs that a broker closed a connection, or does not answer; whatever is worse comes as an error, too.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {text}");
        // [thrd:NAME]: …
        let text = text.split_once("]: ").map_or(text, |(_, text)| text);
        let is_warning = matches!(level, RDKafkaLogLevel::Warning);
        if facility == "TXNERR" {
            // The messages of the transaction are only said to be purged.
            let reason = self.missing_right(Code::Fatal, text).unwrap_or_else(|| Reason::words(&text));
            self.add(reason, false);
        }
        // A request that is not answered has a better reason where there is no connection.
        let is_news = match facility {
            "FAIL" => is_warning || matches!(level, RDKafkaLogLevel::Info),
            "REQTMOUT" => self.worst().is_none(),
            _ => false,
        };
        if is_news {
            self.read(Code::BrokerTransportFailure, text, is_warning);
        }
    }

    fn error(&self, error: KafkaError, text: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(code, text);
        }
    }
}

impl ConsumerContext for Reasons {}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str =
        "kafka:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";

    fn config() -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "kafka:9092").set("group.id", "clickstream").set("transactional.id", "replay");
        config
    }

    fn statistics(state: &str) -> Statistics {
        let json = format!(
            r#"{{"brokers":{{"kafka:9092/1":{{"nodename":"kafka:9092","source":"learned","state":"{state}","stateage":1}}}}}}"#
        );
        Statistics::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn silence_is_explained_by_what_was_reported_before_until_that_is_over() {
        let reasons = Reasons::of_asker(&config(), "DESCRIBE");
        let silence = KafkaError::MetadataFetch(Code::BrokerTransportFailure);
        let said = |of: &Reasons| of.explain("DESCRIBE", "clicks", &silence).to_string();
        assert!(said(&reasons).contains("kafka:9092 does not answer"), "{}", said(&reasons));
        reasons.note(Code::BrokerTransportFailure, REFUSED);
        assert!(said(&reasons).contains("nothing listens at kafka:9092"), "{}", said(&reasons));
        reasons.follow(&statistics("CONNECT"));
        assert!(said(&reasons).contains("nothing listens"), "{}", said(&reasons));
        reasons.follow(&statistics("UP"));
        assert!(!said(&reasons).contains("nothing listens"), "{}", said(&reasons));
        // An answer is not silence.
        reasons.note(Code::BrokerTransportFailure, REFUSED);
        let answer =
            reasons.explain("READ", "clicks", &KafkaError::MetadataFetch(Code::LeaderNotAvailable)).to_string();
        assert!(answer.contains("Leader not available"), "{answer}");
    }

    #[test]
    fn of_several_reasons_the_one_that_explains_most_is_said() {
        let reasons = Reasons::of_asker(&config(), "DESCRIBE");
        reasons.note(Code::BrokerTransportFailure, REFUSED);
        reasons.note(
            Code::Authentication,
            "sasl_plaintext://other:9092/2: SASL authentication error: Authentication failed: Invalid username or password (after 337ms in state AUTH_REQ)",
        );
        assert!(reasons.worst().unwrap().is_final());
    }

    #[test]
    fn a_request_that_was_not_answered_hides_no_better_reason() {
        let reasons = Reasons::of_asker(&config(), "DESCRIBE");
        let silence = KafkaError::OffsetFetch(Code::OperationTimedOut);
        let timeout = "[thrd:kafka:9092/1]: kafka:9092/1: Timed out 0 in-flight, 0 retry-queued, 1 out-queue, 0 partially-sent requests";
        reasons.note(Code::BrokerTransportFailure, REFUSED);
        reasons.log(RDKafkaLogLevel::Warning, "REQTMOUT", timeout);
        let said = reasons.explain("DESCRIBE", "clicks", &silence).to_string();
        assert!(said.contains("nothing listens at kafka:9092"), "{said}");
        reasons.clear();
        reasons.log(RDKafkaLogLevel::Warning, "REQTMOUT", timeout);
        let said = reasons.explain("DESCRIBE", "clicks", &silence).to_string();
        assert!(said.contains("kafka:9092 does not answer"), "{said}");
    }

    #[test]
    fn a_missing_right_is_named_with_what_it_is_on() {
        let reasons = Reasons::of_worker(&config(), "clicks", "WRITE");
        let said = |code| reasons.explain("WRITE", "clicks", &KafkaError::MessageProduction(code)).to_string();
        for (code, right) in [
            (Code::TopicAuthorizationFailed, "WRITE on topic clicks"),
            (Code::GroupAuthorizationFailed, "WRITE on group clickstream"),
            (Code::TransactionalIdAuthorizationFailed, "WRITE on transactional id replay"),
            (Code::ClusterAuthorizationFailed, "IDEMPOTENT_WRITE on the cluster"),
        ] {
            assert!(said(code).contains(right), "{}", said(code));
        }
        reasons
            .note(Code::Fatal, "Fatal error: Broker: Cluster authorization failed: Failed to acquire idempotence PID");
        assert!(reasons.refusal().unwrap().to_string().contains("WRITE on topic clicks"));
    }

    #[test]
    fn a_right_that_was_never_there_ends_it_and_one_that_was_taken_away_does_not() {
        let reasons = Reasons::of_worker(&config(), "clicks", "READ");
        assert!(reasons.refusal().is_none());
        reasons.note_answer(Code::TopicAuthorizationFailed);
        assert!(reasons.refusal().is_some());
        reasons.joined();
        assert!(reasons.refusal().is_some(), "to be a member says nothing of the topic");
        reasons.allowed();
        assert!(reasons.refusal().is_none() && reasons.worst().is_none());
        reasons.note_answer(Code::GroupAuthorizationFailed);
        assert!(reasons.refusal().is_none() && reasons.denial().is_some());
        reasons.note_answer(Code::NotCoordinator);
        reasons.allowed();
        assert!(reasons.worst().is_none());
    }
}
