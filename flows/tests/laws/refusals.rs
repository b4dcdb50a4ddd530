//! Rows that the warehouse refuses.

use crate::support::{Depot, Fate, Rig, bad, event, events, ms, reject};
use flows::{IngestError, Meter, SettleError, Table};
use std::collections::BTreeSet;

/// Settles events 0 to `rows` with these bad ones, checks the two tables, and returns the number of inserts into `events`.
async fn inserts(depot: Depot, rows: i64, culprits: &BTreeSet<i64>) -> usize {
    let rig = Rig::new(depot);
    let topic = (0..rows).map(|offset| if culprits.contains(&offset) { bad(0, offset) } else { event(0, offset) });
    let durable = rig.settle(topic.collect()).await.unwrap();
    let _ledger = rig.ledger().commit(durable).await.unwrap();
    assert_eq!(rig.depot.offsets(Table::Rejected), culprits.iter().map(|&offset| (0, offset)).collect::<Vec<_>>());
    assert_eq!(rig.depot.rows().len(), rows as usize);
    assert_eq!(rig.group.marks(0), [rows]);
    let counted = [&rig.meter.events, &rig.meter.rejects].map(Meter::read);
    assert_eq!(counted, [rows as u64 - culprits.len() as u64, culprits.len() as u64]);
    rig.depot.sent_to(Table::Events).len()
}

fn depot() -> Depot {
    Depot::taking(ms(0))
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_goes_to_rejected_and_the_rest_goes_in() {
    let mut counts = Vec::new();
    for culprit in (0..1_000).step_by(37).chain([1, 499, 500, 998, 999]) {
        counts.push(inserts(depot(), 1_000, &BTreeSet::from([culprit])).await);
    }
    assert!(counts.iter().all(|&count| count <= 21), "one among a thousand is found in 21 inserts: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn each_of_several_refused_rows_is_found() {
    for culprits in [vec![0, 999], vec![499, 500], vec![3, 4, 5, 6, 7], (0..1_000).step_by(100).collect()] {
        let count = inserts(depot(), 1_000, &culprits.iter().copied().collect()).await;
        assert!(count <= 21 * culprits.len(), "{culprits:?}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_rows_are_refused_all_are_rejected() {
    for rows in [1, 2, 3, 64, 100] {
        inserts(depot(), rows, &(0..rows).collect()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_found_though_inserts_fail_on_the_way() {
    let often = [Fate::Failed, Fate::Stored, Fate::Unanswered, Fate::Late(ms(900)), Fate::Stored, Fate::Part(1)];
    for from in 0..often.len() {
        let script = (from..from + 60).map(|nth| (often[nth % often.len()], ms(5)));
        inserts(Depot::scripted(script.collect::<Vec<_>>()), 40, &BTreeSet::from([0, 13, 14, 39])).await;
    }
}

#[tokio::test(start_paused = true)]
async fn refused_rows_and_rejects_are_one_insert() {
    let rig = Rig::new(depot());
    rig.all([events(0, 0..5), vec![reject(0, 5), bad(0, 6)], events(0, 7..9)].concat(), 10, 1).await.unwrap();
    let rejected: Vec<_> = rig.depot.sent_to(Table::Rejected).into_iter().map(|sent| sent.rows).collect();
    assert_eq!(rejected, [[(0, 5), (0, 6)]]);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_stops_the_search() {
    let rig = Rig::new(Depot::scripted([(Fate::Stored, ms(0)), (Fate::Stored, ms(0)), (Fate::Permanent, ms(0))]));
    let ran =
        rig.all((0..8).map(|offset| if offset == 6 { bad(0, 6) } else { event(0, offset) }).collect(), 8, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!((rig.depot.sent().len(), rig.group.tries()), (3, vec![]));
}
