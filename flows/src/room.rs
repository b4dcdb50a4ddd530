//! How many rows go into one insert, where the sink has no room for a whole batch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After this many successful inserts of one size, a larger size is tried; of a small size, after twice as many as it has rows: a server
/// that takes no more is usually in trouble of another kind, which passes.
const PROOF: u64 = 32;

/// The rows that fit into one insert, learned from inserts that were too large. Batches share it: each would otherwise be halved
/// from its full size on, with three attempts for each size.
#[derive(Debug, Default)]
pub struct Room {
    /// 0 where any number fits, as far as is known.
    rows: AtomicU64,
    proved: AtomicU64,
}

impl Room {
    /// The rows that fit, at least 1; none where any number does, as far as is known.
    pub fn rows(&self) -> Option<usize> {
        Some(self.rows.load(Relaxed)).filter(|rows| *rows > 0).map(|rows| usize::try_from(rows).unwrap_or(usize::MAX))
    }

    /// Takes over the smallest of these.
    pub(crate) fn narrowest<'r>(&self, rooms: impl Iterator<Item = &'r Self>) {
        let known = rooms.map(|room| room.rows.load(Relaxed)).filter(|rows| *rows > 0);
        self.rows.store(known.min().unwrap_or(0), Relaxed);
    }

    /// Notes that an insert of this many rows was too large.
    pub(crate) fn exceeded(&self, rows: usize) {
        let half = (rows as u64 / 2).max(1);
        let smaller = |now: u64| (now == 0 || half < now).then_some(half);
        if self.rows.fetch_update(Relaxed, Relaxed, smaller).is_ok() {
            self.proved.store(0, Relaxed);
        }
    }

    /// Notes that an insert of this many rows succeeded.
    pub(crate) fn sufficed(&self, rows: usize) {
        let now = self.rows.load(Relaxed);
        // Only inserts of the full size count.
        if now > 0 && rows as u64 >= now && self.proved.fetch_add(1, Relaxed) + 1 >= PROOF.min(now * 2) {
            // Another batch may have learned better meanwhile.
            let _ = self.rows.compare_exchange(now, now * 2, Relaxed, Relaxed);
            self.proved.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_at_once_and_grows_slowly() {
        let room = Room::default();
        room.sufficed(1_000_000);
        assert_eq!(room.rows(), None);
        room.exceeded(1_000);
        room.exceeded(2_000);
        assert_eq!(room.rows(), Some(500), "what a larger one says is no news");
        (0..PROOF * 2).for_each(|_| room.sufficed(499));
        assert_eq!(room.rows(), Some(500), "a smaller one proves nothing");
        (0..PROOF - 1).for_each(|_| room.sufficed(500));
        assert_eq!(room.rows(), Some(500));
        room.sufficed(500);
        assert_eq!(room.rows(), Some(1_000));
        (0..12).for_each(|_| room.exceeded(room.rows().unwrap()));
        assert_eq!(room.rows(), Some(1), "one row is the least");
        (0..2 + 4 + 8 + 16).for_each(|_| room.sufficed(16));
        assert_eq!(room.rows(), Some(16), "few rows soon become more");
    }
}
