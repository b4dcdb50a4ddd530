//! From due times to acknowledged messages.

use crate::support::{Wire, ms};
use flows::{Faults, Lost, Message, Metrics, Rate, Receipt, Shoppers, Stage, Tally, now, produce, schedule};
use futures::{FutureExt, future, stream};
use std::convert::Infallible;
use std::num::NonZeroU64;
use tokio::time::sleep;

/// Due times 1 s apart, all of them past.
fn dues(count: i64) -> Vec<i64> {
    let start = now() / 1_000_000_000 - count;
    (0..count).map(|nth| (start + nth) * 1_000_000_000).collect()
}

fn shoppers() -> impl FnMut(i64) -> Message {
    let mut shoppers = Shoppers::new(1, 10, Faults::default());
    move |due| shoppers.next(due)
}

async fn run(dues: &[i64], topic: &impl flows::Topic, in_flight: usize, metrics: &Metrics) -> (Tally, Vec<Receipt>) {
    let mut receipts = Vec::new();
    let keep = |receipt| {
        receipts.push(receipt);
        Ok::<_, Infallible>(())
    };
    let Ok(tally) = produce(stream::iter(dues.to_vec()), shoppers(), topic, in_flight, metrics, keep).await;
    (tally, receipts)
}

#[tokio::test(start_paused = true)]
async fn the_order_of_sends_is_the_order_of_dues() {
    // The later a message, the sooner it is acknowledged.
    let topic = Wire::new(|nth| sleep(ms(1_000 - nth as u64)).map(Ok).boxed());
    let dues = dues(100);
    run(&dues, &topic, 10, &Metrics::default()).await;
    let sent: Vec<_> =
        topic.sent().iter().map(|message| message.event.as_ref().map_or(0, |event| event.timestamp_ns())).collect();
    assert_eq!(sent, dues);
}

#[tokio::test(start_paused = true)]
async fn receipts_are_in_order() {
    let topic = Wire::new(|nth| sleep(ms(1_000 - nth as u64 % 7 * 100)).map(Ok).boxed());
    let dues = dues(100);
    let (tally, receipts) = run(&dues, &topic, 10, &Metrics::default()).await;
    assert_eq!(tally, Tally { acknowledged: 100, lost: 0 });
    for (nth, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt.acked.as_ref().map(|acked| acked.offset), Ok(nth as i64));
        assert_eq!(receipt.times[0], dues[nth]);
        assert!(receipt.times.is_sorted(), "due, handed over, acknowledged: {:?}", receipt.times);
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_in_flight_messages_are_unacknowledged() {
    for in_flight in [1, 7, 200] {
        let topic = Wire::new(|nth| sleep(ms(nth as u64 * 13 % 100)).map(Ok).boxed());
        run(&dues(100), &topic, in_flight, &Metrics::default()).await;
        assert_eq!(topic.peak(), in_flight.min(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_room_is_waited_for_and_the_order_stays() {
    let topic = Wire::with_room(5, |nth| sleep(ms(nth as u64 * 13 % 100)).map(Ok).boxed());
    let dues = dues(100);
    let (tally, receipts) = run(&dues, &topic, 200, &Metrics::default()).await;
    assert_eq!((tally.acknowledged, receipts.len(), topic.peak()), (100, 100, 5));
    let sent: Vec<_> =
        topic.sent().iter().map(|message| message.event.as_ref().map_or(0, |event| event.timestamp_ns())).collect();
    assert_eq!(sent, dues);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_never_has_room_again_can_be_given_up() {
    let topic = Wire::with_room(5, |_| future::pending().boxed());
    let (dues, metrics) = (dues(100), Metrics::default());
    let stopped = tokio::time::timeout(ms(1_000), run(&dues, &topic, 200, &metrics)).await;
    assert!(stopped.is_err(), "the flow waits, and lets others run");
    assert_eq!(topic.sent().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_message_is_counted_as_lost_and_stops_nothing() {
    let topic = Wire::new(|nth| future::ready(if nth % 10 == 3 { Err(Lost("down".into())) } else { Ok(()) }).boxed());
    let metrics = Metrics::default();
    let (tally, receipts) = run(&dues(100), &topic, 10, &metrics).await;
    assert_eq!((tally, receipts.len()), (Tally { acknowledged: 90, lost: 10 }, 100));
    assert_eq!(Metrics::read(&metrics.events), 90);
    let latencies = metrics.latencies();
    assert_eq!((latencies.of(Stage::Slip).len(), latencies.of(Stage::Ack).len()), (100, 90));
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_cannot_be_kept_stops_the_sending() {
    let topic = Wire::new(|_| sleep(ms(10)).map(Ok).boxed());
    let ran = produce(stream::iter(dues(100)), shoppers(), &topic, 4, &Metrics::default(), |_| Err("disk full")).await;
    assert_eq!((ran, topic.sent().len()), (Err("disk full"), 4));
}

/// The schedule keeps the wall clock, so this one runs on real time; the topic stalls until 40 ms of it are over.
#[tokio::test]
async fn a_stall_shows_as_slip_and_loses_none() {
    const STEP: i64 = 1_000_000;
    const IN_FLIGHT: usize = 4;
    let stalled_until = now() + 40 * STEP;
    let topic = Wire::new(move |_| {
        async move {
            while now() < stalled_until {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        .boxed()
    });
    let (metrics, mut times) = (Metrics::default(), Vec::new());
    let keep = |receipt: Receipt| {
        times.push(receipt.times);
        Ok::<_, Infallible>(())
    };
    let dues = schedule(Rate::PerSecond(1e9 / STEP as f64), NonZeroU64::new(60));
    let Ok(tally) = produce(dues, shoppers(), &topic, IN_FLIGHT, &metrics, keep).await;
    assert_eq!(tally, Tally { acknowledged: 60, lost: 0 });
    assert!(times.windows(2).all(|pair| pair[1][0] - pair[0][0] == STEP), "the stall moved no due time");
    for [due, handed, _] in &times[IN_FLIGHT..] {
        assert!(*handed >= stalled_until.max(*due), "held up by the stall, or not before its time");
    }
    // Fewer where the machine is busy when the schedule begins; one at the very least.
    let (slip, expected) = (metrics.latencies().of(Stage::Slip).max() as i64, stalled_until - times[IN_FLIGHT][0]);
    assert!(slip >= expected - expected / 500, "{slip} ns, but the stall took {expected} ns of the fifth message");
}
