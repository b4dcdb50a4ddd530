//! Records as a topic brings them.

use super::ms;
use flows::{Event, EventType, OffsetRange, Payload, Reason, Record, Reject, now};
use futures::{Stream, StreamExt, stream};
use std::ops::Range;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// The product whose rows the [`FakeClickHouse`](super::FakeClickHouse) refuses.
pub const BAD: &str = "bad";

/// The fake ClickHouse refuses rows of this product with an unlisted error.
pub const ODD: &str = "odd";

fn record(partition: i32, range: OffsetRange, payload: Payload) -> Record {
    Record::new(partition, range, now(), payload)
}

fn about(partition: i32, offset: i64, product: &str) -> Record {
    let event = Event {
        id: Uuid::from_u128(((partition as u128) << 64) | offset as u128),
        kind: EventType::PageView,
        user: "ann".into(),
        product: product.into(),
        cents: 100,
        timestamp_ms: now() / 1_000_000,
    };
    record(partition, OffsetRange::new(offset, offset + 1), Payload::Event(event))
}

pub fn event(partition: i32, offset: i64) -> Record {
    about(partition, offset, "lamp")
}

pub fn events(partition: i32, offsets: Range<i64>) -> Vec<Record> {
    offsets.map(|offset| event(partition, offset)).collect()
}

/// An event that decodes, and that the sink refuses.
pub fn bad(partition: i32, offset: i64) -> Record {
    about(partition, offset, BAD)
}

/// An event that decodes, and on which an expression of the table fails.
pub fn odd(partition: i32, offset: i64) -> Record {
    about(partition, offset, ODD)
}

pub fn reject(partition: i32, offset: i64) -> Record {
    let reject = Reject::new(None, Some(b"{"), Reason::NotJson, None, "not a JSON object".into());
    record(partition, OffsetRange::new(offset, offset + 1), Payload::Rejected(Box::new(reject)))
}

/// Offsets that an earlier owner of the partition stored.
pub fn passed(partition: i32, offsets: Range<i64>) -> Record {
    record(partition, OffsetRange::new(offsets.start, offsets.end), Payload::AlreadyStored)
}

/// Each record at its time: milliseconds from now.
pub fn timeline<I: IntoIterator<Item = (u64, Record)>>(steps: I) -> impl Stream<Item = Record> + use<I> {
    let start = Instant::now();
    stream::iter(steps.into_iter().collect::<Vec<_>>()).then(move |(at, record)| async move {
        sleep_until(start + ms(at)).await;
        record
    })
}
