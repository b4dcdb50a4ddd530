//! What is to be committed: the newest mark of each partition, and never one of another topic.

use super::{Lost, Notes};
use flows::OffsetRange;
use std::collections::BTreeMap;

/// The marks of one member. A mark is the first offset of a partition that is not accounted for.
#[derive(Debug, Default)]
pub struct Marks {
    /// The topic's id: it goes along with every commit, so that nobody takes an offset of a topic that was deleted for one
    /// of its namesake.
    source: String,
    /// Marks that are not confirmed yet. The group may have them all the same, where only its answer was lost.
    owed: BTreeMap<i32, i64>,
    /// For each partition that is held, the mark that was confirmed last, or where its lease began.
    held: BTreeMap<i32, i64>,
    /// What is noted of those partitions; it goes along, too.
    notes: BTreeMap<i32, Notes>,
    /// Counts the topics of this name, and how often one of them was cut back.
    era: u64,
}

/// One commit.
#[derive(Clone, Debug)]
pub struct Commit {
    pub source: String,
    pub marks: BTreeMap<i32, i64>,
    pub notes: BTreeMap<i32, Notes>,
    /// Some of it is not confirmed yet; else it proves nothing but the membership.
    pub is_owed: bool,
    era: u64,
}

impl Marks {
    /// A lease begins: everything before these marks is stored. From now on, marks are those of the topic with this id, and if it
    /// is cut back, of what is left of it.
    pub fn begin(&mut self, source: &str, starts: &[(i32, i64)], is_cut_back: bool) {
        if self.source != source {
            source.clone_into(&mut self.source);
            self.notes.clear();
            self.cut_back();
        } else if is_cut_back {
            self.cut_back();
        }
        // A commit may have been confirmed since the group was asked where to begin.
        let newest = |(partition, start): (i32, i64)| {
            (partition, self.held.get(&partition).map_or(start, |held| start.max(*held)))
        };
        self.held = starts.iter().copied().map(newest).collect();
        self.notes.values_mut().for_each(|notes| notes.read = None);
    }

    /// Whatever was owed, or is on its way, says nothing about this topic.
    fn cut_back(&mut self) {
        self.owed.clear();
        self.held.clear();
        self.era += 1;
    }

    /// What the group has noted of a partition before: from now on it goes along with each commit.
    pub fn inherit(&mut self, partition: i32, notes: Notes) {
        self.notes.insert(partition, Notes { read: None, ..notes });
    }

    /// Behind its mark, a partition holds no message before this offset.
    ///
    /// True where that is news, and more than the mark says.
    pub fn note_read(&mut self, partition: i32, offset: i64) -> bool {
        let before = self.notes.entry(partition).or_default().read.replace(offset);
        before != Some(offset) && self.held.get(&partition).is_none_or(|held| offset > *held)
    }

    /// The id of the topic of the last lease; none before the first.
    pub fn source(&self) -> Option<&str> {
        Some(self.source.as_str()).filter(|source| !source.is_empty())
    }

    /// Offsets of a partition held no message, and none was deleted there.
    ///
    /// True where that is news.
    pub fn note_gap(&mut self, partition: i32) -> bool {
        !std::mem::replace(&mut self.notes.entry(partition).or_default().has_gaps, true)
    }

    /// Messages of a partition were deleted before they were read.
    pub fn note_loss(&mut self, partition: i32, offsets: OffsetRange) {
        let notes = self.notes.entry(partition).or_default();
        notes.lost = Some(Lost::add(notes.lost.take(), offsets));
    }

    /// Everything before this mark is stored.
    pub fn owe(&mut self, partition: i32, mark: i64) {
        let owed = self.owed.entry(partition).or_insert(mark);
        *owed = mark.max(*owed);
    }

    /// These partitions are not ours any more: their new owner finds the rows and commits them.
    pub fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.owed.remove(partition);
            self.held.remove(partition);
            self.notes.remove(partition);
        }
    }

    /// The next commit; none where nothing is held.
    ///
    /// It names the newest mark of each partition, also where it only proves the membership: else it would take back one whose
    /// answer was lost.
    pub fn commit(&self) -> Option<Commit> {
        let mut marks = self.held.clone();
        for (&partition, &owed) in &self.owed {
            let mark = marks.entry(partition).or_insert(owed);
            *mark = owed.max(*mark);
        }
        (!marks.is_empty()).then(|| Commit {
            source: self.source.clone(),
            marks,
            notes: self.notes.clone(),
            is_owed: !self.owed.is_empty(),
            era: self.era,
        })
    }

    /// The group has taken this commit. What moved on, or was forgotten, in the meantime stays as it is.
    pub fn confirm(&mut self, commit: &Commit) {
        if commit.era != self.era {
            return;
        }
        self.owed.retain(|partition, owed| commit.marks.get(partition).is_none_or(|mark| mark < owed));
        for (partition, mark) in &commit.marks {
            self.held.entry(*partition).and_modify(|held| *held = *mark.max(held));
        }
    }

    /// What is confirmed for a partition.
    pub fn confirmed(&self, partition: i32) -> Option<i64> {
        self.held.get(&partition).copied()
    }

    /// Whether a mark of this partition is not confirmed yet.
    pub fn owes(&self, partition: i32) -> bool {
        self.owed.contains_key(&partition)
    }

    /// Whether nothing is owed.
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(source: &str, starts: &[(i32, i64)]) -> Marks {
        let mut marks = Marks::default();
        marks.begin(source, starts, false);
        marks
    }

    fn next(marks: &Marks) -> Vec<(i32, i64)> {
        marks.commit().map(|commit| commit.marks.into_iter().collect()).unwrap_or_default()
    }

    #[test]
    fn a_commit_names_the_newest_mark_of_every_partition() {
        let mut marks = marks("a", &[(0, 10), (1, 20)]);
        assert!(!marks.commit().unwrap().is_owed);
        marks.owe(0, 15);
        marks.owe(0, 12);
        let commit = marks.commit().unwrap();
        assert_eq!((next(&marks), commit.is_owed), (vec![(0, 15), (1, 20)], true));
        marks.owe(0, 18);
        marks.confirm(&commit);
        assert_eq!((marks.confirmed(0), marks.owes(0)), (Some(15), true), "it moved on in the meantime");
        marks.confirm(&marks.commit().unwrap());
        assert_eq!((marks.confirmed(0), marks.is_settled()), (Some(18), true));
    }

    #[test]
    fn what_was_forgotten_is_not_committed() {
        let mut marks = marks("a", &[(0, 10), (1, 20)]);
        marks.owe(0, 15);
        let commit = marks.commit().unwrap();
        marks.forget(&[0]);
        marks.confirm(&commit);
        assert_eq!(next(&marks), [(1, 20)]);
        marks.forget(&[1]);
        assert!(marks.commit().is_none());
    }

    #[test]
    fn a_lease_that_begins_below_a_commit_on_its_way_takes_nothing_back() {
        let mut marks = marks("a", &[(0, 10)]);
        marks.owe(0, 30);
        let commit = marks.commit().unwrap();
        marks.begin("a", &[(0, 10)], false);
        marks.owe(0, 20);
        assert_eq!(next(&marks), [(0, 30)]);
        marks.confirm(&commit);
        marks.owe(0, 25);
        assert_eq!(next(&marks), [(0, 30)]);
        marks.confirm(&marks.commit().unwrap());
        assert!(marks.is_settled());
        marks.begin("a", &[(0, 10)], false);
        assert_eq!(next(&marks), [(0, 30)], "it was confirmed after the group was asked");
    }

    #[test]
    fn marks_of_a_topic_that_was_deleted_are_not_committed_for_its_namesake() {
        let mut marks = marks("a", &[(0, 10)]);
        marks.owe(0, 1_000);
        let commit = marks.commit().unwrap();
        marks.begin("b", &[(0, 0)], false);
        assert_eq!((next(&marks), commit.source.as_str()), (vec![(0, 0)], "a"));
        marks.confirm(&commit);
        assert_eq!((next(&marks), marks.is_settled()), (vec![(0, 0)], true));
        marks.owe(0, 5);
        assert_eq!(next(&marks), [(0, 5)]);
    }

    #[test]
    fn marks_of_a_topic_that_was_cut_back_are_not_committed_again() {
        let mut marks = marks("a", &[(0, 10)]);
        marks.owe(0, 1_000);
        let commit = marks.commit().unwrap();
        marks.confirm(&commit);
        marks.begin("a", &[(0, 500)], true);
        marks.confirm(&commit);
        assert_eq!(next(&marks), [(0, 500)]);
    }
    #[test]
    fn notes_go_along_with_each_commit_until_the_topic_is_another_one() {
        let mut marks = marks("a", &[(0, 10), (1, 20)]);
        let lost = Some(Lost::add(None, OffsetRange::new(0, 5)));
        marks.inherit(0, Notes { read: Some(12), lost, ..Notes::default() });
        marks.note_loss(0, OffsetRange::new(10, 30));
        marks.note_gap(0);
        marks.note_read(0, 31);
        let notes = |marks: &Marks| {
            let Notes { read, has_gaps, lost, .. } = marks.commit().unwrap().notes.remove(&0).unwrap_or_default();
            (read, has_gaps, lost.map_or(0, |lost| lost.messages))
        };
        assert_eq!(notes(&marks), (Some(31), true, 25));
        marks.begin("a", &[(0, 30), (1, 20)], true);
        assert_eq!(notes(&marks), (None, true, 25));
        assert_eq!(marks.commit().unwrap().notes.get(&1), None);
        marks.begin("b", &[(0, 0), (1, 0)], false);
        assert_eq!(notes(&marks), (None, false, 0));
    }
}
