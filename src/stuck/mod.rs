//! The places where the flow can get stuck, since when and why: for `/readyz`, `/metrics` and the log.
//! `docs/operations.md` has the actions.

mod at;

pub use at::At;

use flows::Pauses;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Those of each topic, in a process with several.
    topics: Mutex<Vec<(String, Arc<Self>)>>,
    is_of_topic: bool,
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
    /// The problems of one topic of several, which are among these from then on.
    pub fn of_topic(&self, topic: &str) -> Arc<Self> {
        let stuck = Arc::new(Self { is_of_topic: true, ..Self::default() });
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).push((topic.to_owned(), stuck.clone()));
        stuck
    }

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

    /// Forgets all problems: the work has ended.
    pub fn forget_all(&self) {
        At::ALL.into_iter().for_each(|at| self.forget(at));
    }

    /// How long it has lasted, in any topic; zero while all is well.
    pub fn lasts(&self, at: At) -> Duration {
        self.look(Instant::now());
        let here = self.place(at).as_ref().map_or(Duration::ZERO, |lasting| lasting.since.elapsed());
        self.topics().iter().map(|(_, topic)| topic.lasts(at)).fold(here, Duration::max)
    }

    /// The reason why the process is not ready, in a sentence.
    pub fn not_ready(&self) -> Option<String> {
        let (topic, at, lasting) = self.worst(At::too_long)?;
        Some(about(topic.as_deref(), at, lasting.sentence(at)))
    }

    /// The present problem, and what happens to the messages meanwhile, in a few words.
    pub fn now(&self) -> Option<(String, &'static str)> {
        let (topic, at, lasting) = self.worst(At::said_after)?;
        let words = format!("{} for {}", at.means(), seconds(lasting.since));
        Some((about(topic.as_deref(), at, words), at.keeps()))
    }

    /// Warns of a problem, once and then now and then while it lasts: of one in each topic. The process warns for its topics, of a service
    /// that is away once for all of them.
    pub fn warn(&self) {
        if self.is_of_topic {
            return;
        }
        self.warn_of(None, &[]);
        let mut away = Vec::new();
        for (topic, stuck) in self.topics() {
            away.extend(stuck.warn_of(Some(&topic), &away).filter(|at| at.is_service()));
        }
    }

    /// Warns of the first problem, unless it is among those that are known; returns where it is.
    fn warn_of(&self, topic: Option<&str>, known: &[At]) -> Option<At> {
        let (at, lasting) = self.first(At::said_after)?;
        if !known.contains(&at)
            && lasting.said.is_none_or(|said| said.elapsed() >= REPEAT_INTERVAL)
            && let Some(still) = &mut *self.place(at)
        {
            still.said = Some(Instant::now());
            tracing::warn!("{}; trying again, and {}", about(topic, at, lasting.sentence(at)), at.meanwhile());
        }
        Some(at)
    }

    /// The problem that counts most, and the topic that has it.
    fn worst(&self, limit: fn(At, bool) -> Duration) -> Option<(Option<String>, At, Lasting)> {
        let of_topic = |(topic, stuck): (String, Arc<Self>)| {
            let (at, lasting) = stuck.first(limit)?;
            Some((Some(topic), at, lasting))
        };
        let here = self.first(limit).map(|(at, lasting)| (None, at, lasting));
        let all = here.into_iter().chain(self.topics().into_iter().filter_map(of_topic));
        all.min_by_key(|(_, at, lasting)| (*at as usize, lasting.since))
    }

    /// The first problem that has lasted as long as `limit` says for its place.
    fn first(&self, limit: fn(At, bool) -> Duration) -> Option<(At, Lasting)> {
        self.look(Instant::now());
        let is_late = self.is_late.load(Relaxed);
        At::ALL.into_iter().find_map(|at| {
            let lasting = self.place(at).clone()?;
            (lasting.since.elapsed() >= limit(at, is_late)).then_some((at, lasting))
        })
    }

    fn topics(&self) -> Vec<(String, Arc<Self>)> {
        // A list that is only added to.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// A sentence about a problem of a topic. A service that is away is a problem of all topics.
fn about(topic: Option<&str>, at: At, sentence: String) -> String {
    match topic.filter(|_| !at.is_service()) {
        Some(topic) => format!("topic {topic}: {sentence}"),
        None => sentence,
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
            self.first(|_, _| Duration::ZERO).map(|(at, lasting)| lasting.sentence(at))
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
    fn a_problem_of_one_topic_is_one_of_the_process_and_says_which_topic_has_it() {
        let stuck = Stuck::default();
        let [web, app] = ["web", "app"].map(|topic| stuck.of_topic(topic));
        assert_eq!((stuck.now(), stuck.not_ready(), stuck.lasts(At::Storing)), (None, None, Duration::ZERO));
        let before = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("a minute of uptime");
        app.is_since(At::Storing, before(40), "100 messages");
        assert_eq!(stuck.lasts(At::Storing).as_secs(), 40);
        assert_eq!(stuck.not_ready().unwrap(), "topic app: messages wait and none is stored for 40 s: 100 messages");
        assert!(stuck.now().unwrap().0.starts_with("topic app: messages wait"));
        web.is_since(At::Topic, before(31), "it is gone");
        assert!(stuck.not_ready().unwrap().starts_with("topic web: Kafka has not said where the topic ends for 31 s"));
        let said = |stuck: &Stuck, at| stuck.place(at).clone().is_some_and(|lasting| lasting.said.is_some());
        app.warn();
        assert!(!said(&app, At::Storing), "the process warns");
        stuck.warn();
        assert!(said(&app, At::Storing) && said(&web, At::Topic), "of each topic");
        [&app, &web].iter().for_each(|topic| topic.is_since(At::Kafka, before(5), "refused"));
        assert_eq!(stuck.not_ready().unwrap(), "Kafka has not answered for 5 s: refused");
        stuck.warn();
        assert!(said(&web, At::Kafka) && !said(&app, At::Kafka), "once for all topics");
        web.forget_all();
        app.forget_all();
        assert_eq!((stuck.now(), stuck.not_ready()), (None, None));
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
