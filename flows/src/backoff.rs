//! Waiting between tries: exponential, capped, with jitter.

use std::time::Duration;

/// 50 ms, doubling to 2 s, each wait a random half to whole of that: short enough to be back within seconds after an
/// outage, and spread out, so that many ingesters do not return in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(50) }
    }
}

impl Backoff {
    const CAP: Duration = Duration::from_secs(2);

    /// The next wait.
    pub fn step(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::CAP);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.step()).collect();
        assert!(waits[0] <= Duration::from_millis(50));
        assert!(waits.iter().all(|wait| *wait <= Backoff::CAP));
        assert!(waits[19] >= Backoff::CAP / 2);
    }
}
