//! From a consumed message to the payload of a record.

use crate::{Event, Payload};

/// A message as Kafka has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consumed<'a> {
    /// The key's bytes, if there is one.
    pub key: Option<&'a [u8]>,
    /// The payload's bytes; a tombstone has none.
    pub payload: Option<&'a [u8]>,
    /// Kafka's timestamp: milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Its headers; a name may stand several times.
    pub headers: &'a [Header<'a>],
}

/// The name of a header, and its value.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Decodes messages for one table.
pub trait Decode: Send + Sync + 'static {
    /// A good message's row, or a reject that keeps the message's bytes and the reason. Decoding never fails: every message becomes one
    /// row.
    fn decode(&self, message: &Consumed<'_>) -> Payload;

    /// How many fields no column took, since this was asked last.
    fn take_unknown_fields(&self) -> u64 {
        0
    }

    /// Whether a good message's row needs its headers. A reject gets them in any case ([`Reject::keep`](crate::Reject::keep)).
    fn reads_headers(&self) -> bool {
        false
    }
}

/// Decodes events of the shop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shop;

impl Decode for Shop {
    fn decode(&self, message: &Consumed<'_>) -> Payload {
        Event::decode(message.key, message.payload)
    }
}
