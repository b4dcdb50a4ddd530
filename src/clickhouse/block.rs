//! Rows of `events` in ClickHouse's format `Native`: one block, column after column, as ClickHouse keeps them in memory.
//!
//! The server reads a column of numbers in one go, and knows each repeated text by a number. So it takes in these rows at less than half of
//! the CPU time of rows field by field (`RowBinary`).
//!
//! Format: <https://clickhouse.com/docs/interfaces/formats/Native>. A block is the numbers of its columns and rows, and then each column: its
//! name, its type, and its values. Integers are little endian, strings carry their length as LEB128, a UUID is two 64-bit halves with the high
//! one first, a decimal the integer of its cents. A `LowCardinality` column is a dictionary, and the numbers of its entries.

use super::rows::{self, Column, length, string};
use bytes::{BufMut, Bytes, BytesMut};
use flows::{Event, Record, Table};
use std::collections::HashMap;

/// Its name in a statement.
pub const FORMAT: &str = "Native";

/// The largest size of all that is not a value, dictionaries included, and of a row beside its [`Record::weight`], so that the buffer rarely
/// grows.
const HEAD_BYTES: usize = 16 * 1024;
const ROW_BYTES: usize = 64;

/// How ClickHouse's `SerializationLowCardinality.cpp` marks a dictionary that stands in the block itself: its version, and two bits beside the
/// size of its numbers.
const DICTIONARY_VERSION: u64 = 1;
const DICTIONARY_IN_BLOCK: u64 = 1 << 9 | 1 << 10;

/// Encodes the events among these records; `source` is the topic they came from.
pub fn encode(source: &str, records: &[&Record]) -> Bytes {
    // Settling sorts records by table, so all of them are events.
    let rows: Vec<_> = records.iter().filter_map(|record| record.event().map(|event| (*record, event))).collect();
    let mut block = Block::begin(&rows);
    block.fixed(|out, event| {
        let (high, low) = event.id.as_u64_pair();
        out.put_u64_le(high);
        out.put_u64_le(low);
    });
    block.low_cardinality(|event| event.kind.as_str());
    block.strings(|event| event.user.as_bytes());
    block.low_cardinality(|event| &event.product);
    block.fixed(|out, event| out.put_i64_le(event.cents));
    block.fixed(|out, event| out.put_i64_le(event.timestamp_ms));
    block.end(source)
}

/// A block whose columns are written in the order of [`rows::columns`].
struct Block<'r> {
    rows: &'r [(&'r Record, &'r Event)],
    columns: std::slice::Iter<'static, Column>,
    out: BytesMut,
}

impl<'r> Block<'r> {
    fn begin(rows: &'r [(&'r Record, &'r Event)]) -> Self {
        let (columns, weight) =
            (rows::columns(Table::Events), rows.iter().map(|(record, _)| record.weight()).sum::<usize>());
        let mut out = BytesMut::with_capacity(HEAD_BYTES + rows.len() * ROW_BYTES + weight);
        length(&mut out, columns.len());
        length(&mut out, rows.len());
        Self { rows, columns: columns.iter(), out }
    }

    /// Begins the next column.
    fn column(&mut self) {
        let (name, kind) = self.columns.next().expect("a table has all the columns that are written");
        string(&mut self.out, name.as_bytes());
        string(&mut self.out, kind.as_bytes());
    }

    fn fixed(&mut self, put: impl Fn(&mut BytesMut, &Event)) {
        self.column();
        self.rows.iter().for_each(|(_, row)| put(&mut self.out, row));
    }

    fn strings(&mut self, value: impl Fn(&'r Event) -> &'r [u8]) {
        self.column();
        self.rows.iter().for_each(|(_, row)| string(&mut self.out, value(row)));
    }

    fn low_cardinality(&mut self, value: impl Fn(&'r Event) -> &'r str) {
        self.column();
        let mut dictionary = Dictionary::default();
        let numbers: Vec<_> = self.rows.iter().map(|(_, row)| dictionary.number(value(row))).collect();
        dictionary.put(&mut self.out, &numbers);
    }

    /// Writes the columns of the position.
    fn end(mut self, source: &'r str) -> Bytes {
        self.low_cardinality(|_| source);
        self.column();
        self.rows.iter().for_each(|(record, _)| self.out.put_i32_le(record.partition));
        self.column();
        self.rows.iter().for_each(|(record, _)| self.out.put_i64_le(record.offset()));
        self.out.freeze()
    }
}

/// The texts of a column, and their numbers.
struct Dictionary<'v> {
    values: Vec<&'v str>,
    numbers: HashMap<&'v str, u32>,
}

/// So many values of a dictionary are compared before its hash map is asked: columns of a few values need no hashes.
const COMPARED: usize = 5;

impl Default for Dictionary<'_> {
    /// As ClickHouse has it: the empty text comes first, whether it occurs or not.
    fn default() -> Self {
        Self { values: vec![""], numbers: HashMap::from([("", 0)]) }
    }
}

impl<'v> Dictionary<'v> {
    fn number(&mut self, value: &'v str) -> u32 {
        if let Some(number) = self.values.iter().take(COMPARED).position(|known| *known == value) {
            return number as u32;
        }
        *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            (self.values.len() - 1) as u32
        })
    }

    fn put(&self, out: &mut BytesMut, numbers: &[u32]) {
        if numbers.is_empty() {
            return;
        }
        // The numbers have one, two or four bytes: sizes 0, 1 and 2.
        let size = match self.values.len() {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        out.put_u64_le(DICTIONARY_VERSION);
        out.put_u64_le(DICTIONARY_IN_BLOCK | size);
        out.put_u64_le(self.values.len() as u64);
        self.values.iter().for_each(|value| string(out, value.as_bytes()));
        out.put_u64_le(numbers.len() as u64);
        match size {
            0 => numbers.iter().for_each(|number| out.put_u8(*number as u8)),
            1 => numbers.iter().for_each(|number| out.put_u16_le(*number as u16)),
            _ => numbers.iter().for_each(|number| out.put_u32_le(*number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A column as ClickHouse 26.7 has written it: `SELECT CAST(arrayJoin(['x', 'y', 'x']), 'LowCardinality(String)') FORMAT Native`.
    #[test]
    fn a_dictionary_is_the_one_that_clickhouse_writes() {
        let (mut dictionary, mut out) = (Dictionary::default(), BytesMut::new());
        let numbers: Vec<_> = ["x", "y", "x"].map(|value| dictionary.number(value)).into();
        dictionary.put(&mut out, &numbers);
        let words = [1_u64, 0x600, 3].map(u64::to_le_bytes).concat();
        let expected = [&words[..], b"\0\x01x\x01y", &3_u64.to_le_bytes(), &[1, 2, 1]].concat();
        assert_eq!(&out[..], expected);
    }

    proptest::proptest! {
        #[test]
        fn each_text_has_one_number_and_the_numbers_are_as_wide_as_they_need(
            values in proptest::collection::vec("[a-c]{0,2}", 1..40), more in 0_usize..70_000,
        ) {
            let many: Vec<_> = (0..more).map(|number| number.to_string()).collect();
            let (mut dictionary, mut out) = (Dictionary::default(), BytesMut::new());
            let all: Vec<_> = many.iter().chain(&values).map(String::as_str).collect();
            let numbers: Vec<_> = all.iter().map(|value| dictionary.number(value)).collect();
            let read: Vec<_> = numbers.iter().map(|number| dictionary.values[*number as usize]).collect();
            proptest::prop_assert_eq!(&read, &all);
            let different: BTreeSet<_> = all.iter().copied().chain([""]).collect();
            proptest::prop_assert_eq!(dictionary.values.len(), different.len());
            dictionary.put(&mut out, &numbers);
            let keys: usize = dictionary.values.iter().map(|value| value.len() + 1).sum();
            let width = if different.len() <= 1 << 8 { 1 } else if different.len() <= 1 << 16 { 2 } else { 4 };
            proptest::prop_assert_eq!(out.len(), 4 * 8 + keys + numbers.len() * width);
        }
    }
}
