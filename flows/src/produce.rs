//! From due times to acknowledged events.

use crate::{Event, Fault, Message, Metrics, Stage, now};
use futures::{Stream, StreamExt, TryStreamExt};
use std::future::Future;

/// A topic that messages are sent to. Implemented over Kafka; by a double in tests.
pub trait Topic {
    /// Hands a message over as soon as there is room for it: the next one is to be sent after that, so that the order of the
    /// calls is the order of the topic. Returns what resolves when the message is acknowledged.
    fn send(
        &self,
        message: &Message,
    ) -> impl Future<Output = impl Future<Output = Result<Acked, Lost>> + Send + use<Self>> + Send;
}

/// Where an acknowledged message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// A message that was not acknowledged: the topic may hold it or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not acknowledged: {0}")]
pub struct Lost(pub String);

/// The outcome of a message.
#[derive(Debug)]
pub struct Receipt {
    /// The event of the shop it was made from; none if it is of a template.
    pub event: Option<Event>,
    /// The deliberate fault of the message.
    pub fault: Option<Fault>,
    /// Where it stands now.
    pub acked: Result<Acked, Lost>,
    /// When it was due, handed to Kafka, acknowledged: nanoseconds since the Unix epoch.
    pub times: [i64; 3],
}

/// How a run of [`produce`] ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages that were not: the topic may hold them or not.
    pub lost: u64,
}

/// Sends the `next` message, of an event that happens then, at each due time of `schedule`, and hands each receipt to `keep`, in order. Ends
/// when the schedule ends and every message is acknowledged or given up.
///
/// # Errors
/// The error of `keep`.
pub async fn produce<E>(
    schedule: impl Stream<Item = i64>,
    mut next: impl FnMut(i64) -> Message,
    topic: &impl Topic,
    in_flight: usize,
    metrics: &Metrics,
    mut keep: impl FnMut(Receipt) -> Result<(), E>,
) -> Result<Tally, E> {
    schedule
        .map(|due| (due, next(due)))
        .then(|(due, message)| send(topic, message, due, metrics)) // one after another: the topic's order is the stream's order
        .buffered(in_flight) //                                    acks in order, bounded in flight: this is the backpressure
        .map(Ok)
        .try_fold(Tally::default(), |tally, receipt| {
            let tally = tally.count(&receipt, metrics);
            std::future::ready(keep(receipt).map(|()| tally))
        })
        .await
}

/// Hands a message over; returns what resolves to its receipt.
async fn send<T: Topic>(
    topic: &T,
    message: Message,
    due: i64,
    metrics: &Metrics,
) -> impl Future<Output = Receipt> + use<T> {
    let acked = topic.send(&message).await;
    let handed = now();
    Metrics::count(&metrics.bytes, message.payload.as_ref().map_or(0, |payload| payload.len() as u64));
    // The topic has its own copy of the payload by now: only what the receipt needs waits for the acknowledgement.
    let Message { event, fault, .. } = message;
    async move { Receipt { event, fault, acked: acked.await, times: [due, handed, now()] } }
}

impl Tally {
    fn count(mut self, receipt: &Receipt, metrics: &Metrics) -> Self {
        let [due, handed, acked] = receipt.times;
        let mut latencies = metrics.latencies();
        latencies.record(Stage::Slip, handed - due);
        match receipt.acked {
            Ok(_) => {
                latencies.record(Stage::Ack, acked - handed);
                self.acknowledged += 1;
                Metrics::count(&metrics.events, 1);
            }
            Err(_) => self.lost += 1,
        }
        self
    }
}
