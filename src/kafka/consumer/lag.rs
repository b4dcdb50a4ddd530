//! The number and the age of messages that are not stored yet: in the assigned partitions, also without an open lease and if nothing
//! is fetched; and in those that this member held last, while it waits for its group.

use super::reach::Reach;
use super::shared::Shared;
use super::{Client, ConsumerConfig};
use crate::kafka::admin;
use crate::kafka::native::known_watermarks;
use crate::numbers::grouped;
use crate::stuck::{At, Stuck};
use flows::{Input, Metrics, OffsetRange, Position, Run, Waiting, now};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tracing::Span;

/// The interval at which brokers are asked for the end offsets. Fetched messages show them too, but only while they are
/// fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// That interval while messages wait and none is stored (the client's queue may be full then), while this member waits for its group,
/// and while brokers have not said where the topic ends: nothing is fetched then.
const REFRESH_SOON: Duration = Duration::from_secs(1);

/// The longest time until a broker answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A lease that takes longer than this to open counts from the topic's beginning, if nothing better is known.
const USUALLY_OPENED_IN: Duration = Duration::from_secs(5);

/// A commit that takes longer is late: its batch counts as stored without it.
const USUAL_COMMIT: Duration = Duration::from_secs(1);

/// Looks at the lag, and at whether it is being worked on.
pub struct Lag {
    /// Inserts that went in, and batches that were settled, also without one.
    stored: (u64, u64),
    /// When either was last another number, or nothing was there to store.
    progressed: Instant,
}

impl Default for Lag {
    fn default() -> Self {
        Self { stored: (0, 0), progressed: Instant::now() }
    }
}

/// How far a partition is.
struct Place {
    partition: i32,
    /// The first offset that is not committed, and the first one that is not stored.
    committed: i64,
    stored: i64,
    /// The first offset behind the last message, and when a broker has said so.
    end: i64,
    seen: Instant,
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
        let waiting = Waiting(look(&places, &config.reach, metrics));
        let oldest = waiting.oldest(Instant::now());
        metrics.lag.store(lag, Relaxed);
        *metrics.waiting() = waiting;
        metrics.partitions.store(held, Relaxed);
        metrics.unleased.store(if has_lease { 0 } else { held }, Relaxed);
        config.stuck.is_late(oldest > config.batch_timeout);
        let stored = (Metrics::read(&metrics.went_in), Metrics::read(&metrics.batches));
        if held == 0 {
            self.progressed = Instant::now();
            config.stuck.forget(At::Lease);
            config.stuck.forget(At::Storing);
            if lag > 0 && !config.stuck.lasts(At::Group).is_zero() {
                config.stuck.is(At::Group, wait_of_the_group(lag, oldest));
            }
        } else if lag == 0 || stored != self.stored {
            (self.stored, self.progressed) = (stored, Instant::now());
            config.stuck.is_over(At::Storing);
        } else if self.progressed.elapsed() > config.batch_timeout {
            let kafka = || client.context().reasons().worst().map(|reason| format!("; Kafka: {reason}"));
            let clickhouse = metrics.failure_since(self.progressed).map(|failure| format!("; {failure}"));
            config.stuck.is(At::Storing, format!("{lag} messages{}", clickhouse.or_else(kafka).unwrap_or_default()));
        }
    }
}

fn wait_of_the_group(lag: u64, oldest: Duration) -> String {
    let (lag, oldest) = (grouped(lag), oldest.as_secs_f64());
    format!("{lag} messages wait in the partitions that it had, the oldest for {oldest:.0} s; a rebalance is under way")
}

/// The messages that wait, and when they came.
fn look(places: &[Place], reach: &Reach, metrics: &Metrics) -> Vec<Run> {
    let newest = match Metrics::read(&metrics.newest_ms) {
        0 => None,
        newest => {
            let age = (now() / 1_000_000).saturating_sub_unsigned(newest);
            Instant::now().checked_sub(Duration::from_millis(age.try_into().unwrap_or(0)))
        }
    };
    let mut arrivals = reach.arrivals();
    arrivals.retain(|partition, _| places.iter().any(|place| place.partition == *partition));
    let waiting = places.iter().flat_map(|place| {
        let arrivals = arrivals.entry(place.partition).or_default();
        arrivals.see(place.stored, place.end, place.seen, newest)
    });
    waiting.collect()
}

/// How far each partition is, as far as it is known; and the end of each partition that is read to its end.
fn waiting<S>(client: &Client, config: &ConsumerConfig<S>, shared: &Shared) -> (Vec<Place>, Vec<(i32, i64)>) {
    let read_to = client.position().ok();
    let reach = &config.reach;
    let mut read = Vec::new();
    // The last answers of a Kafka that is away are as old as its last sign of life.
    let heard = Instant::now().checked_sub(config.stuck.lasts(At::Kafka)).unwrap_or_else(Instant::now);
    let high = |partition| {
        let asked = reach.ends(partition);
        let fetched = known_watermarks(client.client().native_client(), &config.topic, partition);
        let high = fetched.map(|(_, high)| high).max(asked.map(|((_, high), _)| high))?;
        Some((high, asked.map_or(heard, |(_, at)| at.min(heard))))
    };
    let assignment = shared.lock();
    let in_partition = |(&partition, position): (&i32, &Position)| {
        let (high, asked) = high(partition)?;
        let confirmed = position.progress().map(|progress| progress.committed);
        let (committed, seen) = match position.next() {
            Some(next) => {
                reach.saw(partition, high);
                let at = read_to.as_ref().and_then(|list| list.find_partition(&config.topic, partition));
                let is_read = matches!(at.map(|at| at.offset()), Some(Offset::Offset(offset)) if offset >= high);
                // Behind the last message there may be offsets that hold none: the marker of a transaction.
                if is_read && confirmed == Some(next) {
                    reach.read(partition, high);
                    read.push((partition, high));
                    (high, heard)
                } else {
                    (confirmed.unwrap_or(next), heard)
                }
            }
            None => {
                let takes_long = config.stuck.lasts(At::Lease) > USUALLY_OPENED_IN;
                (reach.start(partition, confirmed, takes_long)?, asked)
            }
        };
        // A batch's latencies are recorded when its commit is confirmed, or late: until then, its messages wait.
        let stored = match position.progress() {
            Some(progress) if config.stuck.lasts(At::Commit) > USUAL_COMMIT => progress.settled.max(committed),
            _ => committed,
        };
        if let Some(progress) = position.progress() {
            reach.holds(partition, progress.settled.max(committed));
        }
        Some(Place { partition, committed, stored, end: high, seen })
    };
    let positions = assignment.member.positions();
    let held = positions.iter().filter_map(in_partition).collect::<Vec<_>>();
    let held_before = reach.held_before(positions).into_iter().filter_map(|(partition, offset)| {
        let (end, seen) = high(partition)?;
        Some(Place { partition, committed: offset, stored: offset, end, seen })
    });
    let places = held.into_iter().chain(held_before).collect();
    (places, read)
}

/// Which of these offsets, behind which the next record was found, were deleted before they were read.
pub fn deleted(client: &Client, topic: &str, partition: i32, passed: OffsetRange) -> Option<OffsetRange> {
    let (low, _) = known_watermarks(client.client().native_client(), topic, partition)?;
    let read = client.context().reach.read_up_to(partition);
    let deleted = OffsetRange::new(passed.first.max(read), passed.next.min(low));
    (!deleted.is_empty()).then_some(deleted)
}

/// Starts a thread that asks the brokers from time to time for the first and the end offsets of the partitions. It may wait for a
/// broker that is away, and nothing waits for it. The thread ends when the consumer is dropped.
pub fn keep_asking(client: &Arc<Client>, topic: &str, stuck: &Arc<Stuck>) -> std::io::Result<()> {
    let (client, topic, stuck) = (Arc::downgrade(client), topic.to_owned(), stuck.clone());
    let is_fetched =
        move |stuck: &Stuck| [At::Storing, At::Group, At::Topic].iter().all(|&at| stuck.lasts(at).is_zero());
    let keep_asking = move || {
        while let Some(asking) = client.upgrade() {
            match ask(&asking, &topic) {
                Ok(()) => stuck.is_over(At::Topic),
                Err(error) => {
                    let reason = asking.context().reasons().explain("DESCRIBE", &topic, &error);
                    stuck.is(At::Topic, reason.to_string());
                }
            }
            drop(asking);
            let asked = Instant::now();
            while client.strong_count() > 0 {
                std::thread::park_timeout(REFRESH_SOON);
                if !is_fetched(&stuck) || asked.elapsed() >= REFRESH_INTERVAL {
                    break;
                }
            }
        }
    };
    let span = Span::current();
    std::thread::Builder::new().name("lag".into()).spawn(move || span.in_scope(keep_asking)).map(drop)
}

/// Notes the ends of the partitions, and what the group has committed meanwhile in those that this member held before. Without
/// partitions, only finds out whether a broker knows the topic.
fn ask(client: &Client, topic: &str) -> KafkaResult<()> {
    let reach = &client.context().reach;
    let (held, held_before) = {
        let assignment = client.context().shared().lock();
        let positions = assignment.member.positions();
        (positions.keys().copied().collect::<Vec<_>>(), reach.held_before(positions))
    };
    let held_before: Vec<_> = held_before.into_iter().map(|(partition, _)| partition).collect();
    let partitions = [&held[..], &held_before].concat();
    if partitions.is_empty() {
        let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        if let Some(code) = metadata.topics().iter().find_map(|topic| topic.error()) {
            return Err(KafkaError::MetadataFetch(code.into()));
        }
    }
    let asked = Instant::now();
    reach.end(admin::ends(client, topic, &partitions, REQUEST_TIMEOUT)?, asked);
    if !held_before.is_empty()
        && let Ok(committed) = admin::committed(client, topic, &held_before, REQUEST_TIMEOUT)
    {
        reach.committed(&committed);
    }
    Ok(())
}
