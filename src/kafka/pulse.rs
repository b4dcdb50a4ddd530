//! A pulse: how a process finds out that it was frozen.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Beaten by the thread that polls Kafka. When it has missed beats for long, the whole process may have been stopped, and
/// the group may have given its partitions away meanwhile: nothing may be written before the group has confirmed them.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    last_ms: AtomicU64,
    doubted: AtomicBool,
    limit: Duration,
}

impl Pulse {
    /// A pulse that is doubted after `limit` without a beat.
    pub fn new(limit: Duration) -> Self {
        Self { epoch: Instant::now(), last_ms: AtomicU64::new(0), doubted: AtomicBool::new(false), limit }
    }

    /// Beats; returns whether the pulse is doubted.
    pub fn beat(&self) -> bool {
        // The gap is judged before the beat hides it, so whoever looks first, this thread or a writer, sees it.
        if self.silent() {
            self.doubted.store(true, SeqCst);
        }
        self.last_ms.store(self.now_ms(), SeqCst);
        self.doubted.load(SeqCst)
    }

    /// Whether a writer has to wait until the doubt is over.
    pub fn in_doubt(&self) -> bool {
        self.silent() || self.doubted.load(SeqCst)
    }

    /// The group has confirmed its member.
    pub fn confirm(&self) {
        self.doubted.store(false, SeqCst);
    }

    fn silent(&self) -> bool {
        self.now_ms() - self.last_ms.load(SeqCst) > self.limit.as_millis() as u64
    }

    fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_doubted_until_it_is_confirmed() {
        let pulse = Pulse::new(Duration::ZERO);
        while !pulse.in_doubt() {
            std::thread::yield_now();
        }
        assert!(pulse.beat(), "the beat after the gap does not hide it");
        assert!(pulse.in_doubt());
        let steady = Pulse::new(Duration::from_secs(3_600));
        assert!(!steady.beat() && !steady.in_doubt());
        steady.doubted.store(true, SeqCst);
        steady.confirm();
        assert!(!steady.in_doubt());
    }
}
