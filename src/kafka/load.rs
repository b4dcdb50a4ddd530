//! The load of a lease: the bytes on their way from the topic to the ledger. A thousand messages of a usual size are nothing;
//! a thousand of 1 MB are a gigabyte, and have to wait in Kafka.

use super::Committer;
use flows::{CommitFailed, Offsets, Record};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// With so many bytes on their way, no more are taken out of librdkafka's queue. Each is there twice while it is inserted,
/// and the last haul may come on top, up to all that the queue holds (16 MB, and one answer of each broker).
const FULL: usize = 24 * 1024 * 1024;

/// What was handed to a pipeline and is not accounted for yet.
#[derive(Default)]
pub struct Load(Mutex<Hauls>);

#[derive(Default)]
struct Hauls {
    bytes: usize,
    /// Hauls in the order of the stream, which is the order of the ledger: the place behind the last record, and the bytes.
    waiting: VecDeque<(i32, i64, usize)>,
    marks: BTreeMap<i32, i64>,
}

impl Load {
    /// Counts a haul that is handed over.
    pub fn add(&self, haul: &[Record]) {
        let bytes = haul.iter().map(Record::weight).sum();
        if let Some(last) = haul.last().filter(|_| bytes > 0) {
            let mut hauls = self.hauls();
            hauls.bytes += bytes;
            hauls.waiting.push_back((last.partition, last.range.next, bytes));
        }
    }

    /// Whether nothing more is to be taken for now. A single message of any size is taken when nothing else is under way.
    pub fn is_full(&self) -> bool {
        self.hauls().bytes >= FULL
    }

    /// The ledger has come so far: the hauls that end below are let go of.
    fn settle(&self, marks: &[(i32, i64)]) {
        let mut hauls = self.hauls();
        hauls.marks.extend(marks.iter().copied());
        while let Some(&(partition, next, bytes)) = hauls.waiting.front()
            && hauls.marks.get(&partition).is_some_and(|mark| *mark >= next)
        {
            hauls.waiting.pop_front();
            hauls.bytes -= bytes;
        }
    }

    fn hauls(&self) -> MutexGuard<'_, Hauls> {
        // Nothing in here panics between two steps that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The committer, as the ledger of one lease sees it: what is accounted for is off the load.
pub struct Relief {
    pub committer: Arc<Committer>,
    pub load: Arc<Load>,
}

impl Offsets for Relief {
    async fn commit(&self, marks: &[(i32, i64)]) -> Result<(), CommitFailed> {
        let outcome = self.committer.commit(marks).await;
        self.load.settle(marks);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::{Event, OffsetRange, Payload};

    fn message(partition: i32, offset: i64, bytes: usize) -> Record {
        let payload = match bytes {
            0 => Payload::AlreadyStored,
            _ => Event::decode(None, Some(&vec![b'x'; bytes])),
        };
        Record { partition, range: OffsetRange::new(offset, offset + 1), received: 0, payload }
    }

    #[test]
    fn a_load_is_full_until_the_ledger_has_passed_enough_of_it() {
        let load = Load::default();
        load.add(&[message(0, 0, FULL / 2), message(1, 7, 10)]);
        assert!(!load.is_full());
        load.add(&[message(0, 1, FULL / 2)]);
        assert!(load.is_full());
        load.settle(&[(0, 1)]);
        assert!(load.is_full(), "the end of the first haul, in partition 1, is not passed yet");
        load.settle(&[(1, 8)]);
        assert!(!load.is_full());
        load.settle(&[(0, 2)]);
        let left = load.hauls();
        assert_eq!((left.bytes, left.waiting.len()), (0, 0));
    }

    #[test]
    fn what_weighs_nothing_is_not_kept_in_mind() {
        let load = Load::default();
        load.add(&[message(0, 0, 0)]);
        load.add(&[]);
        assert!(load.hauls().waiting.is_empty());
    }
}
