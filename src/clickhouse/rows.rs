//! The columns of our tables; and rows of `rejected`, and of a table of the user's own, in ClickHouse's `RowBinaryWithNamesAndTypes`: a header of
//! names and types, then the rows, field by field, as they were decoded.
//!
//! Format: <https://clickhouse.com/docs/interfaces/formats/RowBinaryWithNamesAndTypes>. Integers are little endian, strings
//! carry their length as LEB128.

use super::block;
use bytes::{BufMut, Bytes, BytesMut};
use flows::{Payload, Record, Reject, Table};

/// A column: its name and its type.
pub type Column = (&'static str, &'static str);

/// Where a row comes from.
pub const POSITION: [Column; 3] =
    [("_source", "LowCardinality(String)"), ("_partition", "Int32"), ("_offset", "Int64")];

/// The columns that an insert into `events` brings, in their order in the [`block`].
const EVENTS: [Column; 9] = [
    ("event_id", "UUID"),
    ("event_type", "LowCardinality(String)"),
    ("user_id", "String"),
    ("product_id", "LowCardinality(String)"),
    ("price", "Decimal(10, 2)"),
    ("timestamp", "DateTime64(3, 'UTC')"),
    POSITION[0],
    POSITION[1],
    POSITION[2],
];

/// The columns that an insert into `rejected` brings, in the order of [`put_reject`].
const REJECTED: [Column; 10] = [
    ("key", "String"),
    ("payload", "String"),
    ("headers", "Array(Tuple(name String, value Nullable(String)))"),
    ("timestamp", "Nullable(DateTime64(3, 'UTC'))"),
    ("reason", "LowCardinality(String)"),
    ("detail", "String"),
    ("topic", "LowCardinality(String)"),
    POSITION[0],
    POSITION[1],
    POSITION[2],
];

/// The columns of a table that an insert brings; all others have defaults.
pub const fn columns(table: Table) -> &'static [Column] {
    match table {
        Table::Events => &EVENTS,
        Table::Rejected => &REJECTED,
    }
}

/// The largest size of the header, and the average size of a row beside its [`Record::weight`], so that the buffer
/// rarely grows.
const HEAD_BYTES: usize = 512;
const ROW_BYTES: usize = 112;

/// The format of [`encode`].
pub const fn format(table: Table) -> &'static str {
    match table {
        Table::Events => block::FORMAT,
        Table::Rejected => FORMAT,
    }
}

/// The format of [`encode_as`].
pub const FORMAT: &str = "RowBinaryWithNamesAndTypes";

/// Encodes the records that belong into `table`; `from` is the topic they came from: its name and its id.
pub fn encode(table: Table, from: (&str, &str), records: &[&Record]) -> Bytes {
    match table {
        Table::Events => block::encode(from.1, records),
        Table::Rejected => encode_as(&REJECTED, table, from, records),
    }
}

/// Encodes records whose rows have these columns.
pub fn encode_as<T: AsRef<str>>(
    columns: &[(T, T)],
    table: Table,
    (topic, source): (&str, &str),
    records: &[&Record],
) -> Bytes {
    let heavy: usize = records.iter().map(|record| record.weight()).sum();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + records.len() * ROW_BYTES + heavy);
    length(&mut out, columns.len());
    columns.iter().for_each(|(name, _)| string(&mut out, name.as_ref().as_bytes()));
    columns.iter().for_each(|(_, kind)| string(&mut out, kind.as_ref().as_bytes()));
    for record in records {
        match (&record.payload, table) {
            (Payload::Row(row), Table::Events) => out.put_slice(row.encoded()),
            (Payload::Rejected(reject), Table::Rejected) => put_reject(&mut out, topic, reject),
            // Settling sorts records by table; a marker of stored rows belongs to neither.
            _ => continue,
        }
        string(&mut out, source.as_bytes());
        out.put_i32_le(record.partition);
        out.put_i64_le(record.offset());
    }
    out.freeze()
}

fn put_reject(out: &mut BytesMut, topic: &str, reject: &Reject) {
    string(out, &reject.key);
    string(out, &reject.payload);
    out.put_slice(reject.headers.encoded());
    out.put_u8(u8::from(reject.timestamp_ms.is_none()));
    reject.timestamp_ms.into_iter().for_each(|ms| out.put_i64_le(ms));
    string(out, reject.reason.as_str().as_bytes());
    string(out, reject.detail.as_bytes());
    string(out, topic.as_bytes());
}

/// A string, with its length before it.
pub fn string(out: &mut BytesMut, bytes: &[u8]) {
    length(out, bytes.len());
    out.put_slice(bytes);
}

/// LEB128: seven bits a byte, the lowest first, the top bit set on all but the last.
pub fn length(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_leb128() {
        for (value, bytes) in [(0, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
            let mut out = BytesMut::new();
            length(&mut out, value);
            assert_eq!(&out[..], bytes);
        }
    }
}
