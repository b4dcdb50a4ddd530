//! The sink of one lease: ClickHouse, where the rows come from, and what their inserts assert.

use super::insert_id::{InsertId, Process, Scope};
use super::leases::{Carried, Leases, Role, another_server};
use super::own_table::{self, OwnTable};
use super::questions::quoted;
use super::{ClickHouse, failure, rows};
use crate::log_throttle::LogThrottle;
use bytes::Bytes;
use flows::{
    Answer, Decode, ErrorKind, Failure, LeaseTable, Newest, OffsetRange, OffsetRanges, ReadBack, Record, Shop, Sink,
    Table, Tokens,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// ClickHouse's codes FUNCTION_THROW_IF_VALUE_IS_NON_ZERO and QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING.
const THROWN: i32 = 395;
const RUNNING: i32 = 216;

/// On whose behalf rows are written.
#[derive(Clone)]
pub struct Writer {
    pub role: Role,
    pub group: String,
    /// Its host and process, for readers of the table of leases.
    pub owner: String,
    pub process: Process,
    /// The tokens of its leases.
    pub tokens: Arc<Tokens>,
    /// Leases of others that must not be replaced either.
    pub besides: Vec<Carried>,
}

impl Writer {
    /// Somebody without a lease.
    pub fn new(role: Role, group: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            role,
            group: group.to_owned(),
            owner: format!("{} {}", host.trim(), std::process::id()),
            process: Process::new(),
            tokens: Arc::default(),
            besides: Vec::new(),
        }
    }
}

/// Rows of one topic, written on behalf of one consumer group.
pub struct ClickHouseSink {
    clickhouse: Arc<ClickHouse>,
    /// The topic's name: `topic` of every reject.
    topic: String,
    /// The topic's id, or its name where the broker has none: `_source` of every row.
    source: String,
    scope: Scope,
    writer: Writer,
    /// The user's own table, as it was when the lease began: its rows are decoded for it.
    own: Option<Arc<OwnTable>>,
    /// The server's own id, when it was last asked about leases.
    server: Mutex<String>,
    closed: CancellationToken,
    complaints: LogThrottle,
    silences: LogThrottle,
    read_back: ReadBack,
}

impl ClickHouseSink {
    /// The sink for rows of the topic with this name and the id `source`. It sends nothing more once `closed` is cancelled.
    pub(crate) fn new(
        clickhouse: Arc<ClickHouse>,
        topic: &str,
        source: &str,
        writer: Writer,
        closed: CancellationToken,
    ) -> Self {
        Self {
            scope: Scope::new(&clickhouse.database, source),
            own: clickhouse.own_table(),
            clickhouse,
            topic: topic.to_owned(),
            source: source.to_owned(),
            writer,
            server: Mutex::default(),
            closed,
            complaints: LogThrottle::default(),
            silences: LogThrottle::default(),
            read_back: ReadBack::default(),
        }
    }

    /// The tokens that its inserts carry.
    pub fn tokens(&self) -> &Tokens {
        &self.writer.tokens
    }

    async fn send(&self, id: &InsertId, sql: &str, body: Bytes) -> Result<u64, Failure> {
        if let Some(misfit) = &*self.clickhouse.misfit() {
            return Err(misfit.clone());
        }
        if self.closed.is_cancelled() {
            return Err(Failure { kind: ErrorKind::Transient, ended: true, message: "the lease has ended".into() });
        }
        self.clickhouse.inserter.send(&id.to_string(), sql, body).await
    }

    /// Questions fail in series while ClickHouse is away: the log has one line from time to time.
    fn complain<A>(&self, answer: Result<A, Failure>) -> Result<A, Failure> {
        if let Err(failure) = &answer
            && self.complaints.now()
        {
            tracing::warn!("waiting for ClickHouse to say what is stored: {failure}");
        }
        answer
    }

    /// The statement that inserts the encoded rows, unless it refuses itself.
    fn statement(&self, table: Table, carried: &[(i32, Uuid)], first: &Record, refusals: &Refusals) -> String {
        let own = self.own_table(table);
        let input = |columns: &[(String, String)]| {
            columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ")
        };
        let unchanged = own.map_or_else(String::new, |own| {
            format!("AND throwIf(NOT {}, '{}') = 0 ", self.clickhouse.is_unchanged(own), refusals.altered)
        });
        let with = own.map_or_else(String::new, |own| own.with());
        let (structure, (names, selected), settings, format) = match own {
            Some(own) => (input(&own.input()), own.selection(), own_table::SETTINGS, rows::FORMAT),
            None => {
                let columns = rows::columns(table);
                let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                let structure = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>();
                (structure.join(", "), (names.clone(), names), "", rows::format(table))
            }
        };
        let own = carried.iter().map(|&(at, token)| (self.writer.role, at, token));
        let besides = self.writer.besides.iter().filter(|(_, at, _)| carried.iter().any(|(own, _)| own == at));
        let carried: Vec<_> = own.chain(besides.copied()).collect();
        let holds = self.clickhouse.holds(&self.source, &carried);
        let is_stored = self.clickhouse.is_stored(table.name(), &self.source, first.partition, first.offset());
        format!(
            "INSERT INTO {} ({names}) {settings}{with}SELECT {selected} FROM input({}) \
             WHERE throwIf(toString(serverUUID()) != {}, '{}') = 0 AND throwIf(NOT ({holds}), '{}') = 0 \
             AND throwIf({is_stored}, '{}') = 0 {unchanged}FORMAT {format}",
            self.clickhouse.table(table.name()),
            quoted(&structure),
            quoted(&self.server()),
            refusals.elsewhere,
            refusals.fenced,
            refusals.stored,
        )
    }

    /// The user's own table, if rows of `table` go there.
    fn own_table(&self, table: Table) -> Option<&Arc<OwnTable>> {
        self.own.as_ref().filter(|_| table == Table::Events)
    }

    /// Whether the columns that rows are encoded for are no longer those of the table, as far as that is known.
    fn is_outdated(&self, own: &Arc<OwnTable>) -> bool {
        self.clickhouse.own_table().is_none_or(|now| !Arc::ptr_eq(&now, own))
    }

    fn server(&self) -> MutexGuard<'_, String> {
        // One value that is replaced in one step.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message of an insert that refuses itself. It holds a random number, so that a value of a row cannot look like
/// it.
struct Refusals {
    fenced: String,
    stored: String,
    elsewhere: String,
    altered: String,
}

impl Refusals {
    fn new() -> Self {
        let nonce: u128 = rand::random();
        let says = |what| format!("{what} {nonce:032x}");
        Self { fenced: says("fenced"), stored: says("stored"), elsewhere: says("elsewhere"), altered: says("altered") }
    }
}

impl Sink for ClickHouseSink {
    type InsertId = InsertId;

    fn name(&self, ranges: &[(i32, OffsetRange)]) -> InsertId {
        let partitions = ranges.iter().map(|&(partition, _)| partition).collect();
        InsertId::new(&self.scope, self.writer.process, partitions)
    }

    async fn insert(&self, id: &InsertId, table: Table, records: &[&Record]) -> Result<Answer, Failure> {
        if self.own_table(table).is_some_and(|own| self.is_outdated(own)) {
            return Ok(Answer::Fenced);
        }
        let body = match self.own_table(table) {
            Some(own) => rows::encode_as(&own.input(), table, (&self.topic, &self.source), records),
            None => rows::encode(table, (&self.topic, &self.source), records),
        };
        let (carried, refusals) = (self.writer.tokens.of(id.partitions()), Refusals::new());
        if carried.iter().any(|(_, token)| token.is_nil()) {
            return Ok(Answer::Fenced);
        }
        let sql = self.statement(table, &carried, records[0], &refusals);
        let failure = match self.send(id, &sql, body).await {
            Ok(written) => return Ok(Answer::Written(written)),
            Err(failure) => failure,
        };
        let (rows, shown) = (records.len(), self.clickhouse.name_of(table.name()));
        let code = failure::code_in(&failure.message);
        if code == Some(RUNNING) {
            return Ok(Answer::Running);
        }
        // The text continues with the whole condition, which contains the other messages as well.
        let says = |what: &str| code == Some(THROWN) && failure.message.contains(&format!("DB::Exception: {what}:"));
        if says(&refusals.stored) {
            tracing::info!("{rows} rows for {shown} are stored: an attempt before had no answer");
            return Ok(Answer::AlreadyStored);
        }
        if says(&refusals.fenced) && self.writer.tokens.replaced(&carried) {
            return Ok(Answer::Superseded);
        }
        if says(&refusals.altered) {
            self.clickhouse.check_own_table().await?;
            return Ok(Answer::Fenced);
        }
        if says(&refusals.fenced) || says(&refusals.elsewhere) {
            let why = if says(&refusals.fenced) {
                "another owner has opened a lease, or it is gone from the table".into()
            } else {
                another_server()
            };
            tracing::info!("{rows} rows for {shown} refused: {why}");
            return Ok(Answer::Fenced);
        }
        if self.closed.is_cancelled() {
            tracing::debug!("insert into {shown} dropped, {rows} rows: {failure}");
        } else if code.is_some() || failure.kind != ErrorKind::Transient {
            tracing::warn!("insert into {shown} not confirmed, {rows} rows: {failure}");
        } else if self.silences.now() {
            // Without an answer of ClickHouse, its absence is warned of elsewhere.
            tracing::info!("insert into {shown} not confirmed, {rows} rows, trying again: {failure}");
        }
        // Rows are to blame only where ClickHouse is well otherwise, and the table is the one of the schema. Nor do a server's words
        // about a column that is gone say as much as ours.
        let is_doubted = match failure.kind {
            ErrorKind::Data | ErrorKind::Unexplained => true,
            ErrorKind::Permanent => code.is_some(),
            _ => false,
        };
        if is_doubted && let Err(why) = self.clickhouse.check_tables().await {
            let is_clearer = failure.kind != ErrorKind::Permanent || why.kind == ErrorKind::Permanent;
            return Err(if is_clearer { Failure { ended: failure.ended, ..why } } else { failure });
        }
        Err(failure)
    }

    async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        self.complain(self.clickhouse.stored(&self.source, ranges).await)
    }

    fn decoder(&self) -> Arc<dyn Decode> {
        self.own.as_ref().map_or_else(|| Arc::new(Shop) as Arc<dyn Decode>, |own| own.decoder.clone())
    }

    fn read_back(&self) -> &ReadBack {
        &self.read_back
    }
}

impl LeaseTable for ClickHouseSink {
    async fn newest(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Newest>, Failure> {
        let leases = self.clickhouse.leases(&self.source, self.writer.role, partitions).await;
        let Leases { server, newest } = self.complain(leases)?;
        *self.server() = server;
        Ok(newest)
    }

    async fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> Result<(), Failure> {
        let Writer { role, group, owner, .. } = &self.writer;
        let written = self.clickhouse.write_leases(&self.source, *role, (group, owner), token, epochs).await;
        self.complain(written)
    }

    async fn quiesce(&self, partitions: &[i32]) -> Result<(), Failure> {
        let server = self.server().clone();
        self.complain(self.clickhouse.quiesce(&self.scope, self.writer.process, &server, partitions).await)
    }
}

#[cfg(test)]
mod tests;
