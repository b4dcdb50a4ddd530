//! Decoding: a message of the topic becomes an event, or a reject that says why.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use flows::{ColumnDefinition, Columns, Consumed, Decode as _, Event, Faults, Message, Shoppers, TableDecoder, now};

/// Messages of a fetch batch.
const MESSAGES: usize = 1_000;

fn main() {
    divan::main();
}

/// Messages of the simulated shop; this share of them is bad.
#[divan::bench(args = [0.0, 0.01, 1.0])]
fn decode(bencher: Bencher, bad: f64) {
    let mut shoppers = Shoppers::new(1, 500, Faults { bad, ..Faults::default() });
    let messages: Vec<Message> = (0..MESSAGES).map(|_| shoppers.next(now())).collect();
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        for Message { key, payload, .. } in &messages {
            black_box(Event::decode(Some(key.as_bytes()), payload.as_deref()));
        }
    });
}

/// Events of the shop, decoded for a table of the same columns.
#[divan::bench]
fn events_for_a_table(bencher: Bencher) {
    let columns = [
        ("event_id", "UUID"),
        ("event_type", "LowCardinality(String)"),
        ("user_id", "String"),
        ("product_id", "LowCardinality(String)"),
        ("price", "Decimal(10, 2)"),
        ("timestamp", "DateTime64(3, 'UTC')"),
    ];
    let mut shoppers = Shoppers::new(1, 500, Faults::default());
    for_table(bencher, &columns, (0..MESSAGES).filter_map(|_| shoppers.next(now()).payload).collect());
}

/// Events of forty fields and about a kilobyte, as web analytics have them.
#[divan::bench]
fn forty_columns(bencher: Bencher) {
    let kinds = [
        "String",
        "LowCardinality(String)",
        "UInt64",
        "Float64",
        "Nullable(String)",
        "DateTime64(3, 'UTC')",
        "Bool",
        "Decimal(18, 4)",
    ];
    let names: Vec<_> = (0..40).map(|nth| format!("some_field_{nth:02}")).collect();
    let columns: Vec<_> =
        names.iter().enumerate().map(|(nth, name)| (name.as_str(), kinds[nth % kinds.len()])).collect();
    let values = [
        r#""a text of some words""#,
        r#""mobile""#,
        "1705329000",
        "0.70710678",
        "null",
        r#""2024-01-15T14:30:00.123Z""#,
        "true",
        "19.9900",
    ];
    let fields = |row: usize| {
        columns.iter().enumerate().map(move |(nth, (name, _))| format!("\"{name}\":{}", values[(nth + row * 8) % 8]))
    };
    let payloads = (0..100).map(|row| format!("{{{}}}", fields(row).collect::<Vec<_>>().join(",")).into_bytes());
    for_table(bencher, &columns, payloads.collect());
}

fn for_table(bencher: Bencher, columns: &[(&str, &str)], payloads: Vec<Vec<u8>>) {
    let definition =
        |&(name, kind): &(&str, &str)| ColumnDefinition { name: name.into(), kind: kind.into(), has_default: false };
    let columns =
        Columns::new(&columns.iter().map(definition).collect::<Vec<_>>(), None).expect("columns that can be filled");
    let decoder = TableDecoder::new(columns, "web");
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    let bencher = bencher.counter(ItemsCount::new(payloads.len())).counter(BytesCount::new(bytes));
    bencher.bench_local(|| {
        for payload in &payloads {
            let message = Consumed { key: Some(b"user_0001"), payload: Some(payload), ..Consumed::default() };
            divan::black_box(decoder.decode(&message));
        }
    });
}
