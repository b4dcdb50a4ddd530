//! A topic to produce to.

use flows::{Acked, Lost, Message, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

type Answer = BoxFuture<'static, Result<(), Lost>>;

/// A topic that acknowledges each message as `answer` says of its number.
pub struct Wire<F> {
    log: Arc<Mutex<Log>>,
    answer: F,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Log {
    sent: Vec<Message>,
    open: usize,
    peak: usize,
}

impl<F: Fn(usize) -> Answer> Wire<F> {
    pub fn new(answer: F) -> Self {
        Self::with_room(Semaphore::MAX_PERMITS, answer)
    }

    /// With room for this many unacknowledged messages.
    pub fn with_room(room: usize, answer: F) -> Self {
        Self { log: Arc::default(), answer, room: Arc::new(Semaphore::new(room)) }
    }

    /// The messages, in the order of the calls.
    pub fn sent(&self) -> Vec<Message> {
        self.log.lock().unwrap().sent.clone()
    }

    /// How many messages were unacknowledged at the same time, at most.
    pub fn peak(&self) -> usize {
        self.log.lock().unwrap().peak
    }
}

impl<F: Fn(usize) -> Answer + Sync> Topic for Wire<F> {
    async fn send(&self, message: &Message) -> impl Future<Output = Result<Acked, Lost>> + Send + use<F> {
        let room = self.room.clone().acquire_owned().await.unwrap();
        let mut log = self.log.lock().unwrap();
        let nth = log.sent.len();
        log.sent.push(message.clone());
        log.open += 1;
        log.peak = log.peak.max(log.open);
        let open = self.log.clone();
        (self.answer)(nth).map(move |answer| {
            open.lock().unwrap().open -= 1;
            drop(room);
            answer.map(|()| Acked { partition: 0, offset: nth as i64 })
        })
    }
}
