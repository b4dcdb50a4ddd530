//! One number for many rows: the same for the topic's messages and for the tables' rows, in any order.

use flate2::Crc;
use flows::{Event, Payload, Reject};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The number of rows of each table, and for each the sum of its rows' CRC-32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    pub events: u64,
    pub events_sum: u64,
    pub rejects: u64,
    pub rejects_sum: u64,
}

/// The text of a row, as ClickHouse makes it of the columns of `events`.
pub const EVENT: &str = "concat(toString(event_id), '|', toString(event_type), '|', user_id, '|', product_id, '|', \
    toString(CAST(price * 100, 'Int64')), '|', toString(toUnixTimestamp64Milli(timestamp)), '|', toString(_partition), '|', toString(_offset))";

/// The text of a row, as ClickHouse makes it of the columns of `rejected`.
pub const REJECT: &str = "concat(key, '|', payload, '|', toString(_partition), '|', toString(_offset))";

impl Checksum {
    /// All rows.
    pub const fn rows(&self) -> u64 {
        self.events + self.rejects
    }

    /// Adds the row of a message.
    pub fn add(&mut self, partition: i32, offset: i64, payload: &Payload, text: &mut String) {
        match payload {
            Payload::Event(event) => {
                self.events += 1;
                self.events_sum += u64::from(of_event(event, partition, offset, text));
            }
            Payload::Rejected(reject) => {
                self.rejects += 1;
                self.rejects_sum += u64::from(of_reject(reject, partition, offset));
            }
            Payload::Row(_) | Payload::AlreadyStored => {}
        }
    }
}

fn of_event(event: &Event, partition: i32, offset: i64, text: &mut String) -> u32 {
    let Event { id, kind, user, product, cents, timestamp_ms } = event;
    let kind = kind.as_str();
    text.clear();
    let written = write!(text, "{id}|{kind}|{user}|{product}|{cents}|{timestamp_ms}|{partition}|{offset}");
    written.expect("a text takes everything");
    let mut crc = Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

fn of_reject(reject: &Reject, partition: i32, offset: i64) -> u32 {
    let mut crc = Crc::new();
    for part in [&reject.key[..], b"|", &reject.payload, format!("|{partition}|{offset}").as_bytes()] {
        crc.update(part);
    }
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_rows_does_not_matter_and_each_field_does() {
        let event = |offset: i64, price: &str| {
            let json = format!(
                r#"{{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":{price},"timestamp":"2024-01-15T14:30:00Z"}}"#
            );
            (offset, Event::decode(Some(b"u"), Some(json.as_bytes())))
        };
        let sum = |rows: &[(i64, Payload)]| {
            let (mut sum, mut text) = (Checksum::default(), String::new());
            rows.iter().for_each(|(offset, payload)| sum.add(0, *offset, payload, &mut text));
            sum
        };
        let good = [event(1, "1"), event(2, "2.5"), event(3, "\"no\"")];
        let there = sum(&good);
        assert_eq!((there.events, there.rejects, there.rows()), (2, 1, 3));
        let mut other = good.clone();
        other.reverse();
        assert_eq!(sum(&other), there);
        for changed in [event(4, "2.5"), event(2, "2.51")] {
            assert_ne!(sum(&[good[0].clone(), changed, good[2].clone()]), there);
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_clickhouse_calls_crc32() {
        let mut crc = Crc::new();
        crc.update(b"123456789");
        assert_eq!(crc.sum(), 0xcbf4_3926);
    }
}
