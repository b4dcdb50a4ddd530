//! Counts of rejected messages: by reason since the start, and by reason and field since they were last taken.

use crate::{Payload, Reason, Record};
use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts rows of `rejected`.
#[derive(Debug, Default)]
pub struct Rejects {
    by_reason: [AtomicU64; Reason::ALL.len()],
    bytes: AtomicU64,
    kinds: Mutex<Vec<RejectKind>>,
}

/// Rejects with one reason, about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectKind {
    /// Why.
    pub reason: Reason,
    /// The field that is to blame, where it is one.
    pub field: Option<Cow<'static, str>>,
    /// How many.
    pub count: u64,
    /// Where one of them stands: partition and offset.
    pub position: (i32, i64),
    /// The sentence about that one.
    pub detail: String,
}

impl Rejects {
    /// Counts the rejects among these records; the others are passed over.
    pub fn count<'d>(&self, records: impl IntoIterator<Item = &'d Record>) {
        for record in records {
            let Payload::Rejected(reject) = &record.payload else { continue };
            self.by_reason[reject.reason as usize].fetch_add(1, Relaxed);
            let bytes = reject.key.len() + reject.payload.len() + reject.headers.weight();
            self.bytes.fetch_add(bytes as u64, Relaxed);
            // There are no more kinds than reasons times fields: a scan beats a map.
            let mut kinds = self.kinds();
            let is_one = |kind: &&mut RejectKind| (kind.reason, &kind.field) == (reject.reason, &reject.field);
            match kinds.iter_mut().find(is_one) {
                Some(kind) => kind.count += 1,
                None => kinds.push(RejectKind {
                    reason: reject.reason,
                    field: reject.field.clone(),
                    count: 1,
                    position: (record.partition, record.offset()),
                    detail: reject.detail.clone(),
                }),
            }
        }
    }

    /// How many there were since the start.
    pub fn total(&self) -> u64 {
        self.by_reason.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// How many there were with this reason since the start.
    pub fn of(&self, reason: Reason) -> u64 {
        self.by_reason[reason as usize].load(Relaxed)
    }

    /// The bytes of their keys, payloads and headers since the start, which `rejected` keeps as they came.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Takes over the counts since the start of several topics together.
    pub(crate) fn sum_up<'r>(&self, topics: impl Iterator<Item = &'r Self> + Clone) {
        for (nth, count) in self.by_reason.iter().enumerate() {
            count.store(topics.clone().map(|topic| topic.by_reason[nth].load(Relaxed)).sum(), Relaxed);
        }
        self.bytes.store(topics.map(Self::bytes).sum(), Relaxed);
    }

    /// The most frequent kind since kinds were last taken.
    pub fn take_most_frequent(&self) -> Option<RejectKind> {
        self.take_kinds().into_iter().next()
    }

    /// All kinds since they were last taken, the most frequent one first.
    pub fn take_kinds(&self) -> Vec<RejectKind> {
        let mut kinds = std::mem::take(&mut *self.kinds());
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        kinds
    }

    fn kinds(&self) -> MutexGuard<'_, Vec<RejectKind>> {
        // Counts that are each changed in one step.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, OffsetRange};

    fn rejected(offset: i64, payload: Option<&str>) -> Record {
        let payload = Event::decode(None, payload.map(str::as_bytes));
        Record::new(3, OffsetRange::new(offset, offset + 1), 0, payload)
    }

    #[test]
    fn the_most_frequent_kind_is_told_once_and_the_totals_stay() {
        let rejects = Rejects::default();
        let good = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;
        let price = r#"{"price":"1"}"#;
        let user = r#"{"user_id":1}"#;
        let payloads = [None, Some(price), Some(user), Some(good), Some(price), None, Some(price), Some("[]")];
        let records: Vec<_> = (7..).zip(payloads).map(|(offset, payload)| rejected(offset, payload)).collect();
        rejects.count(&records);
        let expected = [(Reason::NullPayload, 2), (Reason::WrongType, 4), (Reason::NotJson, 1), (Reason::Refused, 0)];
        assert_eq!(expected.map(|(reason, _)| rejects.of(reason)), expected.map(|(_, count)| count));
        let sizes = payloads.iter().flatten().map(|payload| payload.len() as u64).sum::<u64>() - good.len() as u64;
        assert_eq!(rejects.bytes(), sizes, "without the good one");
        let kind = rejects.take_most_frequent().unwrap();
        assert_eq!((kind.reason, kind.field.as_deref(), kind.count), (Reason::WrongType, Some("price"), 3));
        assert_eq!(kind.position, (3, 8));
        assert_eq!(rejects.take_most_frequent(), None);
        rejects.count(&records[..1]);
        assert_eq!((rejects.total(), rejects.take_most_frequent().unwrap().count), (8, 1));
    }
}
