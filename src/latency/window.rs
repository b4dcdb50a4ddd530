//! Latencies of the last minutes, for a scrape. Quantiles since the start would soon hide a present slowness.

use flows::Latencies;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Quantiles are those of the last one to two of these.
const TURN: Duration = Duration::from_secs(60);

/// The latencies of the current minute and of the one before, and of all time.
pub struct Window(Mutex<Parts>);

struct Parts {
    current: Latencies,
    before: Latencies,
    total: Latencies,
    turned: Instant,
}

impl Default for Window {
    fn default() -> Self {
        let [current, before, total] = std::array::from_fn(|_| Latencies::default());
        Self(Mutex::new(Parts { current, before, total, turned: Instant::now() }))
    }
}

impl Window {
    /// Adds the latencies since the last call.
    pub fn add(&self, taken: &Latencies) {
        // Histograms hold no invariant that a panicking thread could have broken.
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.turn();
        parts.current.add(taken);
        parts.total.add(taken);
    }

    /// The latencies of the last one to two minutes, and of all time.
    pub fn read(&self) -> (Latencies, Latencies) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.turn();
        let mut recent = parts.current.clone();
        recent.add(&parts.before);
        (recent, parts.total.clone())
    }
}

impl Parts {
    fn turn(&mut self) {
        let age = self.turned.elapsed();
        if age < TURN {
            return;
        }
        let Self { current, before, .. } = self;
        std::mem::swap(current, before);
        current.clear();
        if age > TURN * 2 {
            before.clear();
        }
        self.turned = Instant::now();
    }
}
