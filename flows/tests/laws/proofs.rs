//! Whether the topic is still the same: asked after the newest record of a batch came, once for all who wait.

use crate::support::{FakeClickHouse, FakeSink, Fate, TestPipeline, apart, events, ms, timeline};
use flows::{Failure, LeaseLost, Ownership, Proof, Record, SharedProof, ingest};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Notes when each question was sent, and when it was answered.
#[derive(Default)]
struct Witness {
    shared: SharedProof<Result<Proof, LeaseLost>>,
    takes: Duration,
    asked: Mutex<Vec<(Instant, Instant)>>,
    answers: Mutex<VecDeque<Proof>>,
}

impl Ownership for Witness {
    fn is_lost(&self) -> bool {
        false
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        self.shared.ask(|| self.question()).await
    }

    async fn renew(&self, _: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        Ok(Ok(()))
    }
}

impl Witness {
    async fn question(&self) -> Result<Proof, LeaseLost> {
        let sent = Instant::now();
        sleep(self.takes).await;
        self.asked.lock().unwrap().push((sent, Instant::now()));
        Ok(self.answers.lock().unwrap().pop_front().unwrap_or(Proof::Certain))
    }

    fn asked(&self) -> Vec<(Instant, Instant)> {
        self.asked.lock().unwrap().clone()
    }
}

/// Runs these records through, each when its time has come; when each of them came.
async fn run(
    clickhouse: FakeClickHouse,
    records: Vec<(u64, Record)>,
    rows: usize,
    witness: Witness,
) -> (TestPipeline, Arc<Witness>, BTreeMap<i64, Instant>) {
    let (pipeline, witness) = (TestPipeline::new(clickhouse), Arc::new(witness));
    let (group, came) = (pipeline.group.clone(), Arc::new(Mutex::new(BTreeMap::new())));
    let note = came.clone();
    let source = timeline(records).inspect(move |record| {
        group.saw(record);
        note.lock().unwrap().insert(record.offset(), Instant::now());
    });
    let sink: Arc<FakeSink> = pipeline.sink.clone();
    let ran = ingest(source, apart(rows, 4), sink, witness.clone(), pipeline.metrics.clone(), pipeline.ledger());
    drop(ran.await.unwrap());
    let came = came.lock().unwrap().clone();
    (pipeline, witness, came)
}

#[tokio::test(start_paused = true)]
async fn no_insert_begins_before_a_proof_that_was_sent_after_its_newest_record_came() {
    for (takes, pause) in [(30, 0), (30, 1), (30, 7), (1, 10), (100, 3)] {
        let opened = Instant::now();
        let records = (0..).zip(events(0, 0..200)).map(|(nth, record)| (nth * pause, record)).collect();
        let witness = Witness { takes: ms(takes), ..Witness::default() };
        let (pipeline, witness, came) = run(FakeClickHouse::taking(ms(5)), records, 10, witness).await;
        let sent = pipeline.clickhouse.sent();
        assert_eq!(sent.len(), 20);
        for insert in sent {
            let newest = insert.rows.iter().map(|(_, offset)| came[offset]).max().unwrap();
            let is_proof =
                |(sent, answered): &(Instant, Instant)| *sent >= newest && *answered <= opened + insert.began;
            assert!(witness.asked().iter().any(is_proof), "{takes} ms, {pause} ms: {:?}", insert.rows);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_question_serves_all_who_wait_for_one() {
    let witness = Witness { takes: ms(10), ..Witness::default() };
    let first = async {
        witness.prove().await.unwrap();
        Instant::now()
    };
    let began = Instant::now();
    // All of these come while the first question is under way: it may be older than their records.
    let others = (1..9).map(|late| {
        let witness = &witness;
        async move {
            sleep(ms(late)).await;
            witness.prove().await.unwrap();
            Instant::now()
        }
        .boxed()
    });
    let ended = join_all([first.boxed()].into_iter().chain(others)).await;
    assert_eq!(witness.asked().len(), 2);
    assert_eq!(ended[0], began + ms(10));
    assert!(ended[1..].iter().all(|at| *at == began + ms(20)), "{ended:?}");
    assert_eq!(witness.asked()[1].0, began + ms(10));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_given_up_answers_nobody() {
    let witness = Witness { takes: ms(10), ..Witness::default() };
    assert!(tokio::time::timeout(ms(5), witness.prove()).await.is_err());
    assert_eq!((witness.prove().await, witness.asked().len()), (Ok(Proof::Certain), 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_repeated_needs_no_other_proof_unless_the_first_was_not_answered() {
    for (answers, questions) in [(vec![], 1), (vec![Proof::Unanswered; 2], 3)] {
        let script = [Fate::Failed, Fate::Unanswered, Fate::Failed, Fate::Failed].map(|fate| (fate, ms(5)));
        let witness = Witness { answers: Mutex::new(answers.into()), ..Witness::default() };
        let records = events(0, 0..10).into_iter().map(|record| (0, record)).collect();
        let (pipeline, witness, _) = run(FakeClickHouse::scripted(script), records, 10, witness).await;
        assert_eq!((pipeline.clickhouse.rows().len(), witness.asked().len()), (10, questions));
        assert!(pipeline.clickhouse.attempts() > 2);
    }
}
