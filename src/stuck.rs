//! The places where the flow can get stuck, since when and why: for `/readyz`, `/metrics` and the log.
//! `docs/operations.md` has the actions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From then on it is in the log and in the status line.
const SAID_AFTER: Duration = Duration::from_secs(10);
/// From then on the process is not ready. A drain of its usual length and a rebalance are over by then.
const TOO_LONG: Duration = Duration::from_secs(30);
/// The time of an acknowledgement on a busy machine. A service that is away is noted only when it is known to be.
const USUAL_ACK: Duration = Duration::from_secs(2);
/// A problem that lasts is logged again after this time.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// Services are looked at twice a second. A longer gap between two looks means that this process itself was stopped, or its machine
/// asleep: it could hear no answer.
pub const PAUSED: Duration = Duration::from_secs(5);

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
    const ALL: [Self; 8] = [
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

    const fn meanwhile(self) -> &'static str {
        match self {
            Self::Kafka | Self::ClickHouse => "nothing is lost: Kafka keeps the messages",
            Self::Acknowledgement => "messages wait in this process: they are lost if it ends",
            _ => "messages wait for as long as the topic keeps them",
        }
    }

    const fn keeps(self) -> &'static str {
        match self {
            Self::Acknowledgement => "messages wait here",
            _ => "Kafka keeps them",
        }
    }

    const fn means(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka has not answered",
            Self::ClickHouse => "ClickHouse has not answered",
            Self::Topic => "Kafka has not said where the topic ends",
            Self::Group => "the group has not assigned partitions",
            Self::Lease => "no lease could be opened, so nothing is read",
            Self::Storing => "messages wait and none is stored",
            Self::Commit => "offsets are stored and not committed",
            Self::Acknowledgement => "messages wait for Kafka and none is acknowledged",
        }
    }

    const fn over(self) -> &'static str {
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

    /// The time from which on it is said.
    const fn said_after(self) -> Duration {
        match self {
            Self::Kafka | Self::ClickHouse => Duration::ZERO,
            Self::Acknowledgement => USUAL_ACK,
            _ => SAID_AFTER,
        }
    }

    /// The time from which on the process is not ready.
    const fn too_long(self) -> Duration {
        match self {
            Self::Kafka | Self::ClickHouse | Self::Acknowledgement => self.said_after(),
            _ => TOO_LONG,
        }
    }
}

/// The present problem of each place.
#[derive(Debug, Default)]
pub struct Stuck {
    places: [Mutex<Option<Lasting>>; At::ALL.len()],
}

#[derive(Clone, Debug)]
struct Lasting {
    since: Instant,
    why: String,
    /// The known cause, which is reported instead of `why`.
    cause: Option<String>,
    /// When it was last logged.
    said: Option<Instant>,
}

impl Stuck {
    /// Notes that the flow is stuck here, still or from now on; `why` is the newest reason.
    pub fn is(&self, at: At, why: impl Into<String>) {
        self.is_since(at, Instant::now(), why);
    }

    /// Notes that the flow is stuck here, still or since this moment; `why` is the newest reason.
    pub fn is_since(&self, at: At, since: Instant, why: impl Into<String>) {
        let (mut place, why) = (self.place(at), why.into());
        match &mut *place {
            Some(lasting) => lasting.why = why,
            none => *none = Some(Lasting { since, why, cause: None, said: None }),
        }
    }

    /// Notes the known cause of a lasting problem: it is better than the reason with which the problem began.
    pub fn because(&self, at: At, cause: Option<String>) {
        if let Some(lasting) = &mut *self.place(at) {
            lasting.cause = cause;
        }
    }

    /// Notes that the flow is not stuck here; logs it where the problem was logged.
    pub fn is_over(&self, at: At) {
        let over = self.place(at).take();
        if let Some(Lasting { since, .. }) = over.filter(|over| over.said.is_some()) {
            tracing::info!("{} after {}", at.over(), seconds(since));
        }
    }

    /// Forgets a problem that is not one any more, for example of partitions that others have now.
    pub fn forget(&self, at: At) {
        *self.place(at) = None;
    }

    /// How long it has lasted; zero while all is well.
    pub fn lasts(&self, at: At) -> Duration {
        self.place(at).as_ref().map_or(Duration::ZERO, |lasting| lasting.since.elapsed())
    }

    /// The reason why the process is not ready, in a sentence.
    pub fn not_ready(&self) -> Option<String> {
        let (at, lasting) = self.first(At::too_long)?;
        Some(lasting.sentence(at))
    }

    /// The present problem, and what happens to the messages meanwhile, in a few words.
    pub fn now(&self) -> Option<(String, &'static str)> {
        let (at, lasting) = self.first(At::said_after)?;
        Some((format!("{} for {}", at.means(), seconds(lasting.since)), at.keeps()))
    }

    /// Warns of a problem, once and then now and then while it lasts.
    pub fn warn(&self) {
        let Some((at, lasting)) = self.first(At::said_after) else { return };
        if lasting.said.is_none_or(|said| said.elapsed() >= REPEAT_INTERVAL)
            && let Some(still) = &mut *self.place(at)
        {
            still.said = Some(Instant::now());
            tracing::warn!("{}; trying again, and {}", lasting.sentence(at), at.meanwhile());
        }
    }

    /// The first problem that has lasted as long as `time` says for its place.
    fn first(&self, time: impl Fn(At) -> Duration) -> Option<(At, Lasting)> {
        At::ALL.into_iter().find_map(|at| {
            let lasting = self.place(at).clone()?;
            (lasting.since.elapsed() >= time(at)).then_some((at, lasting))
        })
    }

    fn place(&self, at: At) -> MutexGuard<'_, Option<Lasting>> {
        // One value that is replaced in one step.
        self.places[at as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lasting {
    fn sentence(&self, at: At) -> String {
        format!("{} for {}: {}", at.means(), seconds(self.since), self.cause.as_ref().unwrap_or(&self.why))
    }
}

/// The time since then, in whole seconds.
fn seconds(since: Instant) -> String {
    format!("{:.0} s", since.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Stuck {
        fn said(&self) -> Option<String> {
            self.first(|_| Duration::ZERO).map(|(at, lasting)| lasting.sentence(at))
        }
    }

    #[test]
    fn it_lasts_from_its_first_moment_and_has_the_newest_reason() {
        let stuck = Stuck::default();
        assert_eq!((stuck.lasts(At::Lease), stuck.said()), (Duration::ZERO, None));
        stuck.is(At::Commit, "no coordinator");
        stuck.is(At::Lease, "first");
        let since = stuck.place(At::Lease).clone().unwrap().since;
        stuck.is(At::Lease, "Code: 241");
        assert_eq!(stuck.place(At::Lease).clone().unwrap().since, since);
        assert_eq!(stuck.said().unwrap(), "no lease could be opened, so nothing is read for 0 s: Code: 241");
        assert_eq!((stuck.not_ready(), stuck.now()), (None, None), "it has not lasted for long");
        stuck.because(At::Lease, Some("a right is missing".into()));
        stuck.is(At::Lease, "asked again");
        assert!(stuck.said().unwrap().ends_with("for 0 s: a right is missing"));
        stuck.because(At::Lease, None);
        assert!(stuck.said().unwrap().ends_with("for 0 s: asked again"));
        stuck.because(At::Group, Some("nothing lasts there".into()));
        assert_eq!(stuck.lasts(At::Group), Duration::ZERO);
        stuck.is_over(At::Lease);
        assert!(stuck.said().unwrap().contains("no coordinator"));
    }

    #[test]
    fn a_service_that_is_away_is_said_at_once_with_the_time_since_its_last_answer() {
        let (stuck, now) = (Stuck::default(), Instant::now());
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("this machine runs for a minute");
        stuck.is_since(At::Storing, before(20), "100 messages");
        stuck.is_since(At::ClickHouse, before(12), "no answer to a ping");
        let short = ("ClickHouse has not answered for 12 s".into(), "Kafka keeps them");
        assert_eq!(stuck.now(), Some(short));
        assert_eq!(stuck.not_ready().unwrap(), "ClickHouse has not answered for 12 s: no answer to a ping");
        stuck.warn();
        let said = stuck.place(At::ClickHouse).clone().unwrap().said;
        stuck.warn();
        assert_eq!(stuck.place(At::ClickHouse).clone().unwrap().said, said, "it is said once");
        stuck.is_over(At::ClickHouse);
        assert!(stuck.now().unwrap().0.starts_with("messages wait and none is stored for 20 s"));
        assert_eq!(stuck.not_ready(), None);
    }
}
