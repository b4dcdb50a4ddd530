//! Latency over time: intervals gathered into columns, latencies into bands.

use super::run::Slice;
use super::{Measured, Run};

/// Bands of latency in a factor of ten: as fine as the eye can tell apart in a picture of that height.
const BANDS_PER_DECADE: f64 = 8.0;
/// The lower end of band 0: the least that histograms hold, in nanoseconds.
const LOWEST_NS: f64 = 1e3;
/// Columns of a picture, at most: one every few pixels.
const MOST_COLUMNS: f64 = 120.0;
/// How wide a column may be, in seconds: lengths that people think in.
const WIDTHS: [f64; 17] =
    [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

/// The band that a latency is in.
pub fn band(nanos: u64) -> u8 {
    ((nanos as f64 / LOWEST_NS).log10() * BANDS_PER_DECADE).floor().clamp(0.0, f64::from(u8::MAX)) as u8
}

/// The lower end of a band, in nanoseconds.
pub fn band_from(band: u8) -> f64 {
    LOWEST_NS * 10_f64.powf(f64::from(band) / BANDS_PER_DECADE)
}

/// The columns of a run.
pub struct Columns {
    /// Seconds since the Unix epoch.
    pub start: f64,
    /// Seconds.
    pub width: f64,
    pub number: usize,
}

impl Columns {
    /// Columns over the whole run, none narrower than its intervals.
    pub fn of(run: &Run) -> Self {
        let slices = run.stages.iter().flat_map(|stage| &stage.slices);
        // Half an interval's tolerance: a late tick makes a long interval, which is no reason for wider columns.
        let interval = slices.map(|slice| slice.length).fold(f64::MAX, f64::min) * 0.9;
        let least = (run.seconds() / MOST_COLUMNS).max(interval);
        let width = WIDTHS.into_iter().find(|&width| width >= least).unwrap_or(least);
        let number = ((run.seconds() / width).ceil() as usize).clamp(1, 2 * MOST_COLUMNS as usize);
        Self { start: run.range.0, width, number }
    }

    /// For each column, the number of events and the sum of their latencies in nanoseconds.
    pub fn sums(&self, stage: &Measured) -> Vec<(u64, f64)> {
        let mut sums = vec![(0, 0.0); self.number];
        for slice in &stage.slices {
            let sum = &mut sums[self.column(slice)];
            *sum = (sum.0 + slice.events, sum.1 + slice.sum);
        }
        sums
    }

    /// The cells that have events in them: column, band, events.
    pub fn cells(&self, stage: &Measured) -> Vec<(usize, u8, u64)> {
        let mut cells = std::collections::BTreeMap::new();
        for slice in &stage.slices {
            for &(band, events) in &slice.bands {
                *cells.entry((self.column(slice), band)).or_default() += events;
            }
        }
        cells.into_iter().map(|((column, band), events)| (column, band, events)).collect()
    }

    /// The column of an interval: by its middle, because a tick that is a little early or late would else leave a column empty.
    fn column(&self, slice: &Slice) -> usize {
        let middle = slice.start + slice.length.min(self.width) / 2.0;
        (((middle - self.start) / self.width) as usize).min(self.number - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_ticks_that_are_not_exact_have_a_column_each() {
        let columns = Columns { start: 100.0, width: 1.0, number: 5 };
        let column =
            |start: f64, length| columns.column(&Slice { start, length, events: 1, sum: 1.0, bands: Vec::new() });
        let ticks = [(100.0, 0.998), (100.998, 0.999), (101.997, 1.103), (103.1, 0.9)];
        assert_eq!(ticks.map(|(start, length)| column(start, length)), [0, 1, 2, 3]);
        assert_eq!(column(104.0, 30.0), 4, "a long one counts where it began");
    }

    #[test]
    fn a_latency_is_in_the_band_that_its_ends_say() {
        for nanos in [1_000, 1_500, 999_999, 1_000_001, 123_456_789, 3_600_000_000_000] {
            let band = band(nanos);
            assert!((band_from(band)..band_from(band + 1)).contains(&(nanos as f64)), "{nanos} in band {band}");
        }
        assert_eq!(band(0), 0);
    }
}
