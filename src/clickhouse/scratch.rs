//! The database of a benchmark: rows without a lease, sums over its tables, the server's own counts; and dropping it.

use super::questions::quoted;
use super::{ClickHouse, rows};
use bytes::Bytes;
use flows::{Failure, Table};

/// Counts of a server since its start, of everything that it does. Their names are those of `system.events`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub cpu_us: u64,
    pub received_bytes: u64,
    pub parts: u64,
    pub merges: u64,
}

impl ClickHouse {
    /// Drops the database with all that is in it.
    pub async fn drop_database(&self) -> Result<(), Failure> {
        self.wait_for(self.long(&format!("DROP DATABASE IF EXISTS `{}` SYNC", self.database))).await
    }

    /// Stores encoded events without a lease, and without a look whether they are stored: nobody else may write there.
    pub async fn insert_unguarded(&self, query_id: &str, body: Bytes) -> Result<u64, Failure> {
        let names: Vec<_> = rows::columns(Table::Events).iter().map(|(name, _)| *name).collect();
        let sql = format!("INSERT INTO {} ({}) FORMAT Native", self.table(Table::Events.name()), names.join(", "));
        self.inserter.send(query_id, &sql, body).await
    }

    /// The number of a table's rows, and the sum of the CRC-32 of this text of each.
    pub async fn crc_sum(&self, table: Table, text: &str) -> Result<(u64, u64), Failure> {
        let sql = format!("SELECT count(), sum(CRC32({text})) FROM {}", self.table(table.name()));
        self.wait_for_one(self.long(&sql)).await
    }

    /// The counts of the server so far.
    pub async fn counters(&self) -> Result<Counters, Failure> {
        let sql = "SELECT event, value FROM system.events WHERE event IN \
                   ('OSCPUVirtualTimeMicroseconds', 'NetworkReceiveBytes', 'MergeTreeDataWriterBlocks', 'Merge')";
        let mut counters = Counters::default();
        for (event, value) in self.all::<(String, u64)>(sql).await? {
            match event.as_str() {
                "OSCPUVirtualTimeMicroseconds" => counters.cpu_us = value,
                "NetworkReceiveBytes" => counters.received_bytes = value,
                "MergeTreeDataWriterBlocks" => counters.parts = value,
                _ => counters.merges = value,
            }
        }
        Ok(counters)
    }

    /// How many merges of the database run now.
    pub async fn running_merges(&self) -> Result<u64, Failure> {
        let sql = format!("SELECT count() FROM system.merges WHERE database = {}", quoted(&self.database));
        let (merges,) = self.one(&sql).await?;
        Ok(merges)
    }

    /// The bytes of its rows on the disk.
    pub async fn disk_bytes(&self) -> Result<u64, Failure> {
        let database = quoted(&self.database);
        let sql =
            format!("SELECT toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE database = {database} AND active");
        let (bytes,) = self.one(&sql).await?;
        Ok(bytes)
    }
}
