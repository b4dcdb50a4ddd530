//! A topic to produce to.

use flows::{Acked, Lost, Message, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};

type Answer = BoxFuture<'static, Result<(), Lost>>;

/// A topic that acknowledges each message as `answer` says of its number.
pub struct Wire<F> {
    log: Arc<Mutex<Log>>,
    answer: F,
}

#[derive(Default)]
struct Log {
    sent: Vec<Message>,
    open: usize,
    peak: usize,
}

impl<F: Fn(usize) -> Answer> Wire<F> {
    pub fn new(answer: F) -> Self {
        Self { log: Arc::default(), answer }
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

impl<F: Fn(usize) -> Answer> Topic for Wire<F> {
    fn send(&self, message: &Message) -> impl Future<Output = Result<Acked, Lost>> + Send + use<F> {
        let mut log = self.log.lock().unwrap();
        let nth = log.sent.len();
        log.sent.push(message.clone());
        log.open += 1;
        log.peak = log.peak.max(log.open);
        let open = self.log.clone();
        (self.answer)(nth).map(move |answer| {
            open.lock().unwrap().open -= 1;
            answer.map(|()| Acked { partition: 0, offset: nth as i64 })
        })
    }
}
