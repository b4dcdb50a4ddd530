//! Reading librdkafka's errors: its codes are the same for many reasons, and the rest is in a text like
//! `sasl_ssl://kafka:9093/1: SASL authentication error: Authentication failed (after 301ms in state AUTH_REQ)`.

use super::{Broker, COORDINATOR, Kind, Reason};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode as Code;

/// The client's `security.protocol`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protocol {
    tls: bool,
    sasl: bool,
}

impl Protocol {
    pub fn of(config: &ClientConfig) -> Self {
        let protocol = config.get("security.protocol").unwrap_or_default().to_ascii_lowercase();
        Self { tls: protocol.ends_with("ssl"), sasl: protocol.starts_with("sasl") }
    }
}

/// A disconnection this soon after the first request has to do with it: brokers close at once what they do not understand.
const AT_ONCE_MS: u64 = 2_000;

/// The first bytes of an answer that is not Kafka's, where Kafka's protocol has the length of the answer.
const HTTP: u32 = u32::from_be_bytes(*b"HTTP");
/// The first bytes of a TLS alert, of version 3.x, in the same place.
const TLS_ALERT: u32 = 0x1503;

impl Reason {
    /// The reason in an error that librdkafka reports with this text; none if other reports explain it better.
    pub fn read(code: Code, text: &str, protocol: Protocol) -> Option<Self> {
        // The reasons came before; and the end of a partition is not an error.
        if matches!(code, Code::AllBrokersDown | Code::PartitionEOF) {
            return None;
        }
        let (broker, rest) = Broker::read(text);
        let (said, state) = State::read(rest);
        let kind = kind(code, said, &state, protocol);
        let said = match kind {
            Kind::Credentials => behind(said, "SASL authentication error: "),
            Kind::Mechanism => behind(said, "broker's supported mechanisms: "),
            Kind::Unresolved => behind(said, "': "),
            Kind::Refused => behind(said, "failed: "),
            Kind::ClientCertificate => behind(said, "SSL routines::"),
            Kind::NotKafka if response_size(said) == Some(HTTP) => "an HTTP server",
            Kind::NotKafka => "something else",
            _ => said,
        };
        Some(Self { kind, broker, said: said.trim().to_owned() })
    }
}

fn kind(code: Code, said: &str, state: &State<'_>, protocol: Protocol) -> Kind {
    let has = |part: &str| said.contains(part);
    if code == Code::Resolve {
        return Kind::Unresolved;
    }
    if code == Code::InvalidSessionTimeout {
        return Kind::SessionTimeout;
    }
    if code == Code::InconsistentGroupProtocol {
        return Kind::Assignor;
    }
    // Each of these is an answer of the broker. A handshake that was cut, and a token endpoint that is away, have the
    // same code.
    if code == Code::Authentication && has("Unsupported SASL mechanism") {
        return Kind::Mechanism;
    }
    if code == Code::Authentication && has("current SASL state") {
        return Kind::NoSasl;
    }
    if code == Code::Authentication && has("SASL authentication error") {
        return Kind::Credentials;
    }
    if has("certificate verify failed") || has("verify broker certificate") || has("not provide a certificate") {
        return Kind::Certificate;
    }
    if has("alert certificate required") || has("alert bad certificate") || has("alert unknown ca") {
        return Kind::ClientCertificate;
    }
    if let Some(size) = response_size(said) {
        return if size >> 16 == TLS_ALERT { Kind::WantsTls } else { Kind::NotKafka };
    }
    if has("Connection refused") {
        return Kind::Refused;
    }
    if has("timed out") || has("Timed out") || has("No route to host") || has("unreachable") {
        return Kind::Silent;
    }
    let closed = has("Disconnected") || has("Broken pipe") || has("Connection reset") || has("closed by peer");
    match state.name {
        "SSL_HANDSHAKE" if closed || has("wrong version number") || has("packet length too long") => Kind::SpeaksNoTls,
        "APIVERSION_QUERY" if closed && !protocol.tls => Kind::WantsTls,
        "UP" if closed && !protocol.sasl && state.since_ms < AT_ONCE_MS => Kind::WantsSasl,
        _ if closed => Kind::Disconnected,
        _ => Kind::Other,
    }
}

impl Broker {
    /// Takes librdkafka's name of a broker from the front of a text: `[PROTOCOL://]HOST:PORT/ID: …`, `GroupCoordinator: HOST:PORT: …`.
    pub(super) fn read(text: &str) -> (Option<Self>, &str) {
        let Some((name, rest)) = text.split_once(": ") else { return (None, text) };
        if matches!(name, "GroupCoordinator" | "TxnCoordinator") {
            let Some((address, rest)) = rest.split_once(": ").filter(|(address, _)| is_address(address)) else {
                return (None, rest);
            };
            return (Some(Self { address: address.to_owned(), advertised_by: Some(COORDINATOR.into()) }), rest);
        }
        let Some((address, id)) = name.rsplit_once('/') else { return (None, text) };
        let address = address.split_once("://").map_or(address, |(_, address)| address).to_owned();
        let advertised_by = id.parse::<i32>().is_ok().then(|| format!("broker {id}"));
        (Some(Self { address, advertised_by }), rest)
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// In which state of a connection something happened, and how long it had been in it.
struct State<'a> {
    name: &'a str,
    since_ms: u64,
}

impl<'a> State<'a> {
    /// Takes ` (after 301ms in state UP[, …])` from the end of a text.
    fn read(text: &'a str) -> (&'a str, Self) {
        let none = Self { name: "", since_ms: u64::MAX };
        let Some((said, state)) = text.rsplit_once(" (after ") else { return (text, none) };
        let Some((since, name)) = state.split_once("ms in state ") else { return (text, none) };
        let name = name.split([')', ',']).next().unwrap_or_default();
        (said, Self { name, since_ms: since.parse().unwrap_or(u64::MAX) })
    }
}

fn behind<'a>(text: &'a str, part: &str) -> &'a str {
    text.split_once(part).map_or(text, |(_, rest)| rest)
}

/// The length of an answer that is longer than any of Kafka's.
fn response_size(said: &str) -> Option<u32> {
    let digits = said.split_once("Invalid response size ")?.1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Protocol = Protocol { tls: false, sasl: false };
    const TLS: Protocol = Protocol { tls: true, sasl: false };
    const SASL: Protocol = Protocol { tls: false, sasl: true };

    /// Errors of librdkafka 2.12 with Kafka 4.3, word for word, and the sentences made of them.
    #[test]
    fn each_text_of_librdkafka_is_its_own_reason_and_says_what_to_do() {
        let cases: &[(Code, Protocol, &str, &[&str])] = &[
            (
                Code::Authentication,
                SASL,
                "sasl_plaintext://kafka:9092/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 337ms in state AUTH_REQ)",
                &["kafka:9092 refuses", "Invalid username or password)", "sasl.username", "sasl.password"],
            ),
            (
                Code::Authentication,
                SASL,
                "sasl_plaintext://kafka:9092/1: SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256 (after 301ms in state AUTH_REQ, 1 identical error(s) suppressed)",
                &["kafka:9092 refuses", "with SASL mechanism SCRAM-SHA-256)", "sasl.password"],
            ),
            (
                Code::Authentication,
                SASL,
                "sasl_plaintext://kafka:9092/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN,SCRAM-SHA-256 (after 301ms in state AUTH_HANDSHAKE)",
                &["only PLAIN,SCRAM-SHA-256:", "sasl.mechanism"],
            ),
            (
                Code::Authentication,
                SASL,
                "sasl_plaintext://kafka:9092/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 301ms in state AUTH_HANDSHAKE)",
                &["no users at this port", "security.protocol=PLAINTEXT"],
            ),
            (
                Code::SSL,
                TLS,
                "ssl://kafka:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates are installed (install ca-certificates package) (after 7ms in state SSL_HANDSHAKE)",
                &["certificate of kafka:9093", "ssl.ca.location", "host name"],
            ),
            (
                Code::BrokerTransportFailure,
                PLAIN,
                "127.0.0.1:9093/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 58ms in state APIVERSION_QUERY)",
                &["127.0.0.1:9093 closes", "TLS", "security.protocol=SSL"],
            ),
            (
                Code::BadMessage,
                PLAIN,
                "kafka:443/bootstrap: Receive failed: Invalid response size 352518912 (0..100000000): increase receive.message.max.bytes (after 1ms in state APIVERSION_QUERY)",
                &["kafka:443", "TLS"],
            ),
            (
                Code::BrokerTransportFailure,
                TLS,
                "ssl://kafka:9092/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 4ms in state SSL_HANDSHAKE)",
                &["kafka:9092 does not speak TLS", "security.protocol=PLAINTEXT"],
            ),
            (
                Code::BrokerTransportFailure,
                PLAIN,
                "kafka:9092/bootstrap: Send failed: Broken pipe (after 12ms in state UP)",
                &["kafka:9092 closes", "sasl.mechanism", "SASL_PLAINTEXT"],
            ),
            (
                Code::BadMessage,
                PLAIN,
                "localhost:8123/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes (after 1ms in state APIVERSION_QUERY)",
                &["localhost:8123 is not Kafka but an HTTP server", "--brokers"],
            ),
            (
                Code::Resolve,
                PLAIN,
                "no-such-host:9092/bootstrap: Failed to resolve 'no-such-host:9092': Name or service not known (after 1ms in state CONNECT)",
                &["host name no-such-host is not known", "Name or service", "--brokers"],
            ),
            (
                Code::Resolve,
                PLAIN,
                "kafka.internal:9092/3: Failed to resolve 'kafka.internal:9092': Name or service not known (after 0ms in state CONNECT)",
                &["host name kafka.internal is not known", "broker 3", "advertised.listeners"],
            ),
            (
                Code::Resolve,
                PLAIN,
                "GroupCoordinator: kafka.internal:9092: Failed to resolve 'kafka.internal:9092': Name or service not known (after 0ms in state CONNECT)",
                &["host name kafka.internal is not known", "the coordinator", "advertised.listeners"],
            ),
            (
                Code::BrokerTransportFailure,
                PLAIN,
                "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                &["nothing listens at 127.0.0.1:1 (Connection refused)", "--brokers"],
            ),
            (
                Code::BrokerTransportFailure,
                PLAIN,
                "[::1]:9092/2: Connect to ipv6#[::1]:9092 failed: Connection refused (after 0ms in state CONNECT)",
                &["nothing listens at [::1]:9092", "broker 2", "advertised.listeners"],
            ),
            (
                Code::BrokerTransportFailure,
                PLAIN,
                "kafka:9092/1: ApiVersionRequest failed: Local: Timed out: probably due to broker version < 0.10 (see api.version.request configuration) (after 10000ms in state APIVERSION_QUERY)",
                &["kafka:9092 does not answer", "advertised.listeners"],
            ),
            (
                Code::InvalidSessionTimeout,
                PLAIN,
                "JoinGroup failed: Broker: Invalid session timeout",
                &["session.timeout.ms", "group.max.session.timeout.ms"],
            ),
            (
                Code::InconsistentGroupProtocol,
                PLAIN,
                "JoinGroup failed: Broker: Inconsistent group protocol",
                &["partition.assignment.strategy", "--group"],
            ),
        ];
        for &(code, protocol, text, names) in cases {
            let reason = Reason::read(code, text, protocol).unwrap().to_string();
            assert!(names.iter().all(|name| reason.contains(name)), "{text}\n  {reason}\n  {names:?}");
            assert!(!reason.contains('\n'), "{reason}");
        }
        for nothing in [Code::AllBrokersDown, Code::PartitionEOF] {
            assert_eq!(Reason::read(nothing, "1/1 brokers are down", PLAIN), None);
        }
    }

    #[test]
    fn a_reason_that_may_pass_is_not_final() {
        let final_kinds = [Kind::Credentials, Kind::Mechanism, Kind::NoSasl, Kind::Certificate];
        assert!(final_kinds.into_iter().all(|kind| Reason { kind, broker: None, said: String::new() }.is_final()));
        for (code, text) in [
            // A broker that goes down in the middle of it.
            (
                Code::Authentication,
                "sasl_plaintext://kafka:9092/1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a) (after 2ms in state AUTH_HANDSHAKE)",
            ),
            (Code::Authentication, "Failed to acquire SASL OAUTHBEARER token: Connection refused"),
            (
                Code::BrokerTransportFailure,
                "kafka:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)",
            ),
            (
                Code::Resolve,
                "kafka:9092/1: Failed to resolve 'kafka:9092': Temporary failure in name resolution (after 0ms in state CONNECT)",
            ),
            (
                Code::BrokerTransportFailure,
                "kafka:9092/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 58ms in state APIVERSION_QUERY)",
            ),
        ] {
            assert!(!Reason::read(code, text, PLAIN).unwrap().is_final(), "{text}");
        }
    }

    #[test]
    fn a_broker_that_goes_away_later_is_not_said_to_want_anything() {
        let text =
            "kafka:9092/1: Disconnected: connection closed by peer: receive 0 after POLLIN (after 58211ms in state UP)";
        assert!(!Reason::read(Code::BrokerTransportFailure, text, PLAIN).unwrap().is_guess());
    }
}
