//! What becomes of a batch whose insert failed. That nothing is stored twice, the depot checks.

use crate::support::{Depot, Fate, Lie, Rig, events, ms, odd, reject};
use flows::{Claim, Class, IngestError, Meter, OpenError, SettleError, Table, open_lease};

#[tokio::test(start_paused = true)]
async fn a_failed_insert_commits_nothing_until_it_is_resolved() {
    let failures = [(Fate::Failed, ms(100)); 5];
    let rig = Rig::new(Depot::scripted(failures));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    let sent = rig.depot.sent();
    assert_eq!((sent.len(), rig.group.marks(0)), (6, vec![10]));
    assert!(Some(rig.group.tries()[0].0) >= sent[5].answered, "{sent:?}");
    assert_eq!(Meter::read(&rig.meter.retries), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failed_insert_holds_up_the_commits_behind_it_but_not_their_inserts() {
    let rig = Rig::new(Depot::scripted([(Fate::Failed, ms(5_000))]));
    rig.all(events(0, 0..30), 10, 4).await.unwrap();
    assert_eq!(rig.group.marks(0), [10, 20, 30]);
    assert!(rig.group.tries().iter().all(|(at, _)| *at > ms(5_000)));
    assert!(rig.depot.sent()[1..3].iter().all(|sent| sent.began < ms(10)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_with_pauses() {
    let rig = Rig::new(Depot::scripted([(Fate::Failed, ms(1)); 100]));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    let sent = rig.depot.sent();
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1].began - pair[0].began).collect();
    assert!(pauses.iter().all(|pause| (ms(25)..ms(2_010)).contains(pause)), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause >= ms(1_000)), "{pauses:?}");
    assert_eq!(rig.depot.rows().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_insert_whose_answer_is_lost_is_sent_again_as_it_was_and_stored_once() {
    let rig = Rig::new(Depot::scripted([(Fate::Unanswered, ms(100))]));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    // The second attempt refuses itself: nothing of it runs. What is stored is read back.
    assert_eq!((rig.depot.sent().len(), rig.depot.attempts(), rig.depot.asked()), (1, 2, 1));
    assert_eq!((rig.depot.rows().len(), rig.group.marks(0)), (10, vec![10]));
    assert!(rig.group.tries()[0].0 < ms(300), "a lost answer costs less than 200 ms");
}

#[tokio::test(start_paused = true)]
async fn only_what_is_missing_is_sent_again() {
    let rig = Rig::new(Depot::scripted([(Fate::Part(4), ms(100)), (Fate::Part(0), ms(1)), (Fate::Part(3), ms(1))]));
    let interleaved = (0..5).flat_map(|offset| [events(0, offset..offset + 1), events(1, offset..offset + 1)].concat());
    rig.all(interleaved.collect(), 10, 1).await.unwrap();
    let sent: Vec<_> = rig.depot.sent().into_iter().map(|sent| sent.rows).collect();
    assert_eq!(sent[1..3], [sent[0][4..].to_vec(), sent[0][4..].to_vec()], "the same rows in the same order");
    assert_eq!(sent[3..], [sent[0][7..].to_vec()]);
    assert_eq!((rig.group.marks(0), rig.group.marks(1)), (vec![5], vec![5]));
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_still_runs_is_awaited() {
    let rig = Rig::new(Depot::scripted([(Fate::Late(ms(60_000)), ms(100))]));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!((rig.depot.sent().len(), rig.depot.rows().len()), (1, 10));
    assert!(rig.group.tries()[0].0 >= ms(60_100));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_later_stores_nothing() {
    for after in [ms(1), ms(10), ms(60_000)] {
        let rig = Rig::new(Depot::scripted([]).repeating(after));
        rig.all(events(0, 0..30), 10, 2).await.unwrap();
        assert_eq!(
            (rig.depot.rows().len(), rig.group.committed()[&0]),
            (30, 30),
            "the depot panics where one is stored twice"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_batch_is_sent_only_under_a_new_lease() {
    // The server refuses the whole for its first row. A copy of it comes when the second half is stored, and it would go in.
    for after in (0..12).map(|nth| ms(10 << nth)) {
        let rig = Rig::new(Depot::scripted([(Fate::Unexplained, ms(1)); 3]).repeating(after));
        let topic = [vec![odd(0, 0)], events(0, 1..10)].concat();
        rig.all(topic, 10, 1).await.unwrap();
        assert_eq!((rig.depot.rows().len(), rig.group.committed()[&0]), (10, 10), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_stored_and_refused_all_the_same_is_not_rejected() {
    for rows in [1, 2, 10] {
        let rig = Rig::new(Depot::scripted(vec![(Fate::Complained, ms(1)); 1]));
        rig.all(events(0, 0..rows), 10, 1).await.unwrap();
        assert_eq!((rig.depot.offsets(Table::Events).len() as i64, rig.group.committed()[&0]), (rows, rows));
    }
}

#[tokio::test(start_paused = true)]
async fn an_insert_under_an_older_token_stores_nothing_and_ends_the_lease() {
    let rig = Rig::new(Depot::taking(ms(10)));
    let other = rig.depot.sink("group");
    other.takes_over(0);
    let ran = rig.all([events(0, 0..10), events(1, 0..10)].concat(), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!((rig.depot.rows(), rig.group.tries()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_not_held_any_more_is_not_written() {
    let rig = Rig::new(Depot::taking(ms(10)));
    rig.sink.tokens.forget(&[0]);
    let ran = rig.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!(rig.depot.rows(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_from_the_table_is_lost() {
    let rig = Rig::new(Depot::taking(ms(10)));
    rig.depot.empty_leases();
    let ran = rig.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(_)))), "{:?}", ran.err());
    assert_eq!(rig.depot.rows(), []);
}

#[tokio::test(start_paused = true)]
async fn an_insert_that_said_it_failed_is_sent_again_without_a_question() {
    let rig = Rig::new(Depot::scripted([(Fate::Failed, ms(1)), (Fate::Unanswered, ms(1))]));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!((rig.depot.sent().len(), rig.depot.attempts(), rig.depot.asked()), (2, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_fails_is_asked_again() {
    let rig = Rig::new(Depot::scripted([(Fate::Unanswered, ms(1))]).baffled([Class::Transient, Class::Data]));
    rig.all(events(0, 0..10), 10, 1).await.unwrap();
    assert_eq!((rig.depot.asked(), rig.depot.sent().len(), rig.group.marks(0)), (3, 1, vec![10]));
    assert_eq!(Meter::read(&rig.meter.retries), 3, "of the insert and of two questions");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_will_never_be_answered_ends_it_and_commits_nothing() {
    let rig = Rig::new(Depot::scripted([(Fate::Unanswered, ms(1))]).baffled([Class::Transient, Class::Permanent]));
    let ran = rig.all(events(0, 0..10), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!((rig.depot.asked(), rig.depot.sent().len(), rig.group.tries()), (2, 1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn inserts_and_questions_may_fail_in_any_order() {
    // Each question fails in one of ten cases; so do many inserts, in all ways.
    for seed in 0..50 {
        let rig = Rig::new(Depot::moody(seed));
        match rig.all(events(0, 0..10), 10, 1).await {
            Ok(_) => {
                assert_eq!(rig.depot.offsets(Table::Events), (0..10).map(|offset| (0, offset)).collect::<Vec<_>>())
            }
            Err(_) => assert_eq!(rig.group.tries(), []),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_names_fewer_rows_than_were_sent_is_a_doubt() {
    for lie in [Lie::Limits(3), Lie::Limits(1), Lie::NamesNone] {
        let rig = Rig::new(Depot::taking(ms(1)).fresh().lying(lie));
        rig.all([events(0, 0..25), vec![reject(0, 25)]].concat(), 10, 2).await.unwrap();
        assert_eq!((rig.depot.rows().len(), rig.group.committed()[&0]), (26, 26), "{lie:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_said_to_be_stored_and_cannot_be_read_stop_it() {
    for topic in [events(0, 0..10), vec![reject(0, 0)]] {
        let rig = Rig::new(Depot::taking(ms(1)).fresh().lying(Lie::Hides));
        let ran = rig.all(topic, 10, 1).await;
        assert!(matches!(&ran, Err(IngestError::Settle(SettleError::Permanent(_)))), "{:?}", ran.err());
        assert_eq!((rig.depot.sent().len(), rig.group.tries()), (1, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_back_once_is_not_asked_about_again() {
    let rig = Rig::new(Depot::taking(ms(1)).fresh());
    rig.all(events(0, 0..50), 10, 1).await.unwrap();
    assert_eq!((rig.depot.sent().len(), rig.depot.asked()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_none_can_follow_is_said_and_not_passed_over() {
    let rig = Rig::new(Depot::taking(ms(1)));
    let (sink, claim) = (rig.depot.sink("group"), Claim::Group { group: "group".into(), take_over: None });
    for (epoch, is_refused) in [(u64::MAX - 1, false), (u64::MAX, true)] {
        rig.depot.forge(0, epoch);
        let opened = open_lease(&sink, &sink.tokens, &claim, &[0, 1]).await;
        let is_permanent = matches!(&opened, Err(OpenError::Failure(why)) if why.class == Class::Permanent);
        assert_eq!((opened.is_err(), is_permanent), (is_refused, is_refused), "{opened:?}");
    }
}
