//! The ingesting pipeline with a sink of one's own: the records of a topic, appended to a file, each exactly once.
//!
//!     cargo run --example embed -- localhost:9092 clicks events.txt
//!
//! The file belongs to this topic and to one process. Each line starts with its position, so the file itself says which offsets
//! are stored, and a start after a crash neither loses nor doubles a line.

use anyhow::{Context, Result};
use clickstream::Shutdown;
use clickstream::kafka::{Consumer, ConsumerConfig, KafkaConfig};
use flows::{Append, BatchConfig, Metrics, Record, SingleWriter, Table};
use futures::TryStreamExt;
use std::io::{Result as Written, Write};
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<()> {
    let [brokers, topic, path] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("BROKERS TOPIC FILE")?;
    let (lines, stored) = Lines::open(&path)?;
    let kafka = KafkaConfig { brokers, topic, ..KafkaConfig::default() };
    let config = ConsumerConfig::new(&kafka, "embed", Arc::new(SingleWriter::new("embed", lines, stored)))?;
    let (metrics, shutdown) = (Arc::new(Metrics::default()), Shutdown::on_signals()?);
    let mut consumer = Consumer::join(&config, &metrics, &shutdown)?;
    consumer
        .leases()
        .try_for_each(async |lease| Ok(lease.ingest(BatchConfig::default(), &metrics).await.map(drop)?))
        .await?;
    consumer.left().await
}

/// A file of lines, `PARTITION OFFSET RECORD`.
struct Lines(std::fs::File);

impl Lines {
    /// The file, and the positions that it holds. A crash may have cut the last line: its record is stored again.
    fn open(path: &str) -> Result<(Self, Vec<(i32, i64)>)> {
        let file = std::fs::File::options().create(true).append(true).open(path)?;
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let position = |line: &str| -> Option<_> {
            let mut words = line.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let stored = text[..whole].lines().map(|line| position(line).with_context(|| format!("no position: {line}")));
        Ok((Self(file), stored.collect::<Result<_>>()?))
    }
}

impl Append for Lines {
    type Error = std::io::Error;

    fn append(&mut self, _: Table, rows: &[&Record]) -> Written<()> {
        let line = |row: &&Record| format!("{} {} {:?}\n", row.partition, row.offset(), row.payload);
        self.0.write_all(rows.iter().map(line).collect::<String>().as_bytes())?;
        self.0.sync_data()
    }
}
