//! The places where the flow can get stuck, since when and why: for `/readyz`, `/metrics` and the log.
//! `docs/operations.md` has the actions.

mod at;

pub use at::At;

use flows::Pauses;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A problem that lasts is logged again after this time.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// The present problem of each place.
#[derive(Debug, Default)]
pub struct Stuck {
    places: [Mutex<Option<Lasting>>; At::ALL.len()],
    /// Messages have waited for longer than the promise.
    is_late: AtomicBool,
    /// Finds pauses of this process: the problems are looked at every second.
    pauses: Mutex<Pauses>,
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
        self.look(Instant::now());
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
        self.look(Instant::now());
        let over = self.place(at).take();
        if let Some(Lasting { since, .. }) = over.filter(|over| over.said.is_some()) {
            tracing::info!("{} after {}", at.over(), seconds(since));
        }
    }

    /// Forgets a problem that is not one any more, for example of partitions that others have now.
    pub fn forget(&self, at: At) {
        *self.place(at) = None;
    }

    /// Notes whether messages have waited for longer than the promise.
    pub fn is_late(&self, is_late: bool) {
        self.is_late.store(is_late, Relaxed);
    }

    /// How long it has lasted; zero while all is well.
    pub fn lasts(&self, at: At) -> Duration {
        self.look(Instant::now());
        self.place(at).as_ref().map_or(Duration::ZERO, |lasting| lasting.since.elapsed())
    }

    /// The reason why the process is not ready, in a sentence.
    pub fn not_ready(&self) -> Option<String> {
        let (at, lasting) = self.first(|at| at.too_long(self.is_late.load(Relaxed)))?;
        Some(lasting.sentence(at))
    }

    /// The present problem, and what happens to the messages meanwhile, in a few words.
    pub fn now(&self) -> Option<(String, &'static str)> {
        let (at, lasting) = self.first(|at| at.said_after(self.is_late.load(Relaxed)))?;
        Some((format!("{} for {}", at.means(), seconds(lasting.since)), at.keeps()))
    }

    /// Warns of a problem, once and then now and then while it lasts.
    pub fn warn(&self) {
        let Some((at, lasting)) = self.first(|at| at.said_after(self.is_late.load(Relaxed))) else { return };
        if lasting.said.is_none_or(|said| said.elapsed() >= REPEAT_INTERVAL)
            && let Some(still) = &mut *self.place(at)
        {
            still.said = Some(Instant::now());
            tracing::warn!("{}; trying again, and {}", lasting.sentence(at), at.meanwhile());
        }
    }

    /// The first problem that has lasted as long as `time` says for its place.
    fn first(&self, time: impl Fn(At) -> Duration) -> Option<(At, Lasting)> {
        self.look(Instant::now());
        At::ALL.into_iter().find_map(|at| {
            let lasting = self.place(at).clone()?;
            (lasting.since.elapsed() >= time(at)).then_some((at, lasting))
        })
    }

    /// A pause of this process itself is not a time for which a problem has lasted.
    fn look(&self, now: Instant) {
        let pause = self.pauses.lock().unwrap_or_else(PoisonError::into_inner).look(now);
        let Some(pause) = pause else { return };
        for at in At::ALL {
            if let Some(lasting) = &mut *self.place(at) {
                lasting.since = (lasting.since + pause).min(now);
            }
        }
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
    fn a_problem_does_not_last_while_this_process_itself_is_paused() {
        let (stuck, began) = (Stuck::default(), Instant::now());
        stuck.is_since(At::Storing, began, "100 messages");
        let since = |stuck: &Stuck| stuck.place(At::Storing).clone().unwrap().since.duration_since(began).as_secs();
        for second in 1..=20 {
            stuck.look(began + Duration::from_secs(second));
        }
        assert_eq!(since(&stuck), 0);
        stuck.look(began + Duration::from_secs(120));
        assert_eq!(since(&stuck), 100, "it has lasted for 20 s");
        stuck.look(began + Duration::from_secs(121));
        assert_eq!(since(&stuck), 100);
    }

    #[test]
    fn a_wait_for_the_group_is_said_and_not_ready_at_once_if_messages_have_waited_longer_than_promised() {
        for at in [At::Group, At::Lease] {
            let stuck = Stuck::default();
            stuck.is(at, "30 messages wait");
            assert_eq!((stuck.now(), stuck.not_ready()), (None, None), "a rebalance is usual");
            stuck.is_late(true);
            assert_eq!(stuck.now(), Some((format!("{} for 0 s", at.means()), "Kafka keeps them")));
            assert_eq!(stuck.not_ready(), Some(format!("{} for 0 s: 30 messages wait", at.means())));
            stuck.is_over(at);
            assert_eq!(stuck.not_ready(), None, "a backlog that is worked on is ready");
        }
        let stuck = Stuck::default();
        stuck.is_late(true);
        stuck.is(At::Storing, "a slow insert");
        assert_eq!(stuck.not_ready(), None);
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
