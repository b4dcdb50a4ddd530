//! The proof that a member's partitions are its own.

use crate::clickhouse::{Clock, LIFETIME, Moment};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// When the coordinator was last asked a question that it answered with *you are a member*.
///
/// A commit that Kafka takes shows that, and begins the session anew. So for a session after it was *sent*, nobody else is given
/// what this member holds. An insert may begin [`LIFETIME`] after it was named; whoever names one within a session less that time
/// after a proof was asked for knows that it is over before anybody else may ask. It makes no difference whether this process was
/// frozen, or cut off from Kafka, or never noticed; nor whether its machine slept: then inserts are named too early for the
/// server, which refuses them, and whose clock shows that the proof is old.
#[derive(Debug)]
pub struct Proof {
    good_for: Duration,
    clock: Arc<Clock>,
    asked: Mutex<Option<Moment>>,
    denied: AtomicBool,
}

impl Proof {
    /// No proof yet, for a member with this session timeout, whose inserts expire by this clock.
    pub fn new(session: Duration, clock: Arc<Clock>) -> Self {
        Self {
            good_for: session.saturating_sub(LIFETIME),
            clock,
            asked: Mutex::default(),
            denied: AtomicBool::default(),
        }
    }

    /// How long one is good for.
    pub fn good_for(&self) -> Duration {
        self.good_for
    }

    /// The coordinator is about to be asked.
    pub fn asks(&self) -> Moment {
        self.clock.now()
    }

    /// The coordinator has taken what was sent then, or later. There is one who asks, one question after the other.
    pub fn given(&self, asked: Moment) {
        *self.asked() = Some(asked);
        self.denied.store(false, Relaxed);
    }

    /// A lease begins: what was said of the one before does not matter any more.
    pub fn begin(&self) {
        self.denied.store(false, Relaxed);
    }

    /// The coordinator has said *you are no member*: what it had said before is void.
    pub fn denied(&self) {
        *self.asked() = None;
        self.denied.store(true, Relaxed);
    }

    /// Whether that is the last that it has said. Who polls learns it from librdkafka as well; who drains does not poll.
    pub fn is_denied(&self) -> bool {
        self.denied.load(Relaxed)
    }

    /// Whether what was named up to now may be sent.
    pub fn holds(&self) -> bool {
        self.asked().is_some_and(|asked| self.clock.since(asked) <= self.good_for)
    }

    fn asked(&self) -> MutexGuard<'_, Option<Moment>> {
        // One value that is replaced in one step.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn proof(session: Duration) -> (Proof, Arc<Clock>) {
        let clock = Arc::new(Clock::default());
        clock.set(1_000_000, Instant::now());
        (Proof::new(session, clock.clone()), clock)
    }

    #[test]
    fn a_proof_is_good_from_when_it_was_asked_for() {
        let (proof, clock) = proof(LIFETIME + Duration::from_secs(60));
        assert!(!proof.holds(), "nobody has asked yet");
        let asked = proof.asks();
        proof.given(asked);
        assert!(proof.holds());
        clock.set(1_061_000, Instant::now());
        assert!(!proof.holds(), "it was asked for long ago");
        proof.given(asked);
        assert!(!proof.holds(), "the answer came, but long after the question");
        proof.given(proof.asks());
        assert!(proof.holds());
        proof.denied();
        assert!(!proof.holds() && proof.is_denied());
        proof.given(proof.asks());
        assert!(proof.holds() && !proof.is_denied());
    }

    #[test]
    fn a_session_that_no_insert_fits_into_proves_nothing() {
        let (proof, clock) = proof(LIFETIME / 2);
        let asked = proof.asks();
        clock.set(1_000_100, Instant::now());
        proof.given(asked);
        assert!(!proof.holds());
    }
}
