//! How far each partition of this member goes, as far as brokers and the group have said: those that it holds, and those that it held
//! last, until another member has them.

use flows::{Arrivals, Position};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The known offsets of partitions. A member that joins its group again goes on with it.
#[derive(Default)]
pub struct Reach {
    known: Mutex<BTreeMap<i32, Known>>,
    /// When the messages of each partition came.
    arrivals: Mutex<BTreeMap<i32, Arrivals>>,
}

#[derive(Clone, Copy, Default)]
struct Known {
    /// Where to go on, as the group has said while a lease was being opened.
    start: Option<i64>,
    /// The first offset and the one behind the last, and when a broker was asked for them.
    ends: Option<((i64, i64), Instant)>,
    /// The largest end that was seen while a lease was open.
    seen: i64,
    /// The offset up to which there is no message after the committed one, while a lease is open.
    read: i64,
    /// The committed offset when the topic was found to be gone. Kafka deletes it with the topic.
    gone_at: Option<i64>,
    /// The offset up to which the partition was stored when this member held it last.
    held: Option<i64>,
}

impl Known {
    /// The part that still counts once the partition is revoked.
    fn revoked(self) -> Self {
        Self { ends: self.ends, held: self.held, ..Self::default() }
    }
}

impl Reach {
    /// Notes where the group has said to go on.
    pub fn starts(&self, starts: &[(i32, i64)]) {
        let mut known = self.known();
        for &(partition, start) in starts {
            let known = known.entry(partition).or_default();
            (known.start, known.read) = (Some(start), start);
        }
    }

    /// The first offset that is not stored, of a partition without a lease: as the group has just said, as this member has `confirmed`
    /// it, as it was when this member held the partition last; or else its beginning, if the lease `takes_long`.
    pub fn start(&self, partition: i32, confirmed: Option<i64>, takes_long: bool) -> Option<i64> {
        let Known { start, held, ends, .. } = self.of(partition);
        let low = ends.filter(|_| takes_long).map(|((low, _), _)| low);
        start.or(confirmed).or(held).or(low)
    }

    /// Notes that this member holds a partition that is stored up to this offset.
    pub fn holds(&self, partition: i32, stored: i64) {
        self.known().entry(partition).or_default().held = Some(stored);
    }

    /// Notes that the group has taken partitions back, with the confirmed offset of each. Their messages wait until the group has
    /// said which member goes on with them.
    pub fn revoked(&self, released: &[(i32, Option<i64>)]) {
        let mut known = self.known();
        for &(partition, confirmed) in released {
            let known = known.entry(partition).or_default();
            *known = Known { held: known.held.max(confirmed), ..known.revoked() };
        }
    }

    /// Notes that this client is a new one: what the one before it held is revoked.
    pub fn joins_again(&self) {
        self.known().values_mut().for_each(|known| *known = known.revoked());
    }

    /// Notes that the group has assigned partitions: those that are not among this member's are another one's.
    pub fn assigned(&self, positions: &BTreeMap<i32, Position>) {
        let others = |partition: &i32| !positions.contains_key(partition);
        self.known().iter_mut().filter(|(partition, _)| others(partition)).for_each(|(_, known)| known.held = None);
    }

    /// Notes what the group has committed in partitions that this member does not hold. If that is more than this member had stored,
    /// another member goes on with them.
    pub fn committed(&self, committed: &BTreeMap<i32, Option<i64>>) {
        let mut known = self.known();
        for (partition, committed) in committed {
            let known = known.entry(*partition).or_default();
            known.held = known.held.filter(|held| committed.is_none_or(|committed| committed <= *held));
        }
    }

    /// The partitions that this member held last and does not hold now, with the offset up to which each is stored.
    pub fn held_before(&self, positions: &BTreeMap<i32, Position>) -> Vec<(i32, i64)> {
        let known = self.known();
        let not_now = known.iter().filter(|(partition, _)| !positions.contains_key(partition));
        not_now.filter_map(|(&partition, known)| Some((partition, known.held?))).collect()
    }

    /// Removes partitions of a deleted topic: its messages beyond the committed offset are lost.
    pub fn topic_gone(&self, committed: &[(i32, Option<i64>)]) {
        let mut known = self.known();
        for &(partition, gone_at) in committed {
            let seen = known.get(&partition).map_or(0, |known| known.seen);
            known.insert(partition, Known { seen, gone_at, ..Known::default() });
        }
    }

    /// The committed offset in a partition of the deleted topic.
    pub fn gone_at(&self, partition: i32) -> Option<i64> {
        self.of(partition).gone_at
    }

    /// Notes the end of a partition whose lease is open.
    pub fn saw(&self, partition: i32, high: i64) {
        let mut known = self.known();
        let known = known.entry(partition).or_default();
        (known.seen, known.start) = (high, None);
    }

    /// Notes that no message stands between the committed offset and this one.
    pub fn read(&self, partition: i32, offset: i64) {
        self.known().entry(partition).or_default().read = offset;
    }

    /// The offset up to which there is no message after the committed one, while a lease is open.
    pub fn read_up_to(&self, partition: i32) -> i64 {
        self.of(partition).read
    }

    /// How far a partition went when a lease was last open.
    pub fn seen(&self, partition: i32) -> i64 {
        self.of(partition).seen
    }

    /// Notes the first offsets and the ends of partitions, for which a broker was asked then.
    pub fn end(&self, ends: BTreeMap<i32, (i64, i64)>, asked: Instant) {
        let mut known = self.known();
        for (partition, ends) in ends {
            known.entry(partition).or_default().ends = Some((ends, asked));
        }
    }

    /// The first offset and the end of a partition, and when a broker was asked for them.
    pub fn ends(&self, partition: i32) -> Option<((i64, i64), Instant)> {
        self.of(partition).ends
    }

    /// When the messages of each partition came.
    pub fn arrivals(&self) -> MutexGuard<'_, BTreeMap<i32, Arrivals>> {
        // After a panic between two of its sightings, an age would only be less exact.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, partition: i32) -> Known {
        self.known().get(&partition).copied().unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<i32, Known>> {
        // Values that are each replaced in one step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The partitions that wait for the group of a member that holds these.
    fn held_before(reach: &Reach, now: &[i32]) -> Vec<(i32, i64)> {
        reach.held_before(&positions(now))
    }

    fn positions(partitions: &[i32]) -> BTreeMap<i32, Position> {
        partitions.iter().map(|&partition| (partition, Position::default())).collect()
    }

    #[test]
    fn a_revoked_partition_counts_until_an_assignment_says_which_member_has_it() {
        let reach = Reach::default();
        [(0, 100), (1, 200), (2, 300)].into_iter().for_each(|(partition, stored)| reach.holds(partition, stored));
        assert_eq!(held_before(&reach, &[0, 1, 2]), []);
        reach.revoked(&[(1, Some(210)), (2, None)]);
        assert_eq!(held_before(&reach, &[0]), [(1, 210), (2, 300)], "stored by the last batches of a drain");
        reach.assigned(&positions(&[0, 2]));
        assert_eq!(held_before(&reach, &[0, 2]), [], "another member has partition 1");
        assert_eq!(reach.start(2, None, false), Some(300), "until its lease is open");
        reach.starts(&[(2, 320)]);
        assert_eq!((reach.start(2, None, false), reach.start(2, Some(310), false)), (Some(320), Some(320)));
        reach.revoked(&[(0, None), (2, None)]);
        assert_eq!(held_before(&reach, &[]), [(0, 100), (2, 300)]);
        reach.assigned(&positions(&[]));
        assert_eq!(held_before(&reach, &[]), [], "the group has more members than partitions");
    }

    #[test]
    fn a_partition_is_another_members_once_the_group_has_committed_more_than_this_one_had_stored() {
        let reach = Reach::default();
        [(0, 100), (1, 200), (2, 300)].into_iter().for_each(|(partition, stored)| reach.holds(partition, stored));
        reach.joins_again();
        assert_eq!(held_before(&reach, &[]), [(0, 100), (1, 200), (2, 300)], "a new client goes on with them");
        reach.committed(&BTreeMap::from([(0, Some(100)), (1, Some(201)), (2, None)]));
        assert_eq!(held_before(&reach, &[]), [(0, 100), (2, 300)]);
        reach.topic_gone(&[(0, Some(90)), (2, Some(300))]);
        assert_eq!((held_before(&reach, &[]), reach.gone_at(0)), (vec![], Some(90)), "its messages are gone");
    }

    #[test]
    fn a_lease_that_is_lost_counts_from_its_last_commit_and_not_from_its_beginning() {
        let reach = Reach::default();
        reach.starts(&[(0, 100)]);
        assert_eq!(reach.start(0, None, false), Some(100));
        reach.saw(0, 5_000);
        assert_eq!(reach.start(0, Some(4_000), false), Some(4_000));
        assert_eq!((reach.start(1, None, false), reach.start(1, None, true)), (None, None));
        reach.end(BTreeMap::from([(1, (7, 9))]), Instant::now());
        assert_eq!((reach.start(1, None, false), reach.start(1, None, true)), (None, Some(7)));
    }
}
