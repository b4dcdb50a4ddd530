//! The number and the age of messages in the assigned partitions that are not stored yet: also without an open lease, and
//! if nothing is fetched.

use super::shared::Shared;
use super::{Client, ConsumerConfig};
use crate::kafka::admin;
use crate::kafka::native::known_watermarks;
use crate::stuck::{At, Stuck};
use flows::{Arrivals, Input, Metrics, OffsetRange, Position, Run, Waiting, now};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval at which brokers are asked for the end offsets. Fetched messages show them too, but only while they are
/// fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// That interval while messages wait and none is stored: the client's queue may be full then, so nothing is fetched.
const REFRESH_SOON: Duration = Duration::from_secs(1);

/// The longest time until a broker answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A lease that takes longer than this to open counts from the topic's beginning, if nothing better is known.
const USUALLY_OPENED_IN: Duration = Duration::from_secs(5);

/// A commit that takes longer is late: its batch counts as stored without it.
const USUAL_COMMIT: Duration = Duration::from_secs(1);

/// The known offsets of the assigned partitions.
#[derive(Default)]
pub struct Reach(Mutex<BTreeMap<i32, Known>>);

#[derive(Clone, Copy, Default)]
struct Known {
    /// Where to go on, as the group has said while a lease was being opened.
    start: Option<i64>,
    /// The first offset and the one behind the last, as a broker said.
    ends: Option<(i64, i64)>,
    /// The largest end that was seen while a lease was open.
    seen: i64,
    /// The offset up to which there is no message after the committed one, while a lease is open.
    read: i64,
    /// The committed offsets when the topic was found to be gone. Kafka deletes them with the topic.
    gone_at: Option<i64>,
}

impl Reach {
    /// The group has said where to go on.
    pub fn starts(&self, starts: &[(i32, i64)]) {
        let mut known = self.known();
        for &(partition, start) in starts {
            let known = known.entry(partition).or_default();
            (known.start, known.read) = (Some(start), start);
        }
    }

    /// Removes revoked partitions.
    pub fn forget(&self, partitions: &[i32]) {
        self.known().retain(|partition, _| !partitions.contains(partition));
    }

    /// Removes partitions of a deleted topic: its messages beyond the committed offset are lost.
    pub fn topic_gone(&self, committed: &[(i32, Option<i64>)]) {
        let mut known = self.known();
        for &(partition, gone_at) in committed {
            let seen = known.get(&partition).map_or(0, |known| known.seen);
            known.insert(partition, Known { seen, gone_at, ..Known::default() });
        }
    }

    /// The committed offset in a partition of the deleted topic.
    pub fn gone_at(&self, partition: i32) -> Option<i64> {
        self.of(partition).gone_at
    }

    fn saw(&self, partition: i32, high: i64) {
        self.known().entry(partition).or_default().seen = high;
    }

    fn read(&self, partition: i32, offset: i64) {
        self.known().entry(partition).or_default().read = offset;
    }

    /// How far a partition went when a lease was last open.
    pub fn seen(&self, partition: i32) -> i64 {
        self.of(partition).seen
    }

    fn of(&self, partition: i32) -> Known {
        self.known().get(&partition).copied().unwrap_or_default()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<i32, Known>> {
        // Values that are each replaced in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the lag, and at whether it is being worked on.
pub struct Lag {
    /// Inserts that went in, and batches that were settled, also without one.
    stored: (u64, u64),
    /// When either was last another number, or nothing was there to store.
    progressed: Instant,
    /// When the messages of each assigned partition came.
    arrivals: BTreeMap<i32, Arrivals>,
}

impl Default for Lag {
    fn default() -> Self {
        Self { stored: (0, 0), progressed: Instant::now(), arrivals: BTreeMap::new() }
    }
}

/// How far an assigned partition is.
struct Place {
    partition: i32,
    /// The first offset that is not committed, and the first one that is not stored.
    committed: i64,
    stored: i64,
    /// The first offset behind the last message.
    end: i64,
}

impl Lag {
    /// Looks, and tells the metrics.
    pub fn check<S>(&mut self, client: &Client, config: &ConsumerConfig<S>, shared: &Shared, metrics: &Metrics) {
        let (places, read) = waiting(client, config, shared);
        read.into_iter().for_each(|(partition, offset)| shared.handle(Input::ReadUpTo(partition, offset)));
        let (held, has_lease) = {
            let member = &shared.lock().member;
            (member.positions().len() as u64, member.consuming().is_some())
        };
        let lag = places.iter().filter_map(|place| u64::try_from(place.end - place.committed).ok()).sum();
        // Without Kafka, partitions are lost sooner or later. Their messages wait all the same.
        if held > 0 || config.stuck.lasts(At::Kafka).is_zero() {
            metrics.lag.store(lag, Relaxed);
            *metrics.waiting() = Waiting(self.look(&places, metrics));
        }
        metrics.partitions.store(held, Relaxed);
        metrics.unleased.store(if has_lease { 0 } else { held }, Relaxed);
        if held == 0 {
            config.stuck.forget(At::Lease);
            config.stuck.forget(At::Storing);
        }
        let stored = (Metrics::read(&metrics.went_in), Metrics::read(&metrics.batches));
        if lag == 0 || stored != self.stored {
            (self.stored, self.progressed) = (stored, Instant::now());
            config.stuck.is_over(At::Storing);
        } else if self.progressed.elapsed() > config.batch_timeout {
            let kafka = || client.context().reasons().worst().map(|reason| format!("; Kafka: {reason}"));
            let clickhouse = metrics.failure_since(self.progressed).map(|failure| format!("; {failure}"));
            config.stuck.is(At::Storing, format!("{lag} messages{}", clickhouse.or_else(kafka).unwrap_or_default()));
        }
    }

    /// The messages that wait, and when they came.
    fn look(&mut self, places: &[Place], metrics: &Metrics) -> Vec<Run> {
        let newest = match Metrics::read(&metrics.newest_ms) {
            0 => None,
            newest => {
                let age = (now() / 1_000_000).saturating_sub_unsigned(newest);
                Instant::now().checked_sub(Duration::from_millis(age.try_into().unwrap_or(0)))
            }
        };
        self.arrivals.retain(|partition, _| places.iter().any(|place| place.partition == *partition));
        let waiting = places.iter().flat_map(|place| {
            let arrivals = self.arrivals.entry(place.partition).or_default();
            arrivals.see(place.stored, place.end, Instant::now(), newest)
        });
        waiting.collect()
    }
}

/// How far each assigned partition is, as far as it is known; and the end of each partition that is read to its end.
fn waiting<S>(client: &Client, config: &ConsumerConfig<S>, shared: &Shared) -> (Vec<Place>, Vec<(i32, i64)>) {
    let read_to = client.position().ok();
    let reach = &client.context().reach;
    let mut read = Vec::new();
    let assignment = shared.lock();
    let in_partition = |(&partition, position): (&i32, &Position)| {
        let known = reach.of(partition);
        let fetched = known_watermarks(client.client().native_client(), &config.topic, partition).map(|(_, high)| high);
        let high = fetched.max(known.ends.map(|(_, high)| high))?;
        let confirmed = position.progress().map(|progress| progress.committed);
        let committed = match position.next() {
            Some(next) => {
                reach.saw(partition, high);
                let at = read_to.as_ref().and_then(|list| list.find_partition(&config.topic, partition));
                let is_read = matches!(at.map(|at| at.offset()), Some(Offset::Offset(offset)) if offset >= high);
                // Behind the last message there may be offsets that hold none: the marker of a transaction.
                if is_read && confirmed == Some(next) {
                    reach.read(partition, high);
                    read.push((partition, high));
                    high
                } else {
                    confirmed.unwrap_or(next)
                }
            }
            None => {
                let takes_long = config.stuck.lasts(At::Lease) > USUALLY_OPENED_IN;
                let low = known.ends.filter(|_| takes_long).map(|(low, _)| low);
                known.start.or(confirmed).or(low)?
            }
        };
        // A batch's latencies are recorded when its commit is confirmed, or late: until then, its messages wait.
        let stored = match position.progress() {
            Some(progress) if config.stuck.lasts(At::Commit) > USUAL_COMMIT => progress.settled.max(committed),
            _ => committed,
        };
        Some(Place { partition, committed, stored, end: high })
    };
    let places = assignment.member.positions().iter().filter_map(in_partition).collect();
    (places, read)
}

/// Which of these offsets, behind which the next record was found, were deleted before they were read.
pub fn deleted(client: &Client, topic: &str, partition: i32, passed: OffsetRange) -> Option<OffsetRange> {
    let (low, _) = known_watermarks(client.client().native_client(), topic, partition)?;
    let read = client.context().reach.of(partition).read;
    let deleted = OffsetRange::new(passed.first.max(read), passed.next.min(low));
    (!deleted.is_empty()).then_some(deleted)
}

/// Starts a thread that asks the brokers from time to time for the first and the end offsets of the assigned
/// partitions. It may wait for a broker that is away, and nothing waits for it. The thread ends when the consumer is
/// dropped.
pub fn keep_asking(client: &Arc<Client>, topic: &str, stuck: &Arc<Stuck>) -> std::io::Result<()> {
    let (client, topic, stuck) = (Arc::downgrade(client), topic.to_owned(), stuck.clone());
    let keep_asking = move || {
        while let Some(client) = client.upgrade() {
            match ask(&client, &topic) {
                Ok(ends) => {
                    stuck.is_over(At::Topic);
                    let mut known = client.context().reach.known();
                    for (partition, ends) in ends {
                        known.entry(partition).or_default().ends = Some(ends);
                    }
                }
                Err(error) => {
                    let reason = client.context().reasons().explain("DESCRIBE", &topic, &error);
                    stuck.is(At::Topic, reason.to_string());
                }
            }
            drop(client);
            let is_stuck = !stuck.lasts(At::Storing).is_zero();
            std::thread::park_timeout(if is_stuck { REFRESH_SOON } else { REFRESH_INTERVAL });
        }
    };
    std::thread::Builder::new().name("lag".into()).spawn(keep_asking).map(drop)
}

/// The ends of the assigned partitions; without any, whether a broker knows the topic at all.
fn ask(client: &Client, topic: &str) -> KafkaResult<BTreeMap<i32, (i64, i64)>> {
    let partitions: Vec<_> = client.context().shared().lock().member.positions().keys().copied().collect();
    if partitions.is_empty() {
        let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        if let Some(code) = metadata.topics().iter().find_map(|topic| topic.error()) {
            return Err(KafkaError::MetadataFetch(code.into()));
        }
    }
    admin::ends(client, topic, &partitions, REQUEST_TIMEOUT)
}
