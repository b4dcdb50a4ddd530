//! A consumed record, decoded: an event, a reject, or a run of stored offsets.

use crate::{Consumed, Event, Header, Headers, OffsetRange};
use compact_str::CompactString;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// One step ahead in a partition.
#[derive(Clone, Debug)]
pub struct Record {
    /// The partition of the topic.
    pub partition: i32,
    /// From the end of the record before it to behind its own offset, so that the ranges of a partition chain. It is
    /// longer than one where the topic holds no record at some offsets (transaction markers, compaction).
    pub range: OffsetRange,
    /// When it was received: nanoseconds since the Unix epoch.
    pub received: i64,
    /// The content of the record.
    pub payload: Payload,
    /// The memory budget of the fetch that it came with, on its last record: freed when that is committed or dropped.
    pub permit: Option<Permit>,
}

/// A part of a memory budget. It is given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit(#[expect(dead_code, reason = "it only has to be dropped")] Arc<OwnedSemaphorePermit>);

impl Permit {
    /// Holds this permit.
    pub fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(permit))
    }
}

impl Record {
    /// A record that was received at `received`, nanoseconds since the Unix epoch, and holds no part of a budget.
    pub const fn new(partition: i32, range: OffsetRange, received: i64, payload: Payload) -> Self {
        Self { partition, range, received, payload, permit: None }
    }

    /// The offset of the record itself.
    pub const fn offset(&self) -> i64 {
        self.range.next - 1
    }

    /// The event of the shop, where it is one.
    pub const fn event(&self) -> Option<&Event> {
        match &self.payload {
            Payload::Event(event) => Some(event),
            _ => None,
        }
    }

    /// When its event happened, in milliseconds since the Unix epoch; none where it is no event.
    pub const fn event_ms(&self) -> Option<i64> {
        match &self.payload {
            Payload::Event(event) => Some(event.timestamp_ms),
            Payload::Row(row) => Some(row.event_ms),
            _ => None,
        }
    }

    /// The bytes that it holds beside its own struct. Those of a usual event fit into the struct, so it weighs nothing.
    pub fn weight(&self) -> usize {
        match &self.payload {
            Payload::Event(event) => [&event.user, &event.product].map(heap_bytes).iter().sum(),
            Payload::Row(row) => row.bytes.len(),
            Payload::Rejected(reject) => {
                let Reject { key, payload, headers, detail, .. } = &**reject;
                size_of::<Reject>() + key.len() + payload.len() + headers.weight() + detail.len()
            }
            Payload::AlreadyStored => 0,
        }
    }
}

fn heap_bytes(text: &CompactString) -> usize {
    if text.is_heap_allocated() { text.capacity() } else { 0 }
}

/// The content of a [`Record`].
#[derive(Clone, Debug)]
pub enum Payload {
    /// A good event: one row of `events`.
    Event(Event),
    /// A good message for a table of the user's own: one row of it.
    Row(Row),
    /// A message that is no event: one row of `rejected`.
    Rejected(Box<Reject>),
    /// Rows that an earlier owner of the partition stored and did not commit. There is nothing to insert, but the
    /// committed offset has to pass them.
    AlreadyStored,
}

/// A message for a table of the user's own ([`Columns`](crate::Columns)): its row as the insert takes it, and the message itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When the event happened: milliseconds since the Unix epoch.
    pub event_ms: i64,
    /// Kafka's timestamp of the message: milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// The row, the key, the payload, and the headers.
    bytes: Box<[u8]>,
    row_bytes: usize,
    key_bytes: usize,
    payload_bytes: usize,
}

impl Row {
    /// A row, and the message that it was made of with its encoded headers, in one allocation.
    pub(crate) fn new(event_ms: i64, row: &[u8], headers: &[u8], message: &Consumed<'_>) -> Self {
        let (key, payload) = (message.key.unwrap_or_default(), message.payload.unwrap_or_default());
        Self {
            event_ms,
            timestamp_ms: message.timestamp_ms,
            bytes: [row, key, payload, headers].concat().into(),
            row_bytes: row.len(),
            key_bytes: key.len(),
            payload_bytes: payload.len(),
        }
    }

    /// The row's values, without its position.
    pub fn encoded(&self) -> &[u8] {
        &self.bytes[..self.row_bytes]
    }

    /// The message's key; empty where it had none.
    pub fn key(&self) -> &[u8] {
        &self.bytes[self.row_bytes..][..self.key_bytes]
    }

    /// The message's payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.row_bytes + self.key_bytes..][..self.payload_bytes]
    }

    /// The message's headers.
    pub fn headers(&self) -> Headers {
        Headers::of_encoded(&self.bytes[self.row_bytes + self.key_bytes + self.payload_bytes..])
    }
}

/// A message that is not an event, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The key's bytes; empty where there was none.
    pub key: Vec<u8>,
    /// The payload's bytes; empty where there was none.
    pub payload: Vec<u8>,
    /// Kafka's timestamp: milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// The message's headers.
    pub headers: Headers,
    /// Why, in one of a few words.
    pub reason: Reason,
    /// The field that is to blame, where it is one.
    pub field: Option<Cow<'static, str>>,
    /// Why, in a sentence.
    pub detail: String,
}

impl Reject {
    /// A reject, for now without what [`keep`](Self::keep) adds.
    pub fn new(
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        reason: Reason,
        field: Option<Cow<'static, str>>,
        detail: String,
    ) -> Self {
        let [key, payload] = [key, payload].map(|bytes| bytes.unwrap_or_default().to_vec());
        Self { key, payload, timestamp_ms: None, headers: Headers::default(), reason, field, detail }
    }

    /// Keeps the timestamp and the headers of its message as well, so that it can be sent again whole.
    pub fn keep(&mut self, timestamp_ms: Option<i64>, headers: &[Header<'_>]) {
        self.timestamp_ms = timestamp_ms;
        self.headers = Headers::new(headers);
    }
}

/// Why a message was rejected. The names are stable: dashboards group by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// No payload at all (a tombstone).
    NullPayload,
    /// Not one JSON object.
    NotJson,
    /// A field is missing.
    MissingField,
    /// A field has another JSON type, or stands twice.
    WrongType,
    /// A value is outside the range of its column.
    OutOfRange,
    /// `event_id` is no UUID.
    BadUuid,
    /// `event_type` is none of the three.
    UnknownType,
    /// `price` is negative or does not fit `Decimal(10, 2)`.
    BadPrice,
    /// `timestamp` is no RFC 3339 time, or outside the years 1900 to 2299.
    BadTimestamp,
    /// A text is longer than [`Event::MAX_TEXT_BYTES`].
    TooLong,
    /// ClickHouse refused the row, for example by a constraint of the table.
    Refused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NullPayload,
        Self::NotJson,
        Self::MissingField,
        Self::WrongType,
        Self::OutOfRange,
        Self::BadUuid,
        Self::UnknownType,
        Self::BadPrice,
        Self::BadTimestamp,
        Self::TooLong,
        Self::Refused,
    ];

    /// Its name in the table `rejected`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NullPayload => "null_payload",
            Self::NotJson => "not_json",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::BadUuid => "bad_uuid",
            Self::UnknownType => "unknown_type",
            Self::BadPrice => "bad_price",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventType;

    fn weight(payload: Payload) -> usize {
        Record::new(0, OffsetRange::new(0, 1), 0, payload).weight()
    }

    fn event(user: &str, product: &str) -> Payload {
        let (id, kind) = (uuid::Uuid::nil(), EventType::Purchase);
        Payload::Event(Event { id, kind, user: user.into(), product: product.into(), cents: 1, timestamp_ms: 0 })
    }

    #[test]
    fn bytes_outside_the_struct_weigh() {
        let long = "x".repeat(1_000);
        assert_eq!(weight(event("user_0042", "prod_123")), 0);
        for (payload, bytes) in [(event(&long, "p"), 1_000), (event("u", &long), 1_000), (event(&long, &long), 2_000)] {
            let weight = weight(payload);
            assert!((bytes..bytes * 2).contains(&weight), "{weight} for {bytes}");
        }
        let mut reject = Reject::new(Some(&[1; 10]), Some(&[2; 200]), Reason::NotJson, None, "why".into());
        reject.keep(None, &[("h", Some(&[3; 50]))]);
        assert_eq!(weight(Payload::Rejected(Box::new(reject))), size_of::<Reject>() + 213 + 55);
        assert_eq!(weight(Payload::AlreadyStored), 0);
    }
}
