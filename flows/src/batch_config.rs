//! When a batch is full, and how much may be under way.

use std::time::Duration;

/// The batching of [`ingest`](crate::ingest()).
#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    /// A chunk closes with this many rows, …
    pub rows: usize,
    /// … or when its rows hold this many bytes ([`Record::weight`](crate::Record::weight)), …
    pub bytes: usize,
    /// Latency target: a partial batch is flushed early enough that its oldest event is queryable within this time.
    pub timeout: Duration,
    /// Chunks that are due while ClickHouse is busy leave as one insert, this many at most.
    pub coalesce: usize,
    /// Inserts under way at the same time.
    pub in_flight: usize,
}

/// The part of [`BatchConfig::timeout`] for an insert and the way to it.
const HEADROOM: Duration = Duration::from_millis(500);

/// Rows of a usual size never reach this limit. It is for rows of which a thousand would be a gigabyte.
const CHUNK_BYTES: usize = 1024 * 1024;

/// An insert costs ClickHouse much the same for 1,000 rows and for 50,000, so that is how far chunks are coalesced.
const COALESCED_ROWS: usize = 50_000;

impl Default for BatchConfig {
    fn default() -> Self {
        Self::new(1_000, Duration::from_secs(5), 4)
    }
}

impl BatchConfig {
    /// A batching that coalesces to 50,000 rows. `rows` and `in_flight` are at least 1.
    pub fn new(rows: usize, timeout: Duration, in_flight: usize) -> Self {
        let rows = rows.max(1);
        let coalesce = (COALESCED_ROWS / rows).max(1);
        Self { rows, bytes: CHUNK_BYTES, timeout, coalesce, in_flight: in_flight.max(1) }
    }

    /// How long a chunk waits for its rows: the timeout less a headroom of 500 ms, or of a half where it is shorter than
    /// twice that.
    pub fn linger(&self) -> Duration {
        self.timeout - HEADROOM.min(self.timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_the_promise_and_the_linger_is_shorter() {
        let linger = |ms| BatchConfig::new(1, Duration::from_millis(ms), 1).linger().as_millis();
        assert_eq!((linger(5_000), linger(200), linger(0)), (4_500, 100, 0));
    }

    #[test]
    fn a_chunk_holds_a_megabyte_and_an_insert_fifty_thousand_rows() {
        let batching = |rows| BatchConfig::new(rows, Duration::ZERO, 0);
        assert_eq!((batching(1_000).bytes, batching(1_000).coalesce, batching(70_000).coalesce), (1 << 20, 50, 1));
        assert_eq!((batching(0).rows, batching(0).in_flight), (1, 1));
    }
}
