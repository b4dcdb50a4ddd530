//! The findings of an audit in a partition, for people and for programs.

use super::{Expired, Tally};
use crate::numbers::grouped;
use chrono::SecondsFormat;
use flows::OffsetRange;
use serde::Serialize;
use std::fmt::{self, Display};

/// Ranges of a kind that are printed for a partition; the rest is only counted.
const SHOWN: usize = 20;

/// One partition.
#[derive(Serialize)]
pub struct Findings {
    pub partition: i32,
    /// The first offset that is compared: the topic's, or with `--since` the first one of that time.
    pub low: i64,
    /// Where the group has taken the partition over from another cluster: what lies before was read there, and is not compared.
    pub from: Option<i64>,
    /// The group's committed offset: below it, everything must be stored.
    pub mark: i64,
    /// The topic's end.
    pub high: i64,
    /// Offsets from `low` to `mark` that are stored.
    pub stored: u64,
    /// Offsets among them that hold no record: transaction markers, or compacted away.
    pub empty: u64,
    /// Records that are committed and not stored.
    pub missing: Tally,
    /// Offsets that are stored more than once.
    pub duplicates: Tally,
    /// Stored offsets beyond the topic's end.
    pub beyond: Tally,
    /// Offsets before the topic's beginning that are not stored.
    pub expired: Expired,
    /// Offsets that were erased, by law or on request.
    pub erased: u64,
    /// Erased offsets that are stored.
    pub returned: Tally,
    /// Records that are committed and not stored, and whose rows a table's TTL has deleted by now, or would have.
    pub expired_by_ttl: Tally,
    /// The healed ranges.
    pub healed: Healed,
    /// Whether `--since` leaves out offsets that the topic holds.
    #[serde(skip)]
    pub is_cut: bool,
}

/// The number of healed rows.
#[derive(Clone, Copy, Default, Serialize)]
pub struct Healed {
    pub events: u64,
    pub rejects: u64,
}

impl Findings {
    pub fn new(partition: i32, low: i64, mark: i64, high: i64) -> Self {
        let [missing, duplicates, beyond, returned, expired_by_ttl] = std::array::from_fn(|_| Tally::default());
        let (from, stored, empty, erased, expired, healed, is_cut) = Default::default();
        Self {
            partition,
            low,
            from,
            mark,
            high,
            stored,
            empty,
            missing,
            duplicates,
            beyond,
            expired,
            erased,
            returned,
            expired_by_ttl,
            healed,
            is_cut,
        }
    }

    /// Whether the tables hold what the topic held, as far as that can be told.
    pub fn is_whole(&self) -> bool {
        let faults = [&self.missing, &self.duplicates, &self.beyond, &self.returned];
        faults.iter().all(|tally| tally.offsets == 0) && !self.expired.is_loss()
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, low, mark, high, .. } = self;
        write!(
            f,
            "partition {partition}: offsets {low} to {mark}: {} stored, {} gaps, {} duplicates, {} empty, {} erased, {} expired by TTL, {} waiting",
            grouped(self.stored),
            grouped(self.missing.offsets),
            grouped(self.duplicates.offsets),
            grouped(self.empty),
            grouped(self.erased),
            grouped(self.expired_by_ttl.offsets),
            grouped(u64::try_from(high - mark).unwrap_or(0)),
        )?;
        if let Some(from) = self.from {
            write!(f, "\n  not compared: offsets before {from}, which the group has read in another cluster")?;
        }
        show(f, "missing", &self.missing)?;
        show(f, "more than once", &self.duplicates)?;
        show(f, "erased, and stored again", &self.returned)?;
        show(f, "beyond the topic's end", &self.beyond)?;
        show(f, "deleted from the topic, and not stored", &self.expired.missing)?;
        show(f, "deleted from the topic before it was read", &self.expired.unread)?;
        if let Some(lost) = &self.expired.passed {
            let (messages, at) = (grouped(lost.messages), lost.at.to_rfc3339_opts(SecondsFormat::Secs, true));
            let ranges = lost.ranges.iter().map(OffsetRange::to_string).collect::<Vec<_>>().join(", ");
            write!(
                f,
                "\n  deleted from the topic before it was read: {messages} messages, as the group has noted, lately at {at}: {ranges}"
            )?;
        }
        match self.expired.unclear {
            0 => Ok(()),
            unclear => write!(
                f,
                "\n  cannot be told: {} offsets before {low} are not stored; they may be messages, transaction markers, or offsets that compaction or a TTL has removed",
                grouped(unclear)
            ),
        }
    }
}

fn show(f: &mut fmt::Formatter<'_>, what: &str, tally: &Tally) -> fmt::Result {
    let shown = &tally.first[..tally.first.len().min(SHOWN)];
    shown.iter().try_for_each(|range: &OffsetRange| write!(f, "\n  {what}: {range}"))?;
    match tally.ranges - shown.len() as u64 {
        0 => Ok(()),
        more => write!(f, "\n  {what}: {} more ranges", grouped(more)),
    }
}
