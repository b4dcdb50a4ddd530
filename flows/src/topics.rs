//! The metrics of a process that ingests several topics: the sum of what each of them counts.

use crate::{Metrics, Waiting};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The topics of a process, in the order in which they were added, each with its own metrics.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Vec<(String, Arc<Metrics>)>>);

impl Topics {
    fn all(&self) -> MutexGuard<'_, Vec<(String, Arc<Metrics>)>> {
        // A list that is only added to.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// The metrics of one topic of several. From then on these metrics are the sum over the topics, as of the last
    /// [`refresh`](Self::refresh).
    pub fn of_topic(&self, topic: &str) -> Arc<Self> {
        let mut topics = self.topics.all();
        if let Some((_, metrics)) = topics.iter().find(|(name, _)| name == topic) {
            return metrics.clone();
        }
        let metrics = Arc::new(Self::default());
        topics.push((topic.to_owned(), metrics.clone()));
        metrics
    }

    /// The topics and their metrics; none where these are the metrics of a single one.
    pub fn topics(&self) -> Vec<(String, Arc<Self>)> {
        self.topics.all().clone()
    }

    /// Adds up the metrics of all topics. Latencies are moved here, to be taken once. Without topics, nothing is changed.
    pub fn refresh(&self) {
        // Held until the end: of two that add up at the same time, the earlier one must not have the last word.
        let topics = self.topics.all();
        if topics.is_empty() {
            return;
        }
        let parts = || topics.iter().map(|(_, metrics)| &**metrics);
        let counters = |of: fn(&Self) -> &AtomicU64| parts().map(move |part| Self::read(of(part)));
        for of in Self::SUMS {
            of(self).store(counters(of).sum(), Relaxed);
        }
        self.newest_ms.store(counters(|part| &part.newest_ms).max().unwrap_or(0), Relaxed);
        for (nth, failures) in self.failures.iter().enumerate() {
            failures.store(parts().map(|part| Self::read(&part.failures[nth])).sum(), Relaxed);
            let last = parts().map(|part| Self::read(&part.failed_ms[nth])).max();
            self.failed_ms[nth].store(last.unwrap_or(0), Relaxed);
        }
        self.rejects.sum_up(parts().map(|part| &part.rejects));
        self.room.narrowest(parts().map(|part| &part.room));
        *self.waiting() = Waiting(parts().flat_map(|part| part.waiting().0.clone()).collect());
        for part in parts() {
            let taken = std::mem::take(&mut *part.latencies());
            self.latencies().add(&taken);
        }
    }

    /// All that is added up.
    const SUMS: [fn(&Self) -> &AtomicU64; 21] = [
        |part| &part.events,
        |part| &part.skipped,
        |part| &part.unknown_fields,
        |part| &part.batches,
        |part| &part.inserts,
        |part| &part.accepted,
        |part| &part.went_in,
        |part| &part.retries,
        |part| &part.commits,
        |part| &part.commits_owed,
        |part| &part.bytes,
        |part| &part.in_flight,
        |part| &part.expired,
        |part| &part.reset,
        |part| &part.resets,
        |part| &part.lease_failures,
        |part| &part.lag,
        |part| &part.rebalances,
        |part| &part.partitions,
        |part| &part.unleased,
        |part| &part.queue_bytes,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Failure, Run, Stage};
    use std::time::Instant;

    #[test]
    fn the_metrics_of_several_topics_are_their_sum() {
        let all = Metrics::default();
        all.refresh();
        Metrics::count(&all.events, 1);
        all.refresh();
        assert_eq!(Metrics::read(&all.events), 1, "of a single topic they are its own");
        let [one, two] = ["one", "two"].map(|topic| all.of_topic(topic));
        assert!(Arc::ptr_eq(&one, &all.of_topic("one")));
        for (part, count) in [(&one, 3), (&two, 4)] {
            Metrics::SUMS.iter().for_each(|of| Metrics::count(of(part), count));
            part.newest_ms.store(count, Relaxed);
            part.latencies().record_all(Stage::EndToEnd, 1_000_000, count);
            let now = Instant::now();
            *part.waiting() = Waiting(vec![Run { count, first: now, last: now }]);
            let message = "no answer".to_owned();
            part.note_failure(&Failure { kind: ErrorKind::Transient, ended: true, message });
        }
        one.room.exceeded(100);
        two.room.exceeded(20);
        for _ in 0..2 {
            all.refresh();
            assert!(Metrics::SUMS.iter().all(|of| Metrics::read(of(&all)) == 7));
        }
        assert_eq!((Metrics::read(&all.newest_ms), Metrics::read(&all.queue_bytes)), (4, 7));
        assert_eq!(all.latencies().of(Stage::EndToEnd).len(), 7, "each counts once");
        assert_eq!(all.waiting().0.iter().map(|run| run.count).sum::<u64>(), 7);
        let failed = ErrorKind::Transient as usize;
        assert_eq!(Metrics::read(&all.failures[failed]), 2);
        assert!(Metrics::read(&all.failed_ms[failed]) > 0);
        assert_eq!(all.room.rows(), Some(10), "that of the topic with the largest rows");
    }
}
