//! Whatever happens, every record is stored once, and committed after that: random topics, policies, failures, crashes.

mod support;

use flows::{Content, Delivery, IngestError, Islands, Policy, Span, Table, Warehouse};
use futures::{Stream, StreamExt, stream};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::{Depot, Group, Lease, Rig, bad, event, ms, passed, reject};
use tokio::time::{sleep, timeout};

/// One record of the topic, in the order in which it comes.
#[derive(Clone, Debug)]
struct Record {
    partition: i32,
    /// Offsets without a record before this one.
    gap: i64,
    kind: Kind,
    /// How long after the one before it it comes.
    pause: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Event,
    /// An event that the warehouse refuses.
    Bad,
    Reject,
}

fn record(partitions: i32) -> impl Strategy<Value = Record> {
    let gap = prop_oneof![9 => Just(0), 1 => 1..4i64];
    let kind = prop_oneof![12 => Just(Kind::Event), 1 => Just(Kind::Bad), 2 => Just(Kind::Reject)];
    let pause = prop_oneof![12 => Just(0), 3 => 1..300u64, 1 => 300..7_000u64].prop_map(ms);
    (0..partitions, gap, kind, pause).prop_map(|(partition, gap, kind, pause)| Record { partition, gap, kind, pause })
}

fn topic() -> impl Strategy<Value = Vec<Record>> {
    (1..=4).prop_flat_map(|partitions| prop::collection::vec(record(partitions), 0..150))
}

fn policy() -> impl Strategy<Value = Policy> {
    (1..=20usize, 0..6_000u64, 1..=5usize, 1..=4usize)
        .prop_map(|(rows, millis, in_flight, coalesce)| Policy { coalesce, ..Policy::new(rows, ms(millis), in_flight) })
}

/// How long an owner lives, and how often it can prove its lease.
fn crash() -> impl Strategy<Value = (Duration, u64)> {
    let lives = prop_oneof![1 => 0..200u64, 3 => 0..20_000u64].prop_map(ms);
    (lives, prop_oneof![3 => Just(u64::MAX), 1 => 1..30u64])
}

/// The topic with its offsets.
fn deliveries(topic: &[Record]) -> Vec<(Duration, Delivery)> {
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let deliver = |record: &Record| {
        let end = ends.entry(record.partition).or_default();
        let first = *end;
        *end += record.gap + 1;
        let make = match record.kind {
            Kind::Event => event,
            Kind::Bad => bad,
            Kind::Reject => reject,
        };
        (record.pause, Delivery { span: Span::new(first, *end), ..make(record.partition, *end - 1) })
    };
    topic.iter().map(deliver).collect()
}

/// What a new owner is given: all from the committed offsets on, without what is stored.
fn resumed(
    topic: &[(Duration, Delivery)],
    stored: &BTreeMap<i32, Islands>,
    group: &Group,
) -> impl Stream<Item = Delivery> + use<> {
    let committed = group.committed();
    let mut left: Vec<_> =
        topic.iter().filter(|(_, delivery)| delivery.offset() >= committed[&delivery.partition]).cloned().collect();
    for (_, delivery) in &mut left {
        if stored[&delivery.partition].contains(delivery.offset()) {
            delivery.content = Content::Stored;
        }
    }
    // Neighbours that are stored are passed over in one step.
    left.dedup_by(|(_, later), (_, earlier)| {
        let joins = later.partition == earlier.partition && passes(later) && passes(earlier);
        if joins {
            *earlier = passed(earlier.partition, earlier.span.first..later.span.next);
        }
        joins
    });
    stream::iter(left).then(|(pause, delivery)| async move {
        if !pause.is_zero() {
            sleep(pause).await;
        }
        delivery
    })
}

const fn passes(delivery: &Delivery) -> bool {
    matches!(delivery.content, Content::Stored)
}

async fn islands(depot: &Depot, partition: i32, from: i64) -> Islands {
    loop {
        if let Ok(islands) = depot.stored(partition, Span::new(from, i64::MAX)).await {
            return islands;
        }
    }
}

/// One owner after the other, each until it fails or crashes, until the topic is through.
async fn live_through(topic: &[Record], policy: Policy, seed: u64, crashes: &[(Duration, u64)]) {
    let topic = deliveries(topic);
    let mut rig = Rig::new(Depot::moody(seed));
    rig.group.moody(seed);
    let crashes = crashes.iter().copied().map(Some).chain(std::iter::repeat(None));
    for (life, crash) in crashes.enumerate() {
        assert!(life < 500, "it does not come to an end");
        rig.depot.quiesce_all().await;
        let mut stored = BTreeMap::new();
        for (partition, from) in rig.group.committed() {
            stored.insert(partition, islands(&rig.depot, partition, from).await);
        }
        let source = resumed(&topic, &stored, &rig.group);
        let (lives, proofs) = crash.unwrap_or((ms(u64::MAX / 1_000_000), u64::MAX));
        rig.lease = Arc::new(Lease::lasting(proofs).moody(seed + life as u64));
        match timeout(lives, rig.ingest(source, policy)).await {
            Ok(Ok(ledger)) => {
                let ends = ends(&topic);
                assert!(ledger.marks().all(|(partition, mark)| mark == ends[&partition]), "the source was drained");
                break;
            }
            Ok(Err(error @ (IngestError::Crashed(_) | IngestError::OutOfOrder(_)))) => panic!("{error}"),
            Ok(Err(_)) | Err(_) => {}
        }
        // The tasks of the pipeline that was dropped end when they are next scheduled, like those of a process that dies.
        tokio::task::yield_now().await;
        assert_eq!(rig.depot.awaited().0, 0, "nobody awaits an insert of a pipeline that is gone");
        assert!(rig.depot.awaited().1 <= policy.in_flight);
    }
    assert!(rig.depot.sent().iter().all(|sent| sent.rows.len() <= policy.rows * policy.coalesce));
    check(&rig, &topic);
}

fn ends(topic: &[(Duration, Delivery)]) -> BTreeMap<i32, i64> {
    let mut ends: BTreeMap<_, _> = (0..4).map(|partition| (partition, 0)).collect();
    ends.extend(topic.iter().map(|(_, delivery)| (delivery.partition, delivery.span.next)));
    ends
}

/// Every record is stored exactly once, where it belongs.
fn check(rig: &Rig, topic: &[(Duration, Delivery)]) {
    let table = |delivery: &Delivery| match delivery.event() {
        Some(event) if event.product != support::BAD => Table::Events,
        _ => Table::Rejected,
    };
    let mut expected: Vec<_> =
        topic.iter().map(|(_, delivery)| (delivery.partition, delivery.offset(), table(delivery))).collect();
    expected.sort_by_key(|row| (row.0, row.1));
    assert_eq!(rig.depot.rows(), expected);
}

proptest! {
    // Backoff is random, so a seed alone brings no failure back; what proptest prints makes it likely.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_stored_once_and_committed_after_that(
        topic in topic(),
        policy in policy(),
        seed in any::<u32>(),
        crashes in prop::collection::vec(crash(), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(&topic, policy, seed.into(), &crashes));
    }
}
