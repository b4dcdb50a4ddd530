//! A witness: looks again and again, while faults happen, whether something is committed that is not stored.

use super::shop::Shop;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks from its start until it is asked.
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Result<u32, String>>,
}

impl Sampler {
    pub fn start(shop: &Shop) -> Self {
        let (kafka, clickhouse) = (shop.kafka.clone(), shop.clickhouse.clone());
        let (topic, both) = (
            shop.topic.clone(),
            shop.here(
                "(SELECT _partition, _offset FROM db.events UNION ALL SELECT _partition, _offset FROM db.rejected)",
            ),
        );
        let (stop, stopped) = channel();
        // Rows never go away: what was found stored once need not be looked at again.
        let mut known: BTreeMap<i32, i64> = BTreeMap::new();
        let mut look = move || {
            // First what is committed, then what is stored: the other way round proves nothing. Whoever does not answer is
            // just now being killed: then this look tells nothing.
            let Ok(marks) = kafka.committed(&topic) else { return Ok(0) };
            let mut seen = 0;
            for (partition, mark) in marks {
                let from = known.get(&partition).copied().unwrap_or(0);
                let new = format!(
                    "SELECT uniqExact(_offset) FROM {both} WHERE _partition = {partition} AND _offset >= {from} AND _offset < {mark}"
                );
                let Ok(stored) = clickhouse.ask(&new) else { continue };
                if stored.trim() != (mark - from).max(0).to_string() {
                    return Err(format!(
                        "partition {partition}: offsets {from} to {mark} committed, only {} of them stored",
                        stored.trim()
                    ));
                }
                known.insert(partition, mark);
                seen += u32::from(mark > from);
            }
            Ok(seen)
        };
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(PAUSE) {
                seen += look()?;
            }
            Ok(seen)
        });
        Self { stop, thread }
    }

    /// Asserts that at no moment an offset was committed whose row was not stored.
    #[track_caller]
    pub fn saw_only_stored_offsets_committed(self) {
        // A witness who has found something has left already.
        let _ = self.stop.send(());
        match self.thread.join().expect("the sampler does not panic") {
            Ok(seen) => assert!(seen > 0, "the sampler saw no commit at all"),
            Err(found) => panic!("LOST if it dies now: {found}"),
        }
    }
}
