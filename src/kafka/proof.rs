//! The proof that a member's partitions are its own.

use crate::clickhouse::LIFETIME;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// When the coordinator was last asked a question that it answered with *you are a member*.
///
/// A commit that Kafka takes shows that, and begins the session anew. So for a session after it was *sent*, nobody else is given
/// what this member holds. An insert may begin [`LIFETIME`] after it was named; whoever names one within a session less that time
/// after a proof was asked for knows that it is over before anybody else may ask. It makes no difference whether this process was
/// frozen, or cut off from Kafka, or never noticed.
#[derive(Debug)]
pub struct Proof {
    good_for: Duration,
    asked: Mutex<Option<Instant>>,
}

impl Proof {
    /// No proof yet, for a member with this session timeout.
    pub fn new(session: Duration) -> Self {
        Self { good_for: session.saturating_sub(LIFETIME), asked: Mutex::default() }
    }

    /// How long one is good for.
    pub fn good_for(&self) -> Duration {
        self.good_for
    }

    /// The coordinator has taken what was sent then, or later.
    pub fn given(&self, asked: Instant) {
        let mut last = self.asked();
        *last = (*last).max(Some(asked));
    }

    /// Whether what was named up to now may be sent.
    pub fn holds(&self) -> bool {
        self.asked().is_some_and(|asked| asked.elapsed() <= self.good_for)
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // One value that is replaced in one step.
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_from_when_it_was_asked_for() {
        let proof = Proof::new(LIFETIME + Duration::from_secs(60));
        assert!(!proof.holds(), "nobody has asked yet");
        let now = Instant::now();
        proof.given(now.checked_sub(Duration::from_secs(61)).unwrap());
        assert!(!proof.holds(), "the answer came, but long after the question");
        proof.given(now);
        assert!(proof.holds());
        proof.given(now.checked_sub(Duration::from_secs(61)).unwrap());
        assert!(proof.holds(), "an older one takes nothing away");
    }

    #[test]
    fn a_session_that_no_insert_fits_into_proves_nothing() {
        let proof = Proof::new(LIFETIME / 2);
        proof.given(Instant::now().checked_sub(Duration::from_millis(1)).unwrap());
        assert!(!proof.holds());
    }
}
