//! The places where the flow can get stuck, since when and why: for `/readyz`, `/metrics` and the log.
//! `docs/operations.md` has the actions.

use crate::log_throttle::LogThrottle;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From then on it is in the log.
const SAID_AFTER: Duration = Duration::from_secs(10);
/// From then on the process is not ready. A broker or ClickHouse that is started again, a drain of its usual length and a
/// rebalance are over by then.
pub const TOO_LONG: Duration = Duration::from_secs(30);

/// Where the flow can stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// No broker says where the topic ends.
    Kafka,
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
    pub const INGEST: [Self; 5] = [Self::Kafka, Self::Group, Self::Lease, Self::Storing, Self::Commit];
    /// Those of a producer.
    pub const PRODUCE: [Self; 1] = [Self::Acknowledgement];
    const ALL: [Self; 6] = [Self::Kafka, Self::Group, Self::Lease, Self::Storing, Self::Commit, Self::Acknowledgement];

    /// Its label in `/metrics`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Group => "group",
            Self::Lease => "lease",
            Self::Storing => "delivery",
            Self::Commit => "commit",
            Self::Acknowledgement => "acknowledgement",
        }
    }

    const fn meanwhile(self) -> &'static str {
        match self {
            Self::Acknowledgement => "messages wait in this process: they are lost if it ends",
            _ => "messages wait for as long as the topic keeps them",
        }
    }

    const fn means(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka has not said where the topic ends",
            Self::Group => "the group has not assigned partitions",
            Self::Lease => "no lease could be opened, so nothing is read",
            Self::Storing => "messages wait and none is stored",
            Self::Commit => "offsets are stored and not committed",
            Self::Acknowledgement => "messages wait for Kafka and none is acknowledged",
        }
    }
}

/// The present problem of each place.
#[derive(Debug, Default)]
pub struct Stuck {
    places: [Mutex<Option<Lasting>>; At::ALL.len()],
    said: LogThrottle,
}

#[derive(Clone, Debug)]
struct Lasting {
    since: Instant,
    why: String,
    /// The known cause, which is reported instead of `why`.
    cause: Option<String>,
}

impl Stuck {
    /// Notes that the flow is stuck here, still or from now on; `why` is the newest reason.
    pub fn is(&self, at: At, why: impl Into<String>) {
        let mut place = self.place(at);
        let (since, cause) = place.take().map_or((Instant::now(), None), |lasting| (lasting.since, lasting.cause));
        *place = Some(Lasting { since, why: why.into(), cause });
    }

    /// Notes the known cause of a lasting problem: it is better than the reason with which the problem began.
    pub fn because(&self, at: At, cause: Option<String>) {
        if let Some(lasting) = &mut *self.place(at) {
            lasting.cause = cause;
        }
    }

    /// Notes that the flow is not stuck here.
    pub fn is_over(&self, at: At) {
        *self.place(at) = None;
    }

    /// How long it has lasted; zero while all is well.
    pub fn lasts(&self, at: At) -> Duration {
        self.place(at).as_ref().map_or(Duration::ZERO, |lasting| lasting.since.elapsed())
    }

    /// The first problem that has lasted this long, in a sentence.
    pub fn longer_than(&self, time: Duration) -> Option<String> {
        self.first(time).map(|(_, what)| what)
    }

    fn first(&self, time: Duration) -> Option<(At, String)> {
        At::ALL.into_iter().find_map(|at| {
            let lasting = self.place(at).clone().filter(|lasting| lasting.since.elapsed() >= time)?;
            let (since, why) = (lasting.since, lasting.cause.unwrap_or(lasting.why));
            Some((at, format!("{} for {} s: {why}", at.means(), since.elapsed().as_secs())))
        })
    }

    /// Warns now and then, while something lasts.
    pub fn warn(&self) {
        if let Some((at, what)) = self.first(SAID_AFTER)
            && self.said.now()
        {
            tracing::warn!("{what}; trying again, and {}", at.meanwhile());
        }
    }

    fn place(&self, at: At) -> MutexGuard<'_, Option<Lasting>> {
        // One value that is replaced in one step.
        self.places[at as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_its_first_moment_and_has_the_newest_reason() {
        let stuck = Stuck::default();
        assert_eq!((stuck.lasts(At::Lease), stuck.longer_than(Duration::ZERO)), (Duration::ZERO, None));
        stuck.is(At::Commit, "no coordinator");
        stuck.is(At::Lease, "first");
        let since = stuck.place(At::Lease).clone().unwrap().since;
        stuck.is(At::Lease, "Code: 241");
        assert_eq!(stuck.place(At::Lease).clone().unwrap().since, since);
        let said = stuck.longer_than(Duration::ZERO).unwrap();
        assert_eq!(said, "no lease could be opened, so nothing is read for 0 s: Code: 241");
        assert_eq!(stuck.longer_than(TOO_LONG), None);
        stuck.because(At::Lease, Some("a right is missing".into()));
        stuck.is(At::Lease, "asked again");
        assert!(stuck.longer_than(Duration::ZERO).unwrap().ends_with("for 0 s: a right is missing"));
        stuck.because(At::Lease, None);
        assert!(stuck.longer_than(Duration::ZERO).unwrap().ends_with("for 0 s: asked again"));
        stuck.because(At::Group, Some("nothing lasts there".into()));
        assert_eq!(stuck.lasts(At::Group), Duration::ZERO);
        stuck.is_over(At::Lease);
        assert!(stuck.longer_than(Duration::ZERO).unwrap().contains("no coordinator"));
    }
}
