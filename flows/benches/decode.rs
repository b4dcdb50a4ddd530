//! Decoding: a message of the topic becomes an event, or a reject that says why.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flows::{Event, Faults, Message, Shoppers, now};

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
