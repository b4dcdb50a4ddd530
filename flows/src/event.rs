//! The event: one flat JSON object, decoded into a row without an allocation in the usual case.

use crate::contract::{self, MAX_TEXT_BYTES};
use crate::diagnosis::{self, Diagnosis};
use crate::{Payload, Reject};
use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use uuid::Uuid;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Looked at a product.
    PageView,
    /// Put a product into the cart.
    AddToCart,
    /// Bought a product out of the cart.
    Purchase,
}

impl EventType {
    /// All of them, in the order of the funnel.
    pub const ALL: [Self; 3] = [Self::PageView, Self::AddToCart, Self::Purchase];

    /// Its name on the wire and in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PageView => "page_view",
            Self::AddToCart => "add_to_cart",
            Self::Purchase => "purchase",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One event, in the units of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique for each event; a shop that sends one twice gets two rows with the same id.
    pub id: Uuid,
    /// The kind of the event.
    pub kind: EventType,
    /// The shopper; also the key of the message.
    pub user: CompactString,
    /// With which product.
    pub product: CompactString,
    /// The price in cents, 0 to [`Event::MAX_CENTS`].
    pub cents: i64,
    /// When: milliseconds since the Unix epoch, from 1900 to 2299.
    pub timestamp_ms: i64,
}

/// The JSON of an event, field by field, borrowed from the payload.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    product_id: Cow<'a, str>,
    price: f64,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
}

impl Wire<'_> {
    fn is_short_enough(&self) -> Result<(), Diagnosis> {
        let texts = [
            (&contract::EVENT_ID, &self.event_id),
            (&contract::EVENT_TYPE, &self.event_type),
            (&contract::USER_ID, &self.user_id),
            (&contract::PRODUCT_ID, &self.product_id),
            (&contract::TIMESTAMP, &self.timestamp),
        ];
        match texts.into_iter().find(|(_, text)| text.len() > MAX_TEXT_BYTES) {
            Some((field, text)) => Err(diagnosis::too_long(field, text.len())),
            None => Ok(()),
        }
    }
}

impl Event {
    /// The longest `user_id` and `product_id`, in bytes of UTF-8; so are the other texts of an event, whose formats are shorter.
    pub const MAX_TEXT_BYTES: usize = MAX_TEXT_BYTES;

    /// The largest price that `Decimal(10, 2)` holds, in cents.
    pub const MAX_CENTS: i64 = 9_999_999_999;

    /// Decodes a message into an event, or into a reject that keeps its bytes and the reason. Decoding never fails:
    /// every message becomes one row.
    pub fn decode(key: Option<&[u8]>, payload: Option<&[u8]>) -> Payload {
        let key = key.unwrap_or_default();
        match payload.ok_or_else(diagnosis::no_payload).and_then(|payload| parse(key, payload)) {
            Ok(event) => Payload::Event(event),
            Err(Diagnosis { reason, field, detail }) => {
                let field = field.map(Cow::Borrowed);
                Payload::Rejected(Box::new(Reject::new(Some(key), payload, reason, field, detail)))
            }
        }
    }

    /// The event as the JSON that [`Event::decode`] reads.
    pub fn to_json(&self) -> Vec<u8> {
        let (mut id, mut time) = (Uuid::encode_buffer(), *b"0000-00-00T00:00:00.000Z");
        let wire = Wire {
            event_id: Cow::Borrowed(self.id.hyphenated().encode_lower(&mut id)),
            event_type: Cow::Borrowed(self.kind.as_str()),
            user_id: Cow::Borrowed(&self.user),
            product_id: Cow::Borrowed(&self.product),
            price: self.price(),
            timestamp: Cow::Borrowed(rfc3339(self.timestamp_ms, &mut time)),
        };
        let mut json = Vec::with_capacity(JSON_BYTES);
        serde_json::to_writer(&mut json, &wire).expect("strings and a finite number always serialise");
        json
    }

    /// The price in the currency's unit.
    pub fn price(&self) -> f64 {
        self.cents as f64 / 100.0
    }

    /// When, in nanoseconds since the Unix epoch; saturates outside the years 1678 to 2261, which nanoseconds in 64 bits
    /// do not reach.
    pub const fn timestamp_ns(&self) -> i64 {
        self.timestamp_ms.saturating_mul(1_000_000)
    }
}

/// Some Windows programs begin a text with it; it is no part of the JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The approximate size of an event's JSON, so that the buffer rarely grows.
const JSON_BYTES: usize = 208;

/// RFC 3339 with milliseconds. Chrono's own formatter takes ten times as long, at a fifth of the cost of a whole event.
fn rfc3339(ms: i64, text: &mut [u8; 24]) -> &str {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    let fields = [
        (0, 4, time.year().unsigned_abs()),
        (5, 2, time.month()),
        (8, 2, time.day()),
        (11, 2, time.hour()),
        (14, 2, time.minute()),
        (17, 2, time.second()),
        (20, 3, time.timestamp_subsec_millis()),
    ];
    for (at, width, mut value) in fields {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    str::from_utf8(text).expect("digits and punctuation")
}

fn parse(key: &[u8], payload: &[u8]) -> Result<Event, Diagnosis> {
    // Serde would read an array of six values as the struct's fields too; the contract says object.
    if is_object(payload) {
        return parse_object(key, payload);
    }
    match payload.strip_prefix(BYTE_ORDER_MARK) {
        Some(json) if is_object(json) => parse_object(key, json),
        _ => Err(diagnosis::no_object(key, payload)),
    }
}

fn is_object(payload: &[u8]) -> bool {
    payload.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn parse_object(key: &[u8], json: &[u8]) -> Result<Event, Diagnosis> {
    let wire: Wire<'_> = serde_json::from_slice(json).map_err(|error| diagnosis::bad_object(key, json, &error))?;
    wire.is_short_enough()?;
    let id = Uuid::try_parse(&wire.event_id).map_err(|_| diagnosis::bad_uuid(&wire.event_id))?;
    let kind = EventType::parse(&wire.event_type).ok_or_else(|| diagnosis::unknown_type(&wire.event_type))?;
    let cents = cents(wire.price).ok_or_else(|| diagnosis::bad_price(wire.price))?;
    let timestamp_ms = timestamp_ms(&wire.timestamp).ok_or_else(|| diagnosis::bad_timestamp(&wire.timestamp))?;
    Ok(Event { id, kind, user: wire.user_id.into(), product: wire.product_id.into(), cents, timestamp_ms })
}

/// Rounded to cents; none where it is negative, not finite or too large.
fn cents(price: f64) -> Option<i64> {
    let cents = (price * 100.0).round();
    (price >= 0.0 && cents <= Event::MAX_CENTS as f64).then_some(cents as i64)
}

fn timestamp_ms(text: &str) -> Option<i64> {
    const YEARS: std::ops::Range<i64> = year_ms(1900)..year_ms(2300);
    let ms = DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis();
    YEARS.contains(&ms).then_some(ms)
}

const fn year_ms(year: i32) -> i64 {
    let midnight = NaiveDate::from_ymd_opt(year, 1, 1).expect("a year in range").and_hms_opt(0, 0, 0);
    midnight.expect("midnight exists").and_utc().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"user_0042","product_id":"prod_123","price":29.99,"timestamp":"2024-01-15T14:30:00.123Z"}"#;

    fn event(json: &str) -> Event {
        parse(b"", json.as_bytes()).unwrap_or_else(|why| panic!("{json}: {why:?}"))
    }

    fn reason(json: &[u8]) -> Reason {
        match Event::decode(Some(b"k"), Some(json)) {
            Payload::Rejected(reject) => {
                assert_eq!(
                    (reject.key.as_slice(), reject.payload.as_slice()),
                    (b"k".as_slice(), json),
                    "bytes as they came"
                );
                reject.reason
            }
            other => panic!("{}: {other:?}", String::from_utf8_lossy(json)),
        }
    }

    #[test]
    fn the_event_of_the_contract_is_read() {
        let read = event(GOOD);
        assert_eq!(read.id.to_string(), "5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10");
        assert_eq!((read.kind, &*read.user, &*read.product), (EventType::PageView, "user_0042", "prod_123"));
        assert_eq!((read.cents, read.timestamp_ms), (2999, 1_705_329_000_123));
        assert_eq!(String::from_utf8(read.to_json()).unwrap(), GOOD, "and written the same");
    }

    #[test]
    fn an_event_of_the_contract_is_not_a_reject() {
        for (from, to, ms) in [
            (".123Z", "Z", 1_705_329_000_000),
            (".123Z", ".1239999Z", 1_705_329_000_123),
            (".123Z", ".5+09:00", 1_705_296_600_500),
            ("2024-01-15T14:30:00.123Z", "1900-01-01T00:00:00Z", -2_208_988_800_000),
            ("2024-01-15T14:30:00.123Z", "1969-12-31T23:59:59.9995Z", -1),
            ("2024-01-15T14:30:00.123Z", "2299-12-31T23:59:59.999Z", 10_413_791_999_999),
        ] {
            assert_eq!(event(&GOOD.replace(from, to)).timestamp_ms, ms, "{to}");
        }
        for (price, cents) in [
            ("0", 0),
            ("-0.0", 0),
            ("29.994", 2999),
            ("29.995", 3000),
            ("99999999.99", Event::MAX_CENTS),
            ("1e2", 10_000),
        ] {
            assert_eq!(event(&GOOD.replace("29.99", price)).cents, cents, "{price}");
        }
        assert_eq!(
            event(&GOOD.replace("{", r#" {"extra":{"deep":[1,2,{}]},"#)).cents,
            2999,
            "unknown fields are ignored"
        );
        assert_eq!(event(&format!("\u{feff}{GOOD}")), event(GOOD), "a byte order mark is no part of it");
        assert_eq!(&*event(&GOOD.replace("user_0042", r"u\u00e9\n")).user, "u\u{e9}\n", "escapes are read");
    }

    #[test]
    fn every_other_fault_is_a_reject_with_its_reason() {
        for (from, to, expected) in [
            (GOOD, "", Reason::NotJson),
            (GOOD, "null", Reason::NotJson),
            (GOOD, r#"["a","page_view","u","p",1,"2024-01-15T14:30:00Z"]"#, Reason::NotJson),
            ("}", "", Reason::NotJson),
            ("}", "}}", Reason::NotJson),
            (r#""price":29.99,"#, "", Reason::MissingField),
            ("29.99", r#""29.99""#, Reason::WrongType),
            ("29.99", "null", Reason::WrongType),
            ("29.99", r#"1,"price":2"#, Reason::WrongType),
            ("29.99", "NaN", Reason::NotJson),
            ("29.99", "-0.01", Reason::BadPrice),
            ("29.99", "100000000", Reason::BadPrice),
            ("29.99", "340282366920938463463374607431768211456", Reason::BadPrice),
            ("29.99", "1e999", Reason::BadPrice),
            ("5b0e4d5e-8f63", "5b0e4d5e-8f6", Reason::BadUuid),
            ("page_view", "refund", Reason::UnknownType),
            ("2024-01-15T14:30:00.123Z", "yesterday", Reason::BadTimestamp),
            ("2024-01-15T14:30:00.123Z", "2024-02-30T14:30:00Z", Reason::BadTimestamp),
            ("2024-01-15T14:30:00.123Z", "2024-01-15T14:30:00", Reason::BadTimestamp),
            ("2024-01-15T14:30:00.123Z", "1899-12-31T23:59:59.999Z", Reason::BadTimestamp),
            ("2024-01-15T14:30:00.123Z", "2300-01-01T00:00:00Z", Reason::BadTimestamp),
            ("user_0042", &"u".repeat(1_025), Reason::TooLong),
        ] {
            assert_eq!(reason(GOOD.replace(from, to).as_bytes()), expected, "{to}");
        }
        assert_eq!(reason(b"{\"event_id\":\"\xff\xfe\"}"), Reason::NotJson);
        assert!(matches!(Event::decode(None, None), Payload::Rejected(reject) if reject.reason == Reason::NullPayload));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Event::decode(None, Some(&bytes));
        }

        #[test]
        fn a_damaged_event_is_one_row_all_the_same(at in 0..GOOD.len(), byte in any::<u8>()) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Event::decode(None, Some(&bytes));
        }

        #[test]
        fn every_price_in_cents_survives_json(cents in 0..=Event::MAX_CENTS, ms in year_ms(1900)..year_ms(2300)) {
            let there = Event { cents, timestamp_ms: ms, ..event(GOOD) };
            prop_assert_eq!(parse(b"", &there.to_json()), Ok(there));
        }
    }
}
