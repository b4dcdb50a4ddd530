//! A witness: while faults happen, it checks again and again whether an offset is committed whose row is not stored,
//! and whether committed offsets go back.

use super::test_env::TestEnv;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// The time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);

/// `PARTITION<tab>COUNT`
fn pair(line: &str) -> Option<(i32, i64)> {
    let (partition, count) = line.split_once('\t')?;
    Some((partition.parse().ok()?, count.parse().ok()?))
}

/// Checks from its start until it is asked for the result.
pub struct Sampler {
    stop: Sender<()>,
    thread: Option<JoinHandle<Result<u32, String>>>,
}

impl Sampler {
    pub fn start(env: &TestEnv) -> Self {
        let (kafka, clickhouse) = (env.kafka.clone(), env.clickhouse.clone());
        let (topic, both) = (
            env.topic.clone(),
            env.here(
                "(SELECT _partition, _offset FROM db.events UNION ALL SELECT _partition, _offset FROM db.rejected)",
            ),
        );
        let (stop, stopped) = channel();
        // Rows are never deleted, so a row that was found stored once need not be looked up again.
        let mut known: BTreeMap<i32, i64> = BTreeMap::new();
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        let mut look = move || {
            // First the committed offsets, then the stored ones: the other order proves nothing. A service that does
            // not answer is being killed, so this sample says nothing.
            let Ok(marks) = kafka.committed(&topic) else { return Ok(0) };
            for (partition, before) in &last {
                if let Some(mark) = marks.get(partition).filter(|mark| *mark < before) {
                    return Err(format!(
                        "partition {partition}: the committed offset went back from {before} to {mark}"
                    ));
                }
            }
            last.extend(&marks);
            let new: BTreeMap<i32, (i64, i64)> = marks
                .into_iter()
                .map(|(partition, mark)| (partition, (known.get(&partition).copied().unwrap_or(0), mark)))
                .filter(|(_, (from, mark))| mark > from)
                .collect();
            let of = |(partition, (from, mark)): (&i32, &(i64, i64))| {
                format!("(_partition = {partition} AND _offset >= {from} AND _offset < {mark})")
            };
            let Some(wanted) = new.iter().map(of).reduce(|all, one| all + " OR " + &one) else { return Ok(0) };
            let counts =
                format!("SELECT _partition, uniqExact(_offset) FROM {both} WHERE {wanted} GROUP BY _partition");
            let Ok(answer) = clickhouse.ask(&counts) else { return Ok(0) };
            let stored: BTreeMap<i32, i64> = answer.lines().filter_map(pair).collect();
            for (&partition, &(from, mark)) in &new {
                let stored = stored.get(&partition).copied().unwrap_or(0);
                if stored != mark - from {
                    return Err(format!(
                        "partition {partition}: offsets {from} to {mark} committed, only {stored} of them stored: LOST if it dies now"
                    ));
                }
                known.insert(partition, mark);
            }
            Ok(new.len() as u32)
        };
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SAMPLE_INTERVAL) {
                seen += look()?;
            }
            Ok(seen)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Asserts that at no moment an offset was committed whose row was not stored, nor one lower than before.
    #[track_caller]
    pub fn saw_only_stored_offsets_committed(mut self) {
        self.ends();
    }

    /// Asserts the same, and looks no more.
    #[track_caller]
    pub fn ends(&mut self) {
        // A witness that has found a violation has ended already.
        let _ = self.stop.send(());
        match self.thread.take().expect("it ends once").join().expect("the sampler does not panic") {
            Ok(seen) => assert!(seen > 0, "the sampler saw no commit at all"),
            Err(found) => panic!("{found}"),
        }
    }
}
