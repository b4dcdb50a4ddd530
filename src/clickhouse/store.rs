//! The store behind the consumer: a sink for each topic, on behalf of one process of one group.

use super::sink::{ClickHouseSink, Writer};
use super::{ClickHouse, ClickHouseConfig, Role};
use anyhow::Result;
use flows::{Failure, OffsetRanges, Store, Tokens};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The tables `events` and `rejected` of one database.
pub struct ClickHouseStore {
    clickhouse: Arc<ClickHouse>,
    writer: Writer,
}

impl ClickHouseStore {
    /// The tables at this address, for members of this consumer group. Nothing is sent yet.
    ///
    /// # Errors
    /// When the file with the password cannot be read.
    pub fn open(config: &ClickHouseConfig, group: &str) -> Result<Self> {
        Ok(Self::new(Arc::new(ClickHouse::new(config)?), Writer::new(Role::Ingest, group)))
    }

    /// Rows are stored on behalf of `writer`.
    pub(crate) fn new(clickhouse: Arc<ClickHouse>, writer: Writer) -> Self {
        Self { clickhouse, writer }
    }
}

impl Store for ClickHouseStore {
    type Sink = ClickHouseSink;

    fn sink(&self, topic: &str, source: &str, closed: CancellationToken) -> ClickHouseSink {
        ClickHouseSink::new(self.clickhouse.clone(), topic, source, self.writer.clone(), closed)
    }

    fn tokens(&self) -> &Arc<Tokens> {
        &self.writer.tokens
    }

    async fn check(&self) -> Result<(), Failure> {
        self.clickhouse.check_to_write().await
    }

    async fn stored_from(
        &self,
        source: &str,
        positions: &[(i32, i64)],
    ) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        self.clickhouse.stored_from(source, positions).await
    }
}
