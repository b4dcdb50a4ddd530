//! The places where the flow can get stuck, in words, and for how long that is usual.

use std::time::Duration;

/// From then on it is in the log and in the status line.
const SAID_AFTER: Duration = Duration::from_secs(10);
/// From then on the process is not ready. A drain of its usual length and a rebalance are over by then.
const TOO_LONG: Duration = Duration::from_secs(30);
/// The time of an acknowledgement on a busy machine. A service that is away is noted only when it is known to be.
const USUAL_ACK: Duration = Duration::from_secs(2);

/// Where the flow can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// No broker answers.
    Kafka,
    /// ClickHouse does not answer.
    ClickHouse,
    /// Brokers answer, and none says where the topic ends.
    Topic,
    /// The group has not said what this member owns.
    Group,
    /// Partitions are this member's, and it is not known what of them is committed and stored.
    Lease,
    /// Messages wait, and none is stored.
    Storing,
    /// Rows are stored, and their offsets are not committed.
    Commit,
    /// Messages were handed to Kafka, and none is acknowledged.
    Acknowledgement,
}

impl At {
    /// Those of an ingester, those first that bring the later ones with them.
    pub const INGEST: [Self; 7] =
        [Self::Kafka, Self::ClickHouse, Self::Topic, Self::Group, Self::Lease, Self::Storing, Self::Commit];
    /// Those of a producer.
    pub const PRODUCE: [Self; 1] = [Self::Acknowledgement];
    pub(super) const ALL: [Self; 8] = [
        Self::Kafka,
        Self::ClickHouse,
        Self::Topic,
        Self::Group,
        Self::Lease,
        Self::Storing,
        Self::Commit,
        Self::Acknowledgement,
    ];

    /// Its label in `/metrics`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
            Self::Topic => "topic",
            Self::Group => "group",
            Self::Lease => "lease",
            Self::Storing => "delivery",
            Self::Commit => "commit",
            Self::Acknowledgement => "acknowledgement",
        }
    }

    /// Whether a service is away, for each topic.
    pub(super) const fn is_service(self) -> bool {
        matches!(self, Self::Kafka | Self::ClickHouse)
    }

    pub(super) const fn meanwhile(self) -> &'static str {
        match self {
            Self::Kafka | Self::ClickHouse => "nothing is lost: Kafka keeps the messages",
            Self::Acknowledgement => "messages wait in this process: they are lost if it ends",
            _ => "messages wait for as long as the topic keeps them",
        }
    }

    pub(super) const fn keeps(self) -> &'static str {
        match self {
            Self::Acknowledgement => "messages wait here",
            _ => "Kafka keeps them",
        }
    }

    pub(super) const fn means(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka has not answered",
            Self::ClickHouse => "ClickHouse has not answered",
            Self::Topic => "Kafka has not said where the topic ends",
            Self::Group => "this member has waited for its group",
            Self::Lease => "no lease could be opened, so nothing is read",
            Self::Storing => "messages wait and none is stored",
            Self::Commit => "offsets are stored and not committed",
            Self::Acknowledgement => "messages wait for Kafka and none is acknowledged",
        }
    }

    pub(super) const fn over(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka answers again",
            Self::ClickHouse => "ClickHouse answers again",
            Self::Topic => "Kafka says again where the topic ends",
            Self::Group => "the group has assigned partitions",
            Self::Lease => "a lease is open",
            Self::Storing => "messages are stored again",
            Self::Commit => "offsets are committed again",
            Self::Acknowledgement => "Kafka acknowledges messages again",
        }
    }

    /// The time from which on it is said. Nothing is read without an assignment and a lease: if messages have waited longer than the
    /// promise then, that is said at once.
    pub(super) const fn said_after(self, is_late: bool) -> Duration {
        match self {
            Self::Kafka | Self::ClickHouse => Duration::ZERO,
            Self::Group | Self::Lease if is_late => Duration::ZERO,
            Self::Acknowledgement => USUAL_ACK,
            _ => SAID_AFTER,
        }
    }

    /// The time from which on the process is not ready.
    pub(super) const fn too_long(self, is_late: bool) -> Duration {
        match self {
            Self::Kafka | Self::ClickHouse | Self::Acknowledgement => self.said_after(is_late),
            Self::Group | Self::Lease if is_late => Duration::ZERO,
            _ => TOO_LONG,
        }
    }
}
