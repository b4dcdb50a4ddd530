//! Why Kafka refuses a request, and the remedy: from librdkafka's codes and texts to a sentence.
//!
//! These sentences hold no secret: librdkafka knows passwords, and repeats none.

mod read;

pub use read::Protocol;

use rdkafka::error::RDKafkaErrorCode as Code;
use std::fmt::{self, Display, Formatter};

/// A reason, in one line. Its `Display` ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    kind: Kind,
    broker: Option<Broker>,
    /// The words of librdkafka, of the broker or of the system.
    said: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Credentials,
    Mechanism,
    NoSasl,
    Certificate,
    ClientCertificate,
    Denied { operation: &'static str, on: Resource },
    WantsTls,
    SpeaksNoTls,
    WantsSasl,
    NotKafka,
    Unresolved,
    Refused,
    Silent,
    Disconnected,
    SessionTimeout,
    Assignor,
    Other,
}

/// The object of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    Group(String),
    TransactionalId(String),
    /// With the topic, since to be allowed to write to any is enough for Kafka 2.8 and newer.
    Idempotence(String),
    Cluster,
}

impl Display for Resource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::TransactionalId(name) => write!(f, "transactional id {name}"),
            Self::Idempotence(topic) => {
                write!(f, "topic {topic} (before Kafka 2.8: or IDEMPOTENT_WRITE on the cluster)")
            }
            Self::Cluster => write!(f, "the cluster"),
        }
    }
}

impl Resource {
    /// As an option of Kafka's tool for access control lists.
    fn option(&self) -> String {
        match self {
            Self::Topic(name) | Self::Idempotence(name) => format!("--topic {name}"),
            Self::Group(name) => format!("--group '{name}'"),
            Self::TransactionalId(name) => format!("--transactional-id {name}"),
            Self::Cluster => "--cluster".into(),
        }
    }
}

/// The broker that takes a group's or a transaction's requests: librdkafka has a connection of its own to it.
const COORDINATOR: &str = "the coordinator";

/// The meaning of a code, in Kafka's words.
pub fn words(code: Code) -> String {
    // `NAME (WORDS)`
    let whole = code.to_string();
    let words = whole.split_once(" (").and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&whole).to_owned()
}

/// The broker that a reason is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broker {
    /// `HOST:PORT`
    address: String,
    /// Which broker it is, if Kafka gave the address (`advertised.listeners`) and not `--brokers`.
    advertised_by: Option<String>,
}

impl Reason {
    /// `operation` is missing on a resource.
    pub fn denied(operation: &'static str, on: Resource) -> Self {
        Self { kind: Kind::Denied { operation, on }, broker: None, said: String::new() }
    }

    /// No answer, and no reason known: `brokers` are those that were asked.
    pub fn silent(brokers: &str, code: Code) -> Self {
        let broker = Broker { address: brokers.to_owned(), advertised_by: None };
        Self { kind: Kind::Silent, broker: Some(broker), said: words(code) }
    }

    /// A broker, by librdkafka's name, that is connected and has not answered for a while.
    pub fn hanging(name: &str) -> Self {
        let broker = Broker::read(&format!("{name}: ")).0;
        Self { kind: Kind::Silent, broker, said: "a request is not answered".into() }
    }

    /// An error that explains itself.
    pub fn words(error: &impl Display) -> Self {
        Self { kind: Kind::Other, broker: None, said: error.to_string() }
    }

    /// Whether another attempt is useless until somebody changes the settings here or the rights there.
    pub fn is_final(&self) -> bool {
        self.rank() <= 1
    }

    /// A missing right, said as the one that was needed for a request.
    pub fn for_request(mut self, needed: &'static str, topic: &str) -> Self {
        if let Kind::Denied { operation, on } = &mut self.kind {
            *operation = needed;
            if let Resource::Topic(name) = on {
                topic.clone_into(name);
            }
        }
        self
    }

    /// Whether it is about the coordinator, which is one of the brokers and is better named as that.
    pub fn is_of_coordinator(&self) -> bool {
        self.advertiser() == Some(COORDINATOR)
    }

    /// Whether it is about a broker that is away, and not about what it has answered.
    pub fn is_of_connection(&self) -> bool {
        matches!(self.kind, Kind::Refused | Kind::Silent | Kind::Disconnected)
    }

    /// Whether a right is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self.kind, Kind::Denied { .. })
    }

    /// Whether a right to a group is missing.
    pub fn is_about_group(&self) -> bool {
        matches!(self.kind, Kind::Denied { on: Resource::Group(_), .. })
    }

    /// Whether it is a guess from how a connection ended: wrong where the broker is known to answer such clients.
    pub fn is_guess(&self) -> bool {
        matches!(self.kind, Kind::WantsTls | Kind::SpeaksNoTls | Kind::WantsSasl)
    }

    /// The sentence without the guess.
    pub fn disconnected(self) -> Self {
        Self { kind: Kind::Disconnected, ..self }
    }

    /// A broker's `HOST:PORT`, or a resource.
    pub fn about(&self) -> String {
        match &self.kind {
            Kind::Denied { on, .. } => on.to_string(),
            _ => self.address().unwrap_or_default().to_owned(),
        }
    }

    fn address(&self) -> Option<&str> {
        self.broker.as_ref().map(|broker| broker.address.as_str())
    }

    /// The rank of a reason: of several, the lowest one is reported.
    pub fn rank(&self) -> u8 {
        match self.kind {
            Kind::Credentials | Kind::Mechanism | Kind::NoSasl | Kind::Certificate | Kind::ClientCertificate => 0,
            Kind::Denied { .. } | Kind::SessionTimeout => 1,
            Kind::Assignor | Kind::WantsTls | Kind::SpeaksNoTls | Kind::WantsSasl | Kind::NotKafka => 2,
            Kind::Unresolved => 3,
            Kind::Refused | Kind::Silent => 4,
            Kind::Disconnected | Kind::Other => 5,
        }
    }

    /// Whether two are of one kind, whatever the words.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
    }
}

impl Broker {
    fn host(&self) -> &str {
        self.address.rsplit_once(':').map_or(&self.address, |(host, _)| host)
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let said = &self.said;
        let at = self.address().unwrap_or("a broker");
        match &self.kind {
            Kind::Credentials => write!(
                f,
                "{at} refuses the user or the password ({said}): check --kafka sasl.username=…, sasl.password=… and sasl.mechanism=…"
            ),
            Kind::Mechanism => {
                write!(f, "{at} does not take this SASL mechanism, only {said}: check --kafka sasl.mechanism=…")
            }
            Kind::NoSasl => write!(
                f,
                "{at} knows no users at this port: set --kafka security.protocol=PLAINTEXT or SSL, or use its SASL port in --brokers"
            ),
            Kind::Certificate => write!(
                f,
                "the certificate of {at} is not trusted, has expired, or is for another host name: name its CA with --kafka ssl.ca.location=FILE, and in --brokers the host that it is for"
            ),
            Kind::ClientCertificate => write!(
                f,
                "{at} does not accept this client's certificate ({said}): check --kafka ssl.certificate.location=FILE and ssl.key.location=FILE"
            ),
            // With the command that grants it, since that is what to type next.
            Kind::Denied { operation, on } => write!(
                f,
                "this user lacks the right {operation} on {on}: grant it, for example with kafka-acls.sh --add --allow-principal User:… --operation {operation} {}",
                on.option()
            ),
            Kind::WantsTls => write!(
                f,
                "{at} closes the connection before it answers: it may want TLS, --kafka security.protocol=SSL or SASL_SSL"
            ),
            Kind::SpeaksNoTls => write!(
                f,
                "{at} does not speak TLS at this port: set --kafka security.protocol=PLAINTEXT or SASL_PLAINTEXT, or use its TLS port in --brokers"
            ),
            Kind::WantsSasl => write!(
                f,
                "{at} closes the connection at the first request: it may want a user, --kafka security.protocol=SASL_PLAINTEXT or SASL_SSL, with sasl.mechanism, sasl.username and sasl.password"
            ),
            Kind::NotKafka => write!(f, "{at} is not Kafka but {said}: check --brokers"),
            Kind::Unresolved => self.unresolved(f),
            Kind::Refused => self.refused(f),
            Kind::Silent => write!(
                f,
                "{at} does not answer ({said}): check that it is well, and that no firewall is in between{}",
                self.or_advertised()
            ),
            Kind::Disconnected => write!(f, "{at} is gone ({said})"),
            Kind::SessionTimeout => write!(
                f,
                "the brokers do not allow this session.timeout.ms: choose one from their group.min.session.timeout.ms to their group.max.session.timeout.ms with --kafka session.timeout.ms=…"
            ),
            Kind::Assignor => write!(
                f,
                "other members of the group share its partitions by another partition.assignment.strategy: end those, or use another --group"
            ),
            Kind::Other if self.broker.is_some() => write!(f, "{at}: {said}"),
            Kind::Other => write!(f, "{said}"),
        }
    }
}

impl Reason {
    fn unresolved(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (host, said) = (self.broker.as_ref().map_or("", Broker::host), &self.said);
        match self.advertiser() {
            Some(broker) => write!(
                f,
                "the host name {host} is not known here ({said}): {broker} gives it to clients; change its advertised.listeners, or make the name known on this machine"
            ),
            None => write!(f, "the host name {host} is not known here ({said}): check --brokers"),
        }
    }

    fn refused(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (at, said) = (self.address().unwrap_or("a broker"), &self.said);
        match self.advertiser() {
            Some(broker) => write!(
                f,
                "nothing listens at {at} ({said}): {broker} gives this address to clients; check that it runs, and its advertised.listeners"
            ),
            None => write!(f, "nothing listens at {at} ({said}): check --brokers, and that Kafka runs"),
        }
    }

    fn advertiser(&self) -> Option<&str> {
        self.broker.as_ref().and_then(|broker| broker.advertised_by.as_deref())
    }

    fn or_advertised(&self) -> &'static str {
        if self.advertiser().is_some() { ", or its advertised.listeners" } else { ", or --brokers" }
    }
}
