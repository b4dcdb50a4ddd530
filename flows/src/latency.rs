//! Latency per event: one HDR histogram for each stage of the way.

use hdrhistogram::Histogram;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, by this machine's clock. One clock for all stages, so that they add up.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A part of an event's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `produce`: due by the schedule → handed to Kafka.
    Slip,
    /// `produce`: handed to Kafka → acknowledged.
    Ack,
    /// `ingest`: the event's timestamp → received.
    Transit,
    /// `ingest`: received → its insert begins.
    Batch,
    /// `ingest`: its insert begins → its row is stored, doubts and retries included.
    Insert,
    /// `ingest`: stored → its offset is committed.
    Commit,
    /// `ingest`: the event's timestamp → its row can be queried.
    EndToEnd,
    /// `ingest`: the end-to-end latency of an event of the start's [backlog](crate::Backlog). It counts in `EndToEnd`, too.
    Backlog,
}

impl Stage {
    /// All stages, in the order of an event's way.
    pub const ALL: [Self; 8] =
        [Self::Slip, Self::Ack, Self::Transit, Self::Batch, Self::Insert, Self::Commit, Self::EndToEnd, Self::Backlog];

    /// Its tag in latency logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slip => "slip",
            Self::Ack => "ack",
            Self::Transit => "transit",
            Self::Batch => "batch",
            Self::Insert => "insert",
            Self::Commit => "commit",
            Self::EndToEnd => "e2e",
            Self::Backlog => "backlog",
        }
    }
}

/// Three significant digits, from 1 µs to 1 h: 0.2 MB a histogram.
const LOWEST: u64 = 1_000;
const LOWEST_NANOS: i64 = LOWEST as i64;
const HIGHEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Latencies that lie outside the range of the histograms. Each counts there as the nearest end, never not at all, and here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutOfRange {
    /// Below zero: the clocks of two machines are apart.
    pub negative: u64,
    /// From zero to 1 µs.
    pub below: u64,
    /// Above 1 h.
    pub above: u64,
}

impl OutOfRange {
    /// Those that are not counted in `others`.
    pub const fn without(self, others: Self) -> Self {
        Self {
            negative: self.negative.saturating_sub(others.negative),
            below: self.below.saturating_sub(others.below),
            above: self.above.saturating_sub(others.above),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl std::ops::AddAssign for OutOfRange {
    fn add_assign(&mut self, other: Self) {
        self.negative += other.negative;
        self.below += other.below;
        self.above += other.above;
    }
}

/// A histogram of nanoseconds for each stage. A value outside 1 µs to 1 h counts as the nearest end, so no event is
/// left out.
#[derive(Clone, Debug)]
pub struct Latencies {
    histograms: Vec<Histogram<u64>>,
    outside: [OutOfRange; Stage::ALL.len()],
    samples: [u64; Stage::ALL.len()],
}

impl Default for Latencies {
    fn default() -> Self {
        let empty = || Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS).expect("constant bounds that are in range");
        let histograms = Stage::ALL.iter().map(|_| empty()).collect();
        Self { histograms, outside: Default::default(), samples: Default::default() }
    }
}

impl Latencies {
    /// Counts one event that took `nanos` in `stage`. A value out of range counts as the nearest end, and as [out of
    /// range](Self::outside).
    pub fn record(&mut self, stage: Stage, nanos: i64) {
        self.record_all(stage, nanos, 1);
    }

    /// Counts `events` that took `nanos` each in `stage`, because they went through it together: one sample.
    pub fn record_all(&mut self, stage: Stage, nanos: i64, events: u64) {
        if events == 0 {
            return;
        }
        self.samples[stage as usize] += 1;
        let taken = u64::try_from(nanos).unwrap_or(0);
        let clamped = taken.clamp(LOWEST, HIGHEST);
        if clamped != taken {
            let outside = &mut self.outside[stage as usize];
            let side = match nanos {
                ..0 => &mut outside.negative,
                0..=LOWEST_NANOS => &mut outside.below,
                _ => &mut outside.above,
            };
            *side += events;
        }
        self.histograms[stage as usize].saturating_record_n(clamped, events);
    }

    /// The histogram of a stage, in nanoseconds.
    pub fn of(&self, stage: Stage) -> &Histogram<u64> {
        &self.histograms[stage as usize]
    }

    /// How many latencies of a stage were out of range.
    pub const fn outside(&self, stage: Stage) -> OutOfRange {
        self.outside[stage as usize]
    }

    /// How many times were measured for a stage. It is less than the number of events where events went through it together, as a
    /// batch does: a percentile is as good as the number of samples.
    pub const fn samples(&self, stage: Stage) -> u64 {
        self.samples[stage as usize]
    }

    /// Adds what another recorded, histogram by histogram.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.add(theirs).expect("the same bounds everywhere");
        }
        for (mine, theirs) in self.outside.iter_mut().zip(other.outside) {
            *mine += theirs;
        }
        for (mine, theirs) in self.samples.iter_mut().zip(other.samples) {
            *mine += theirs;
        }
    }

    /// Takes away latencies that were added before. The numbers of samples and of those out of range stay as
    /// they are.
    pub fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.subtract(theirs).expect("latencies that were added before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_clamped_and_counted() {
        let mut latencies = Latencies::default();
        latencies.record(Stage::Transit, -5);
        latencies.record(Stage::Transit, 0);
        latencies.record(Stage::Transit, i64::MAX);
        let histogram = latencies.of(Stage::Transit);
        assert_eq!(
            (histogram.len(), latencies.outside(Stage::Transit)),
            (3, OutOfRange { negative: 1, below: 1, above: 1 })
        );
        assert!(latencies.outside(Stage::Batch).is_empty());
        assert!(histogram.min() <= LOWEST);
        assert!(histogram.max() >= HIGHEST);
    }

    #[test]
    fn adding_is_recording_both() {
        let (mut one, mut two) = (Latencies::default(), Latencies::default());
        one.record_all(Stage::Insert, 2_000_000, 3);
        two.record_all(Stage::Insert, 8_000_000, 1);
        one.add(&two);
        one.record_all(Stage::Insert, 8_000_000, 0);
        assert_eq!((one.of(Stage::Insert).len(), one.samples(Stage::Insert)), (4, 2), "four events of two batches");
        assert!(one.of(Stage::Insert).max() >= 8_000_000);
    }
}
