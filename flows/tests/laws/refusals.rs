//! Rows that the sink refuses, and batches that are too large for it.

use crate::support::{FakeClickHouse, Fate, Lie, TestPipeline, bad, event, events, ms, odd, passed, reject};
use flows::{IngestError, Metrics, Record, SettleError, Table};
use futures::future::join;
use std::collections::BTreeSet;
use tokio::time::{Instant, timeout};

/// Settles events 0 to `rows` with these bad ones, checks the two tables, and returns the number of inserts into `events`.
async fn inserts(clickhouse: FakeClickHouse, rows: i64, culprits: &BTreeSet<i64>) -> usize {
    inserts_with(clickhouse, rows, culprits, bad).await
}

/// Stores a batch with culprits of this kind.
async fn inserts_with(
    clickhouse: FakeClickHouse,
    rows: i64,
    culprits: &BTreeSet<i64>,
    culprit: fn(i32, i64) -> Record,
) -> usize {
    let pipeline = TestPipeline::new(clickhouse);
    let topic = (0..rows).map(|offset| if culprits.contains(&offset) { culprit(0, offset) } else { event(0, offset) });
    let durable = pipeline.settle(topic.collect()).await.unwrap();
    let _ledger = pipeline.ledger().commit(durable).await.unwrap();
    assert_eq!(
        pipeline.clickhouse.offsets(Table::Rejected),
        culprits.iter().map(|&offset| (0, offset)).collect::<Vec<_>>()
    );
    assert_eq!(pipeline.clickhouse.rows().len(), rows as usize);
    assert_eq!(pipeline.group.marks(0), [rows]);
    let counted = [Metrics::read(&pipeline.metrics.events), pipeline.metrics.rejects.total()];
    assert_eq!(counted, [rows as u64 - culprits.len() as u64, culprits.len() as u64]);
    pipeline.clickhouse.sent_to(Table::Events).len()
}

fn clickhouse() -> FakeClickHouse {
    FakeClickHouse::taking(ms(0))
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_goes_to_rejected_and_the_rest_goes_in() {
    let mut counts = Vec::new();
    for culprit in (0..1_000).step_by(37).chain([1, 499, 500, 998, 999]) {
        counts.push(inserts(clickhouse(), 1_000, &BTreeSet::from([culprit])).await);
    }
    assert!(counts.iter().all(|&count| count <= 22), "one among a thousand is found in 22 inserts: {counts:?}");
    // Whole, ten first halves that go in, and the row alone: a second half is known to hold the culprit, and not tried whole.
    assert_eq!(inserts(clickhouse(), 1_024, &BTreeSet::from([1_023])).await, 12);
}

#[tokio::test(start_paused = true)]
async fn each_of_several_refused_rows_is_found() {
    for culprits in [vec![0, 999], vec![499, 500], vec![3, 4, 5, 6, 7], (0..1_000).step_by(100).collect()] {
        let count = inserts(clickhouse(), 1_000, &culprits.iter().copied().collect()).await;
        assert!(count <= 22 * culprits.len(), "{culprits:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_overlap_share_a_lease() {
    // To open one takes six questions: which is newest, written, read back, what runs and whether it still does, what is stored.
    let leases = async |rows: i64, culprits: &BTreeSet<i64>| {
        let pipeline = TestPipeline::new(clickhouse());
        let topic = (0..rows).map(|at| if culprits.contains(&at) { bad(0, at) } else { event(0, at) });
        drop(pipeline.settle(topic.collect()).await.unwrap());
        assert_eq!(pipeline.clickhouse.offsets(Table::Rejected).len(), culprits.len());
        pipeline.clickhouse.asked() / 6
    };
    // One for the halves of the batch, one for the reject: each first half goes in, and its other half was not sent since.
    assert_eq!(leases(1_024, &BTreeSet::from([1_023])).await, 2);
    // One for each time that parts are halved, whatever their number, and one for the rejects.
    for culprits in [vec![0], vec![0, 999], (0..1_000).step_by(91).collect(), vec![3, 4, 5, 6, 7]] {
        let count = leases(1_000, &culprits.iter().copied().collect()).await;
        assert!(count <= 11, "{culprits:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn if_all_rows_are_refused_all_are_rejected() {
    for rows in [1, 2, 3, 64, 100] {
        inserts(clickhouse(), rows, &(0..rows).collect()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_found_though_inserts_fail_on_the_way() {
    let often = [Fate::Failed, Fate::Stored, Fate::Unanswered, Fate::Late(ms(900)), Fate::Stored, Fate::Part(1)];
    for from in 0..often.len() {
        let script = (from..from + 60).map(|nth| (often[nth % often.len()], ms(5)));
        inserts(FakeClickHouse::scripted(script.collect::<Vec<_>>()), 40, &BTreeSet::from([0, 13, 14, 39])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn refused_rows_and_rejects_are_one_insert() {
    let pipeline = TestPipeline::new(clickhouse());
    pipeline.all([events(0, 0..5), vec![reject(0, 5), bad(0, 6)], events(0, 7..9)].concat(), 10, 1).await.unwrap();
    let rejected: Vec<_> = pipeline.clickhouse.sent_to(Table::Rejected).into_iter().map(|sent| sent.rows).collect();
    assert_eq!(rejected, [[(0, 5), (0, 6)]]);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_stops_the_search() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([
        (Fate::Stored, ms(0)),
        (Fate::Stored, ms(0)),
        (Fate::Permanent, ms(0)),
    ]));
    let ran =
        pipeline.all((0..8).map(|offset| if offset == 6 { bad(0, 6) } else { event(0, offset) }).collect(), 8, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!((pipeline.clickhouse.sent().len(), pipeline.group.tries()), (3, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_fails_with_any_error_goes_to_rejected_and_the_rest_goes_in() {
    for culprit in [0, 1, 499, 500, 999] {
        let count = inserts_with(clickhouse(), 1_000, &BTreeSet::from([culprit]), odd).await;
        assert!(count <= 30, "one among a thousand is found in 30 inserts: {culprit}: {count}");
    }
    for culprits in [vec![0, 999], vec![3, 4, 5], (0..1_000).step_by(100).collect()] {
        let count = inserts_with(clickhouse(), 1_000, &culprits.iter().copied().collect(), odd).await;
        assert!(count <= 30 * culprits.len(), "{culprits:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn if_no_other_row_goes_in_a_row_is_rejected_because_its_reject_is_taken() {
    for rows in [1, 2, 5] {
        inserts_with(clickhouse(), rows, &(0..rows).collect(), odd).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_for_everybody_with_an_unknown_error_has_no_row_rejected() {
    for rows in [1, 3, 1_000] {
        for failures in [1, 3, 10, 40, 200] {
            let outage = vec![(Fate::Unexplained, ms(5)); failures];
            inserts(FakeClickHouse::scripted(outage), rows, &BTreeSet::new()).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_is_rejected_only_after_six_refusals_alone_while_another_was_stored() {
    for (refusals, rejected) in [(0, 0), (1, 0), (5, 0), (6, 1)] {
        // The batch is refused, then its first half goes in.
        let script = [vec![Fate::Unexplained; 3], vec![Fate::Stored], vec![Fate::Unexplained; refusals]].concat();
        let pipeline = TestPipeline::new(FakeClickHouse::scripted(script.into_iter().map(|fate| (fate, ms(5)))));
        pipeline.all(events(0, 0..2), 2, 1).await.unwrap();
        assert_eq!(pipeline.clickhouse.offsets(Table::Rejected).len(), rejected, "{refusals}");
        assert_eq!(pipeline.clickhouse.rows().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn once_an_error_was_a_rows_fault_other_rows_with_it_need_no_pauses() {
    // One in seven, some of them side by side.
    let culprits: BTreeSet<_> = (0..3_000).filter(|nth| nth % 7 == 0 || nth % 70 == 1).collect();
    let began = Instant::now();
    let count = inserts_with(clickhouse(), 3_000, &culprits, odd).await;
    assert!(began.elapsed() < ms(5_000), "the time of one such row: {:?}", began.elapsed());
    assert!(count <= 8 * culprits.len(), "{count} inserts for {} rows", culprits.len());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_for_everybody_as_a_row_did_before_has_no_other_row_rejected() {
    for failures in [1, 2, 5, 9, 30, 100] {
        // The first row takes twelve: it is found, and its reject is stored.
        let script = [vec![Fate::Stored; 12], vec![Fate::Unexplained; failures]].concat();
        let clickhouse = FakeClickHouse::scripted(script.into_iter().map(|fate| (fate, ms(5))));
        inserts_with(clickhouse, 8, &BTreeSet::from([0]), odd).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_was_no_rows_fault_before_takes_all_six() {
    // The odd row is found, as above; then another row is refused alone with another error, while others go in.
    for (refusals, rejected) in [(5, 1), (6, 2)] {
        let script = [vec![Fate::Stored; 12], vec![Fate::Flaky; refusals]].concat();
        let pipeline = TestPipeline::new(FakeClickHouse::scripted(script.into_iter().map(|fate| (fate, ms(5)))));
        let topic = (0..8).map(|offset| if offset == 0 { odd(0, offset) } else { event(0, offset) });
        drop(pipeline.settle(topic.collect()).await.unwrap());
        assert_eq!(pipeline.clickhouse.offsets(Table::Rejected).len(), rejected, "{refusals}");
        assert_eq!(pipeline.clickhouse.rows().len(), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn rejects_of_refused_rows_are_stored_while_others_are_looked_for() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(50)));
    let topic = || (0..2_000).map(|offset| if offset % 7 == 0 { odd(0, offset) } else { event(0, offset) });
    assert!(timeout(ms(30_000), pipeline.settle(topic().collect())).await.is_err(), "it takes longer");
    let stored = pipeline.clickhouse.offsets(Table::Rejected);
    assert!(stored.len() > 50, "{stored:?}");
    assert!(stored.iter().all(|(_, offset)| offset % 7 == 0), "{stored:?}");
    let into_rejected = pipeline.clickhouse.sent_to(Table::Rejected).len();
    assert!(into_rejected <= 16, "every two seconds: {into_rejected}");
    assert!(pipeline.metrics.rejects.total() >= stored.len() as u64 - 1);
    // The next pipeline resumes there: the fake ClickHouse panics if a row is stored twice.
    let left = topic().map(|row| {
        if pipeline.clickhouse.holds(0, row.offset()) { passed(0, row.range.first..row.range.next) } else { row }
    });
    drop(pipeline.settle(left.collect()).await.unwrap());
    assert_eq!((pipeline.clickhouse.offsets(Table::Rejected).len(), pipeline.clickhouse.rows().len()), (286, 2_000));
}

#[tokio::test(start_paused = true)]
async fn inserts_in_the_search_for_culprits_are_progress_and_the_newest_failure_is_known() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(50)));
    let began = std::time::Instant::now();
    let topic = (0..200).map(|offset| if offset % 7 == 0 { odd(0, offset) } else { event(0, offset) });
    assert!(timeout(ms(5_000), pipeline.settle(topic.collect())).await.is_err(), "it takes longer");
    assert_eq!(Metrics::read(&pipeline.metrics.batches), 0);
    assert!(Metrics::read(&pipeline.metrics.went_in) > 3);
    assert_eq!(pipeline.metrics.failure_since(began), Some("Unexplained, as scripted".into()));
    assert_eq!(pipeline.metrics.failure_since(std::time::Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_gets_smaller_until_it_fits() {
    for most in [1, 7, 100, 999] {
        let pipeline = TestPipeline::new(clickhouse().lying(Lie::Memory(most)));
        let durable =
            pipeline.settle([events(0, 0..1_000), vec![reject(0, 1_000), reject(0, 1_001)]].concat()).await.unwrap();
        drop(durable);
        assert_eq!(pipeline.clickhouse.offsets(Table::Events).len(), 1_000);
        assert_eq!(pipeline.clickhouse.offsets(Table::Rejected).len(), 2, "{most}");
        let parts = 1_000_usize.div_ceil(most).next_power_of_two() * 2;
        assert!(
            pipeline.clickhouse.sent_to(Table::Events).len() <= 4 * parts,
            "{most}: {}",
            pipeline.clickhouse.sent().len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_that_fits_is_remembered_and_a_larger_one_tried_later() {
    let pipeline = TestPipeline::new(clickhouse().lying(Lie::Memory(100)));
    let settle = async |first: i64| drop(pipeline.settle(events(0, first..first + 1_000)).await.unwrap());
    let inserts = || pipeline.clickhouse.sent_to(Table::Events).len();
    settle(0).await;
    let (learning, fits) = (inserts(), pipeline.metrics.room.rows().unwrap());
    assert!((50..=100).contains(&fits) && learning > 1_000 / fits, "{fits}");
    settle(1_000).await;
    assert_eq!(inserts() - learning, 1_000_usize.div_ceil(fits), "nothing that is too large is sent");
    // The server has room again.
    pipeline.clickhouse.lie(Lie::Memory(1_000));
    for nth in 2..80 {
        settle(nth * 1_000).await;
    }
    assert!(pipeline.metrics.room.rows().unwrap() >= 1_000);
    let before = inserts();
    settle(80_000).await;
    assert_eq!(inserts() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_alone_is_too_large_waits_for_the_server() {
    let pipeline = TestPipeline::new(clickhouse().lying(Lie::Memory(0)));
    let recovers = async {
        tokio::time::sleep(ms(60_000)).await;
        pipeline.clickhouse.lie(Lie::Memory(1_000));
    };
    let (durable, ()) = join(pipeline.settle(events(0, 0..2)), recovers).await;
    assert!(durable.is_ok());
    assert_eq!(
        (pipeline.clickhouse.offsets(Table::Events).len(), pipeline.clickhouse.offsets(Table::Rejected)),
        (2, vec![])
    );
}
