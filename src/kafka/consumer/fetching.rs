//! Records that are taken out of librdkafka's queue together, on their way to the pipeline.

use super::Client;
use super::lag;
use super::shared::{Assignment, Shared};
use crate::kafka::loss;
use crate::kafka::native::{Inbox, RawRecord};
use flows::{
    Arrival, Consumed, Decode, Header, Input, Loss, Member, Metrics, OffsetRange, Payload, Permit, Record, Shop, now,
};
use rdkafka::consumer::Consumer as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Records taken at a time; they travel to the pipeline in one vector.
pub const FETCH_RECORDS: usize = 1_000;

/// With this many bytes of records on their way to the ledgers, no more are taken out of librdkafka's queue: about 110,000 usual events,
/// two full inserts and what waits behind them. An insert holds a second copy of its bytes. The last fetch may come on top, up to the
/// size of the queue (16 MB, and one answer of each broker).
pub const BUDGET_BYTES: usize = 14 * 1024 * 1024;

/// Takes records, as long as there is room for them.
pub struct Fetcher {
    inbox: Inbox,
    /// Bytes that may still be on their way. A thousand messages of a usual size are 128 kB; a thousand of 1 MB are a gigabyte.
    budget: Arc<Semaphore>,
    /// The decoder of the lease.
    pub decoder: Arc<dyn Decode>,
}

/// One fetch.
struct Fetch<'m> {
    member: &'m mut Member,
    decoder: &'m dyn Decode,
    records: Vec<Record>,
    bytes: u64,
    received: i64,
    inputs: Vec<Input>,
    is_out_of_sync: bool,
    /// Empty between two messages: its memory is used again.
    headers: Vec<Header<'static>>,
}

impl Fetcher {
    /// Nothing is fetched yet.
    pub fn new(inbox: Inbox, budget_bytes: usize) -> Self {
        Self { inbox, decoder: Arc::new(Shop), budget: Arc::new(Semaphore::new(budget_bytes)) }
    }

    /// Hands the waiting messages to the pipeline; false if there was nothing to do.
    pub fn fetch(&mut self, client: &Client, topic: &str, shared: &Shared, metrics: &Metrics) -> bool {
        let callbacks = client.context();
        let mut assignment = shared.lock();
        let Assignment { member, records: Some(sender), .. } = &mut *assignment else { return false };
        let Some(room) = sender.room().filter(|_| self.budget.available_permits() > 0) else { return false };
        let mut fetch = Fetch::begin(member, &*self.decoder);
        let taken = self.inbox.take(Duration::ZERO, |raw| {
            raw.error.into_iter().for_each(|code| callbacks.reasons().note_answer(code));
            fetch.push(&raw, |passed| lag::deleted(client, topic, raw.partition, passed));
        });
        let Fetch { mut records, bytes, inputs, .. } = fetch;
        let own = records.len() * size_of::<Record>();
        let weight = own + records.iter().map(Record::weight).sum::<usize>();
        match records.last_mut() {
            Some(last) => {
                last.permit = self.permit(weight);
                room.send(records);
            }
            None => drop(room),
        }
        drop(assignment);
        Metrics::count(&metrics.bytes, bytes);
        Metrics::count(&metrics.unknown_fields, self.decoder.take_unknown_fields());
        for input in inputs {
            if let Input::Deleted(partition, OffsetRange { first, next }) = &input {
                loss::report(&Loss::expired(*partition, *first, *next), metrics);
            }
            shared.handle(input);
        }
        taken > 0
    }

    /// The bytes of a fetch, or as many as there are left. A single message of any size is taken when nothing else is under way.
    fn permit(&self, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.budget.available_permits());
        let permit = self.budget.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        (bytes > 0).then(|| Permit::new(permit))
    }
}

impl<'m> Fetch<'m> {
    fn begin(member: &'m mut Member, decoder: &'m dyn Decode) -> Self {
        let records = Vec::with_capacity(FETCH_RECORDS);
        let (inputs, headers) = (Vec::new(), Vec::new());
        Self { member, decoder, records, bytes: 0, received: now(), inputs, is_out_of_sync: false, headers }
    }

    /// Turns what librdkafka gives into a record of the pipeline. `deleted` says which of the offsets that were passed are gone.
    fn push(&mut self, raw: &RawRecord<'_>, deleted: impl FnOnce(OffsetRange) -> Option<OffsetRange>) {
        if self.is_out_of_sync {
            return;
        }
        let partition = raw.partition;
        let arrival = match raw.error {
            // librdkafka counts an error that it delivers as a message that was consumed: its position is not to be trusted.
            Some(error) => {
                tracing::info!("Kafka, partition {partition}: {error}");
                Arrival::OutOfSync
            }
            None => self.member.arrive(partition, raw.offset),
        };
        let (range, is_stored) = match arrival {
            Arrival::New(range) => (range, false),
            Arrival::AlreadyStored(range) => (range, true),
            Arrival::NotOurs => return,
            Arrival::OutOfSync => {
                self.is_out_of_sync = true;
                self.inputs.push(Input::OutOfSync);
                return;
            }
        };
        let passed = OffsetRange::new(range.first, raw.offset);
        if !passed.is_empty() {
            tracing::debug!("partition {partition}: no record at offsets {passed}");
            let deleted = deleted(passed);
            if deleted != Some(passed) {
                self.inputs.push(Input::Gap(partition));
            }
            self.inputs.extend(deleted.map(|deleted| Input::Deleted(partition, deleted)));
        }
        self.bytes += raw.payload.map_or(0, |payload| payload.len() as u64);
        if is_stored
            && let Some(Record { partition: at, range: before, payload: Payload::AlreadyStored, .. }) =
                self.records.last_mut()
            && *at == partition
        {
            before.next = range.next;
            return;
        }
        let payload = if is_stored { Payload::AlreadyStored } else { self.decode(raw) };
        self.records.push(Record::new(partition, range, self.received, payload));
    }

    fn decode(&mut self, raw: &RawRecord<'_>) -> Payload {
        let mut headers: Vec<Header<'_>> = std::mem::take(&mut self.headers);
        let reads_headers = self.decoder.reads_headers();
        if reads_headers {
            raw.headers(&mut headers);
        }
        let (key, payload, timestamp_ms) = (raw.key, raw.payload, raw.timestamp_ms());
        let mut decoded = self.decoder.decode(&Consumed { key, payload, timestamp_ms, headers: &headers });
        if let Payload::Rejected(reject) = &mut decoded {
            if !reads_headers {
                raw.headers(&mut headers);
            }
            reject.keep(timestamp_ms, &headers);
        }
        headers.clear();
        // Of an empty list this keeps the memory, and changes the lifetime.
        self.headers = headers.into_iter().map(|_| ("", None)).collect();
        decoded
    }
}
