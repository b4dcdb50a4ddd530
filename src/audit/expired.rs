//! Offsets before the topic's first one: only the tables and the group's notes can tell about them.
//!
//! Such an offset that is not stored was a lost message, or never held one. The group's notes tell which messages were
//! deleted unread, and whether offsets without a message were passed at all.

use super::Auditor;
use super::tally::Tally;
use crate::clickhouse::{WINDOW, patiently};
use anyhow::Result;
use flows::{LostMessages, OffsetRange};
use serde::Serialize;

/// Offsets asked about at once where probably all are stored.
const MANY: usize = 100 * WINDOW;
/// The search ends after this many ranges: they are enough to report a loss.
const ENOUGH: u64 = 1_000;

/// Offsets before the topic's beginning that are not stored.
#[derive(Default, Serialize)]
pub struct Expired {
    /// Offsets that are not committed either: no member has read them.
    pub unread: Tally,
    /// Committed, so they were stored once, or passed over.
    pub missing: Tally,
    /// How many there are of which it cannot be told whether they held a message.
    pub unclear: u64,
    /// The group's notes about messages that it had to skip.
    pub passed: Option<LostMessages>,
}

/// The kinds of loss to search for.
pub struct Wanted {
    pub partition: i32,
    /// The group's committed offset, and up to where no message stands behind it.
    pub mark: i64,
    pub read: i64,
    /// The topic's beginning.
    pub low: i64,
    /// The group's notes about messages that it had to skip.
    pub passed: Option<LostMessages>,
    /// Whether the partition has offsets without a message, so that a hole of any length says nothing.
    pub has_gaps: bool,
}

impl Expired {
    /// Whether messages were lost.
    pub fn is_loss(&self) -> bool {
        self.lost() > 0
    }

    /// How many offsets are lost, at least.
    pub fn lost(&self) -> u64 {
        let passed = self.passed.as_ref().map_or(0, |passed| passed.messages);
        self.unread.offsets + self.missing.offsets + passed
    }
}

/// Holes in the order of their offsets, those that touch as one.
struct Holes<'w> {
    wanted: &'w Wanted,
    found: Expired,
    open: Option<OffsetRange>,
    /// A row was seen, so later offsets that are not stored are a hole. Earlier ones were deleted before the first
    /// ingester came.
    begun: bool,
    /// Rows from here on are too young for a TTL.
    is_young: bool,
}

impl Holes<'_> {
    /// Adds one; returns the one before it, if it is whole now.
    fn add(&mut self, mut hole: OffsetRange) -> Option<OffsetRange> {
        if !self.begun {
            hole.first = hole.first.max(self.wanted.mark);
        }
        if hole.is_empty() {
            return None;
        }
        match &mut self.open {
            Some(open) if open.next == hole.first && hole.first != self.wanted.mark => {
                open.next = hole.next;
                None
            }
            _ => self.open.replace(hole),
        }
    }
}

impl Auditor {
    /// Which offsets before the topic's beginning are not stored, behind the first one that is or the committed one; and which are
    /// stored more than once.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn expired(&self, wanted: &Wanted) -> Result<(Expired, Vec<OffsetRange>)> {
        let Wanted { partition, mark, read, low, .. } = *wanted;
        let found = Expired { passed: wanted.passed.clone(), ..Expired::default() };
        let mut doubled = Vec::new();
        let mut holes = Holes { wanted, found, open: None, begun: false, is_young: false };
        // Large ranges first, and smaller ones where rows are missing. The next range is the last one of the list.
        let mut ranges: Vec<_> = OffsetRange::new(0, mark.min(low)).windows(MANY).collect();
        ranges.extend(OffsetRange::new(read.min(low), low).windows(MANY));
        ranges.reverse();
        while let Some(range) = ranges.pop().filter(|_| holes.found.missing.ranges < ENOUGH) {
            let Self { clickhouse, source, .. } = self;
            let sums = patiently(async || clickhouse.sums(source, partition, range).await).await?;
            let gaps = if sums.is_each_once(range) {
                Vec::new()
            } else if wanted.has_gaps && sums.rows <= range.len() {
                // Each of many transactions has left a hole, and none of them tells anything.
                let is_inside = holes.begun || sums.rows > 0;
                holes.found.unclear += if is_inside { range.len().saturating_sub(sums.rows) } else { 0 };
                Vec::new()
            } else if sums.rows == 0 {
                vec![range]
            } else if range.len() > WINDOW as u64 {
                let parts: Vec<_> = range.windows(range.len().div_ceil(10).max(WINDOW as u64) as usize).collect();
                ranges.extend(parts.into_iter().rev());
                continue;
            } else {
                doubled.extend(self.doubled(partition, range).await?);
                if wanted.has_gaps { Vec::new() } else { self.stored(partition, range).await?.gaps(range) }
            };
            for gap in gaps {
                holes.begun |= gap.first > range.first;
                if let Some(whole) = holes.add(gap) {
                    self.judge(&mut holes, whole).await?;
                }
            }
            holes.begun |= sums.rows > 0;
        }
        if let Some(last) = holes.open.take() {
            self.judge(&mut holes, last).await?;
        }
        Ok((holes.found, doubled))
    }

    /// Decides what a hole is.
    async fn judge(&self, holes: &mut Holes<'_>, hole: OffsetRange) -> Result<()> {
        let Wanted { passed, mark, .. } = holes.wanted;
        let is_said = |said: &OffsetRange| said.first <= hole.first && hole.next <= said.next;
        if passed.iter().flat_map(|passed| &passed.ranges).any(is_said) {
            return Ok(());
        }
        if hole.first >= *mark && hole.len() > 1 {
            holes.found.unread.add(hole);
        } else if hole.len() == 1 || self.may_have_expired(holes, hole.first).await? {
            // A transaction ends with a marker, which takes one offset.
            holes.found.unclear += hole.len();
        } else {
            holes.found.missing.add(hole);
        }
        Ok(())
    }

    /// Whether a TTL may have deleted the rows from this offset on: they were inserted after the row before them.
    async fn may_have_expired(&self, holes: &mut Holes<'_>, offset: i64) -> Result<bool> {
        if holes.is_young || !self.expiry.may_be_over(i64::MIN) {
            return Ok(false);
        }
        let expiry = self.expiry_now().await?;
        let Self { clickhouse, source, .. } = self;
        let partition = holes.wanted.partition;
        let before = patiently(async || clickhouse.ingested_ms(source, partition, offset - 1).await).await?;
        // Where that row was erased, nothing is known of the time.
        holes.is_young = before.is_some_and(|ms| !expiry.may_be_over(ms));
        Ok(!holes.is_young)
    }
}
