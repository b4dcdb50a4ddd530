//! When events are due: an open-loop schedule on a fixed grid.

use crate::now;
use futures::{Stream, stream};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// How many events are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many a second, on a fixed grid.
    PerSecond(f64),
    /// The next one as soon as the one before it was handed on.
    Max,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(events) => write!(f, "{events}"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if rate.is_finite() && rate > 0.0 && rate <= 1e9 => Ok(Self::PerSecond(rate)),
            _ => Err("expected events per second (above 0), or `max`".into()),
        }
    }
}

impl Rate {
    /// How many events may be unacknowledged at a time: half a second's worth, within 64 and 10,000. When Kafka stalls,
    /// the schedule runs into this bound soon, and the delay shows as slip.
    pub fn in_flight(self) -> usize {
        match self {
            Self::PerSecond(rate) => ((rate / 2.0) as usize).clamp(64, 10_000),
            Self::Max => 10_000,
        }
    }
}

/// The due times of events, in nanoseconds since the Unix epoch, each yielded when it is due, or at once where it is
/// overdue. The grid is fixed at the first poll: whatever delays a send never moves the next due time, and none is left
/// out. It ends after `count` events.
pub fn schedule(rate: Rate, count: Option<NonZeroU64>) -> impl Stream<Item = i64> {
    stream::unfold((0u64, None), move |(nth, start)| async move {
        if count.is_some_and(|count| nth == count.get()) {
            return None;
        }
        let start = start.unwrap_or_else(now);
        let due = match rate {
            Rate::Max => now(),
            Rate::PerSecond(rate) => start + (nth as f64 * (1e9 / rate)) as i64,
        };
        if let Ok(early @ 1..) = u64::try_from(due - now()) {
            tokio::time::sleep(Duration::from_nanos(early)).await;
        }
        Some((due, (nth + 1, Some(start))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_late_consumer_never_moves_the_grid_and_misses_none() {
        let dues: Vec<i64> = schedule(Rate::PerSecond(10_000.0), NonZeroU64::new(200))
            .then(|due| async move {
                if due % 7 == 0 {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                due
            })
            .collect()
            .await;
        assert_eq!(dues.len(), 200);
        assert!(dues.windows(2).all(|pair| pair[1] - pair[0] == 100_000), "100 µs apart, whatever the consumer did");
    }

    #[tokio::test]
    async fn nothing_is_yielded_before_it_is_due() {
        schedule(Rate::PerSecond(500.0), NonZeroU64::new(50)).for_each(async |due| assert!(now() >= due)).await;
    }

    #[test]
    fn half_a_second_of_events_may_be_under_way_within_bounds() {
        let in_flight = [1.0, 1_000.0, 1e9].map(|rate| Rate::PerSecond(rate).in_flight());
        assert_eq!((in_flight, Rate::Max.in_flight()), ([64, 500, 10_000], 10_000));
    }

    #[test]
    fn rates_are_read() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        for bad in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
