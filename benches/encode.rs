//! Encoding: the rows of an insert become ClickHouse's binary format.

use clickstream::clickhouse::encode_rows;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use flows::{Event, Faults, Message, OffsetRange, Record, Shoppers, Table, now};

/// The topic's name and its id, as rows carry them.
const FROM: (&str, &str) = ("clicks", "6sT1BzQ9QfSd0Vd2gqkYQA");

fn main() {
    divan::main();
}

/// Rows of one insert into this table.
#[divan::bench(args = [1_000, 50_000])]
fn events(bencher: Bencher, rows: i64) {
    encode(bencher, Table::Events, records(rows, 0.0));
}

#[divan::bench(args = [1_000])]
fn rejects(bencher: Bencher, rows: i64) {
    encode(bencher, Table::Rejected, records(rows, 1.0));
}

fn encode(bencher: Bencher, table: Table, records: Vec<Record>) {
    let rows: Vec<&Record> = records.iter().collect();
    let bytes = encode_rows(table, FROM, &rows).len();
    let bencher = bencher.counter(ItemsCount::new(rows.len())).counter(BytesCount::new(bytes));
    bencher.bench_local(|| encode_rows(table, FROM, &rows));
}

/// Messages of the simulated shop, decoded; this share of them is bad.
fn records(rows: i64, bad: f64) -> Vec<Record> {
    let mut shoppers = Shoppers::new(1, 500, Faults { bad, ..Faults::default() });
    let record = |offset| {
        let Message { key, payload, .. } = shoppers.next(now());
        let payload = Event::decode(Some(key.as_bytes()), payload.as_deref());
        Record::new(0, OffsetRange::new(offset, offset + 1), now(), payload)
    };
    (0..rows).map(record).collect()
}
