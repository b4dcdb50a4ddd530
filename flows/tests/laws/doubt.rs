//! Laws of a batch whose insert failed. The fake ClickHouse checks that nothing is stored twice.

use crate::support::{
    FakeClickHouse, FakeSink, Fate, Lie, TestPipeline, apart, bad, event, events, ms, odd, reject, timeline,
};
use flows::{
    Claim, ErrorKind, Failure, IngestError, LeaseLost, LeaseTable, Metrics, Newest, OpenError, Ownership, Proof,
    SettleError, Table, ingest, open_lease, renew_lease,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::sleep;
use uuid::Uuid;

#[tokio::test(start_paused = true)]
async fn a_failed_insert_commits_nothing_until_it_is_resolved() {
    let failures = [(Fate::Failed, ms(100)); 5];
    let pipeline = TestPipeline::new(FakeClickHouse::scripted(failures));
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    let sent = pipeline.clickhouse.sent();
    assert_eq!((sent.len(), pipeline.group.marks(0)), (6, vec![10]));
    assert!(Some(pipeline.group.tries()[0].0) >= sent[5].answered, "{sent:?}");
    assert_eq!(Metrics::read(&pipeline.metrics.retries), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failed_insert_holds_up_the_commits_behind_it_but_not_their_inserts() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Failed, ms(5_000))]));
    pipeline.all(events(0, 0..30), 10, 4).await.unwrap();
    assert_eq!(pipeline.group.marks(0), [10, 20, 30]);
    assert!(pipeline.group.tries().iter().all(|(at, _)| *at > ms(5_000)));
    assert!(pipeline.clickhouse.sent()[1..3].iter().all(|sent| sent.began < ms(10)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_with_pauses() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Failed, ms(1)); 100]));
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    let sent = pipeline.clickhouse.sent();
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1].began - pair[0].began).collect();
    assert!(pauses.iter().all(|pause| (ms(25)..ms(2_010)).contains(pause)), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause >= ms(1_000)), "{pauses:?}");
    assert_eq!(pipeline.clickhouse.rows().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_insert_whose_answer_is_lost_is_sent_again_as_it_was_and_stored_once() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Unanswered, ms(100))]));
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    // The second attempt refuses itself: none of it runs. The stored rows are read back.
    assert_eq!(
        (pipeline.clickhouse.sent().len(), pipeline.clickhouse.attempts(), pipeline.clickhouse.asked()),
        (1, 2, 1)
    );
    assert_eq!((pipeline.clickhouse.rows().len(), pipeline.group.marks(0)), (10, vec![10]));
    assert!(pipeline.group.tries()[0].0 < ms(300), "a lost answer costs less than 200 ms");
}

#[tokio::test(start_paused = true)]
async fn only_missing_rows_are_sent_again() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([
        (Fate::Part(4), ms(100)),
        (Fate::Part(0), ms(1)),
        (Fate::Part(3), ms(1)),
    ]));
    let interleaved = (0..5).flat_map(|offset| [events(0, offset..offset + 1), events(1, offset..offset + 1)].concat());
    pipeline.all(interleaved.collect(), 10, 1).await.unwrap();
    let sent: Vec<_> = pipeline.clickhouse.sent().into_iter().map(|sent| sent.rows).collect();
    assert_eq!(sent[1..3], [sent[0][4..].to_vec(), sent[0][4..].to_vec()], "the same rows in the same order");
    assert_eq!(sent[3..], [sent[0][7..].to_vec()]);
    assert_eq!((pipeline.group.marks(0), pipeline.group.marks(1)), (vec![5], vec![5]));
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_still_runs_is_awaited() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Late(ms(60_000)), ms(100))]));
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!((pipeline.clickhouse.sent().len(), pipeline.clickhouse.rows().len()), (1, 10));
    assert!(pipeline.group.tries()[0].0 >= ms(60_100));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_later_stores_nothing() {
    for after in [ms(1), ms(10), ms(60_000)] {
        let pipeline = TestPipeline::new(FakeClickHouse::scripted([]).repeating(after));
        pipeline.all(events(0, 0..30), 10, 2).await.unwrap();
        assert_eq!(
            (pipeline.clickhouse.rows().len(), pipeline.group.committed()[&0]),
            (30, 30),
            "the fake panics where one is stored twice"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_batch_is_sent_only_under_a_new_lease() {
    // The server refuses the whole for its first row. A copy of it comes when the second half is stored, and it would go in.
    for after in (0..12).map(|nth| ms(10 << nth)) {
        let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Unexplained, ms(1)); 3]).repeating(after));
        let topic = [vec![odd(0, 0)], events(0, 1..10)].concat();
        pipeline.all(topic, 10, 1).await.unwrap();
        assert_eq!((pipeline.clickhouse.rows().len(), pipeline.group.committed()[&0]), (10, 10), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_stored_and_refused_all_the_same_is_not_rejected() {
    for rows in [1, 2, 10] {
        let pipeline = TestPipeline::new(FakeClickHouse::scripted(vec![(Fate::Complained, ms(1)); 1]));
        pipeline.all(events(0, 0..rows), 10, 1).await.unwrap();
        assert_eq!(
            (pipeline.clickhouse.offsets(Table::Events).len() as i64, pipeline.group.committed()[&0]),
            (rows, rows)
        );
    }
}

/// A lease table that takes its time to say which lease is the newest.
struct Slow(Arc<FakeSink>);

impl LeaseTable for Slow {
    async fn newest(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Newest>, Failure> {
        sleep(ms(300)).await;
        self.0.newest(partitions).await
    }

    async fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> Result<(), Failure> {
        self.0.write(token, epochs).await
    }

    async fn quiesce(&self, partitions: &[i32]) -> Result<(), Failure> {
        self.0.quiesce(partitions).await
    }
}

struct SlowOwnership(Arc<FakeSink>);

impl Ownership for SlowOwnership {
    fn is_lost(&self) -> bool {
        false
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        Ok(Proof::Certain)
    }

    async fn renew(&self, partitions: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        renew_lease(&Slow(self.0.clone()), &self.0.tokens, partitions).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_comes_while_its_own_process_renews_a_lease_is_sent_again() {
    // The first batch is refused, and renews from 10 ms on: its token is written at 310 ms, and held at 610 ms.
    for late in [0, 200, 320, 500, 600, 615] {
        let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
        let records = (0..10).map(|at| (0, if at == 3 { bad(0, at) } else { event(0, at) }));
        let records = timeline(records.chain((10..20).map(|at| (late, event(0, at)))));
        let ownership = Arc::new(SlowOwnership(pipeline.sink.clone()));
        let (sink, metrics) = (pipeline.sink.clone(), pipeline.metrics.clone());
        let ran = ingest(records, apart(10, 2), sink, ownership, metrics, pipeline.ledger()).await;
        assert!(ran.is_ok(), "{late} ms: {:?}", ran.err());
        assert_eq!(pipeline.clickhouse.rows().len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn an_insert_under_an_older_token_stores_nothing_and_ends_the_lease() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    let other = pipeline.clickhouse.sink("group");
    other.takes_over(0);
    let ran = pipeline.all([events(0, 0..10), events(1, 0..10)].concat(), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!((pipeline.clickhouse.rows(), pipeline.group.tries()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_held_any_more_is_not_written() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    pipeline.sink.tokens.forget(&[0]);
    let ran = pipeline.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!(pipeline.clickhouse.rows(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_from_the_table_is_lost() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    pipeline.clickhouse.empty_leases();
    let ran = pipeline.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!(pipeline.clickhouse.rows(), []);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_said_it_failed_is_sent_again_without_a_question() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Failed, ms(1)), (Fate::Unanswered, ms(1))]));
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!(
        (pipeline.clickhouse.sent().len(), pipeline.clickhouse.attempts(), pipeline.clickhouse.asked()),
        (2, 3, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_that_fails_is_asked_again() {
    let pipeline = TestPipeline::new(
        FakeClickHouse::scripted([(Fate::Unanswered, ms(1))]).baffled([ErrorKind::Transient, ErrorKind::Data]),
    );
    pipeline.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!(
        (pipeline.clickhouse.asked(), pipeline.clickhouse.sent().len(), pipeline.group.marks(0)),
        (3, 1, vec![10])
    );
    assert_eq!(Metrics::read(&pipeline.metrics.retries), 3, "of the insert and of two questions");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_will_never_be_answered_ends_it_and_commits_nothing() {
    let pipeline = TestPipeline::new(
        FakeClickHouse::scripted([(Fate::Unanswered, ms(1))]).baffled([ErrorKind::Transient, ErrorKind::Permanent]),
    );
    let ran = pipeline.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!((pipeline.clickhouse.asked(), pipeline.clickhouse.sent().len(), pipeline.group.tries()), (2, 1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn inserts_and_questions_may_fail_in_any_order() {
    // Each question fails in one of ten cases; so do many inserts, in all ways.
    for seed in 0..50 {
        let pipeline = TestPipeline::new(FakeClickHouse::with_random_faults(seed));
        match pipeline.all(events(0, 0..10), 10, 1).await {
            Ok(_) => {
                assert_eq!(
                    pipeline.clickhouse.offsets(Table::Events),
                    (0..10).map(|offset| (0, offset)).collect::<Vec<_>>()
                )
            }
            Err(_) => assert_eq!(pipeline.group.tries(), []),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_fewer_rows_than_were_sent_is_a_doubt() {
    for lie in [Lie::Limits(3), Lie::Limits(1), Lie::NamesNone] {
        let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1)).fresh().lying(lie));
        pipeline.all([events(0, 0..25), vec![reject(0, 25)]].concat(), 10, 2).await.unwrap();
        assert_eq!((pipeline.clickhouse.rows().len(), pipeline.group.committed()[&0]), (26, 26), "{lie:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_said_to_be_stored_and_cannot_be_read_stop_it() {
    for topic in [events(0, 0..10), vec![reject(0, 0)]] {
        let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1)).fresh().lying(Lie::Hides));
        let ran = pipeline.all(topic, 10, 1).await;
        assert!(matches!(&ran, Err(IngestError::Settle(SettleError::Permanent(_)))), "{:?}", ran.err());
        assert_eq!((pipeline.clickhouse.sent().len(), pipeline.group.tries()), (1, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_read_back_once_are_not_asked_about_again() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1)).fresh());
    pipeline.all(events(0, 0..50), 10, 1).await.unwrap();
    assert_eq!((pipeline.clickhouse.sent().len(), pipeline.clickhouse.asked()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_none_can_follow_is_said_and_not_passed_over() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1)));
    let (sink, claim) = (pipeline.clickhouse.sink("group"), Claim::Group { group: "group".into(), take_over: None });
    for (epoch, is_refused) in [(u64::MAX - 1, false), (u64::MAX, true)] {
        pipeline.clickhouse.forge(0, epoch);
        let opened = open_lease(&sink, &sink.tokens, &claim, &[0, 1]).await;
        let is_permanent = matches!(&opened, Err(OpenError::Failure(why)) if why.kind == ErrorKind::Permanent);
        assert_eq!((opened.is_err(), is_permanent), (is_refused, is_refused), "{opened:?}");
    }
}
