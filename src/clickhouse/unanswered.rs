//! Inserts that have no answer although they usually have one by now.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An insert that takes longer than this, and longer than twice the longest of the last ones, is silent.
const USUAL: Duration = Duration::from_secs(2);
/// The number of answers by which that is judged.
const ANSWERS: usize = 20;
/// The pause before an insert without an answer is sent again is shorter than this.
const PAUSE: Duration = Duration::from_secs(3);

/// The inserts under way.
#[derive(Default)]
pub struct Unanswered(Mutex<State>);

#[derive(Default)]
struct State {
    under_way: usize,
    /// When the server should have begun to work on the insert that it has not answered.
    since: Option<Instant>,
    /// When an insert last ended without an answer.
    given_up: Option<Instant>,
    took: VecDeque<Duration>,
}

impl Unanswered {
    /// Sends an insert: `exchange` is done when it is answered, or has failed without an answer.
    pub async fn during<T, E>(&self, exchange: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut sent = Sent { of: self, at: Instant::now(), has_ended: false };
        self.state().begins(sent.at);
        let outcome = exchange.await;
        sent.has_ended = true;
        if outcome.is_ok() {
            let mut state = self.state();
            state.took.push_back(sent.at.elapsed());
            if state.took.len() > ANSWERS {
                state.took.pop_front();
            }
            state.since = (state.under_way > 1).then(Instant::now);
        }
        outcome
    }

    /// Since when an insert has had no answer for longer than usual.
    pub fn silent_since(&self) -> Option<Instant> {
        self.state().silent_since(Instant::now())
    }

    /// Counts the silence from now on: this process itself was paused, and could hear no answer.
    pub fn begin_again(&self) {
        let mut state = self.state();
        state.since = (state.under_way > 0).then(Instant::now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An insert is sent. A silence of inserts that are no longer sent is another one.
    fn begins(&mut self, now: Instant) {
        let silence = self.since.filter(|_| self.is_sent(now));
        (self.under_way, self.since) = (self.under_way + 1, silence.or(Some(now)));
    }

    fn silent_since(&self, now: Instant) -> Option<Instant> {
        let longest = self.took.iter().max().copied().unwrap_or_default();
        let is_sent = self.is_sent(now);
        self.since.filter(|since| is_sent && now.duration_since(*since) > USUAL.max(longest * 2))
    }

    /// An insert is under way, or about to be sent again.
    fn is_sent(&self, now: Instant) -> bool {
        self.under_way > 0 || self.given_up.is_some_and(|at| now.duration_since(at) < PAUSE)
    }
}

/// An insert under way, until it is answered or dropped.
struct Sent<'u> {
    of: &'u Unanswered,
    at: Instant,
    /// Whether the insert was answered, or has failed.
    has_ended: bool,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state();
        state.under_way -= 1;
        // One that is dropped in its usual time was given up by its own lease: that says nothing about ClickHouse.
        if self.has_ended || self.at.elapsed() > USUAL {
            state.given_up = Some(Instant::now());
        } else if state.under_way == 0 {
            state.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_longer_than_usual_and_ends_with_an_answer() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut state = State { under_way: 1, since: Some(began), ..State::default() };
        assert_eq!((state.silent_since(at(1_900)), state.silent_since(at(2_100))), (None, Some(began)));
        // An attempt has ended without an answer, and the next one has not begun.
        (state.under_way, state.given_up) = (0, Some(at(20_000)));
        assert_eq!(state.silent_since(at(21_000)), Some(began));
        assert_eq!(state.silent_since(at(24_000)), None, "nobody sends it any more");
        // The next outage.
        state.begins(at(90_000));
        assert_eq!((state.silent_since(at(91_900)), state.silent_since(at(92_100))), (None, Some(at(90_000))));
        // The same insert again, after a short pause.
        (state.under_way, state.given_up) = (0, Some(at(110_000)));
        state.begins(at(112_000));
        assert_eq!(state.silent_since(at(112_100)), Some(at(90_000)));
        // Inserts of fifty thousand rows on a slow disk.
        state = State { under_way: 1, since: Some(began), took: [Duration::from_secs(4)].into(), ..State::default() };
        assert_eq!((state.silent_since(at(7_900)), state.silent_since(at(8_100))), (None, Some(began)));
        state.since = None;
        assert_eq!(state.silent_since(at(60_000)), None);
    }

    #[tokio::test]
    async fn an_insert_that_its_lease_drops_is_no_silence() {
        let inserts = Unanswered::default();
        let never = || inserts.during(std::future::pending::<Result<(), ()>>());
        assert!(futures::poll!(Box::pin(never())).is_pending());
        assert_eq!(inserts.state().since, None, "nothing is awaited");
        let (mut first, mut second) = (Box::pin(never()), Box::pin(never()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        let since = inserts.state().since;
        drop(first);
        assert_eq!(inserts.state().since, since, "the other one is awaited");
        inserts.begin_again();
        assert!(inserts.state().since > since);
        drop(second);
        assert_eq!(inserts.state().since, None);
        assert_eq!(inserts.silent_since(), None);
    }
}
