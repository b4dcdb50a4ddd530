//! When rows leave, and how many together.

use crate::support::{FakeClickHouse, TestPipeline, apart, events, ms, timeline};
use flows::{BatchConfig, Event, OffsetRange, Record, now};
use futures::{StreamExt, channel::mpsc, stream};
use tokio::time::{sleep, timeout};

/// Number of rows and time in milliseconds of each insert.
fn inserts(pipeline: &TestPipeline) -> Vec<(usize, u128)> {
    pipeline.clickhouse.sent().iter().map(|sent| (sent.rows.len(), sent.began.as_millis())).collect()
}

/// Rows of partition 0 at these milliseconds. The stream stays open afterwards, without another row.
fn at<const N: usize>(millis: [u64; N]) -> impl stream::Stream<Item = Record> {
    let rows = events(0, 0..N as i64);
    timeline(millis.into_iter().zip(rows)).chain(stream::pending())
}

#[tokio::test(start_paused = true)]
async fn a_full_chunk_leaves_at_once() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    let source = stream::iter(events(0, 0..29)).chain(stream::pending());
    assert!(timeout(ms(400), pipeline.ingest(source, apart(10, 4))).await.is_err(), "the source has not ended");
    assert_eq!(inserts(&pipeline), [(10, 0), (10, 0)], "and the nine rows behind wait for the tenth");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_large_rows_leaves_when_it_holds_enough_bytes() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    let batching = apart(1_000, 4);
    let row = |offset, bytes| {
        let payload = Event::decode(None, Some(&vec![b'x'; bytes]));
        Record::new(0, OffsetRange::new(offset, offset + 1), now(), payload)
    };
    // The fourth of a quarter each fills a chunk, one that is larger than a chunk leaves alone, the rest waits.
    let sizes = [4, 4, 4, 4, 1, 1, 1_000].map(|part| batching.bytes / part);
    let rows: Vec<_> = (0..).zip(sizes).map(|(offset, bytes)| row(offset, bytes)).collect();
    let source = stream::iter(rows).chain(stream::pending());
    assert!(timeout(ms(400), pipeline.ingest(source, batching)).await.is_err(), "the source has not ended");
    assert_eq!(inserts(&pipeline), [(4, 0), (1, 0), (1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_leaves_at_the_deadline_of_its_first_row() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    let source = at([60_000, 64_000, 64_400, 66_000, 70_400]);
    let batching = BatchConfig::new(1_000, ms(5_000), 4);
    assert!(timeout(ms(120_000), pipeline.ingest(source, batching)).await.is_err(), "the source has not ended");
    let found = inserts(&pipeline);
    let first = batching.linger().as_millis();
    assert!(
        matches!(found[..], [(3, one), (2, two)] if one.abs_diff(60_000 + first) <= 2 && two.abs_diff(66_000 + first) <= 2),
        "{found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_chunk_does_not_leave_its_deadline_to_the_next() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    let ran = timeout(ms(120_000), pipeline.ingest(at([60_000, 64_000, 64_500]), apart(2, 4))).await;
    assert!(ran.is_err(), "the source has not ended");
    let found = inserts(&pipeline);
    assert!(matches!(found[..], [(2, 64_000..64_003), (1, 69_000..69_003)]), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_that_waited_for_a_stream_to_begin_do_not_wait_again() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    // A row each 100 ms: each chunk begins with the row behind the one before it.
    let source = at(std::array::from_fn::<u64, 100, _>(|nth| nth as u64 * 100));
    assert!(
        timeout(ms(60_000), pipeline.ingest(source, BatchConfig::default())).await.is_err(),
        "the source has not ended"
    );
    let at: Vec<_> = inserts(&pipeline).iter().map(|insert| insert.1).collect();
    assert_eq!(at, [500, 600 * 2, 1_300 * 2, 2_700 * 2, 5_500 + 4_500]);
}

#[tokio::test(start_paused = true)]
async fn silence_inserts_nothing() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    assert!(timeout(ms(3_600_000), pipeline.ingest(at([]), BatchConfig::default())).await.is_err());
    assert_eq!(inserts(&pipeline), []);
    assert!(timeout(ms(3_600_000), pipeline.ingest(at([5]), BatchConfig::default())).await.is_err());
    assert_eq!(inserts(&pipeline).len(), 1, "one for the one row, none for the silence behind it");
    assert_eq!(pipeline.group.tries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_flushes_the_remainder() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    pipeline.all(events(0, 0..25), 10, 4).await.unwrap();
    assert_eq!(inserts(&pipeline), [(10, 0), (10, 0), (5, 0)], "without waiting for the deadline");
}

#[tokio::test(start_paused = true)]
async fn no_records_need_no_insert() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(0)));
    pipeline.all(vec![], 10, 4).await.unwrap();
    assert_eq!((inserts(&pipeline), pipeline.group.tries()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn inserts_overlap_up_to_in_flight() {
    for in_flight in [1, 3, 8] {
        let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1_000)));
        pipeline.all(events(0, 0..24), 1, in_flight).await.unwrap();
        assert_eq!(pipeline.clickhouse.awaited(), (0, in_flight));
        let last = pipeline.clickhouse.sent().last().and_then(|sent| sent.answered).unwrap();
        assert!(last.as_millis().abs_diff(24_000 / in_flight as u128) < 50, "in full use all the time: {last:?}");
    }
}

/// The number of inserts for 200,000 rows that arrive in small vectors, `vectors` of them every 10 ms.
async fn inserts_of_a_backlog(vectors_at_once: usize) -> Vec<(usize, u128)> {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(500)));
    let (sender, receiver) = mpsc::unbounded();
    let feed = async move {
        // Vectors that straddle two chunks.
        for (nth, vector) in events(0, 0..200_000).chunks(130).enumerate() {
            if nth % vectors_at_once == 0 {
                sleep(ms(10)).await;
            }
            sender.unbounded_send(vector.to_vec()).unwrap();
        }
    };
    let source = receiver.flat_map(stream::iter);
    let (ran, ()) = futures::join!(pipeline.ingest(source, BatchConfig::new(1_000, ms(5_000), 2)), feed);
    ran.unwrap();
    inserts(&pipeline)
}

#[tokio::test(start_paused = true)]
async fn a_backlog_coalesces() {
    let found = inserts_of_a_backlog(usize::MAX).await;
    assert_eq!(found.iter().map(|insert| insert.0).collect::<Vec<_>>(), [50_000; 4], "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_coalesces_while_the_sink_is_slow() {
    // About 100,000 rows/s: the first two chunks leave alone, and what comes while they are under way leaves together.
    let found = inserts_of_a_backlog(8).await;
    assert!(found.len() <= 12, "{found:?}");
    assert!(found.iter().all(|insert| insert.0 <= 50_000), "{found:?}");
}
