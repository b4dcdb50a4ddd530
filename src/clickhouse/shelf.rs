//! The warehouse of one lease: ClickHouse, and where the rows come from.

use super::insert_id::{InsertId, Scope};
use super::questions::quoted;
use super::{ClickHouse, failure, rows};
use crate::seat::Seat;
use crate::seldom::Seldom;
use bytes::Bytes;
use flows::{Class, Delivery, Failure, Islands, ReadBack, Span, Table, Warehouse};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An insert may begin this long after it was named, by the server's clock; then ClickHouse refuses it. Well below any
/// session timeout (6 s at least): what a member has named while it was proved to be one (`kafka::Proof`) can no longer begin when
/// its partitions come to another.
pub const LIFETIME: Duration = Duration::from_secs(4);
const LIFETIME_MS: i64 = LIFETIME.as_millis() as i64;

/// What ClickHouse says to an insert that begins too late.
const TOO_LATE: &str = "this insert begins too late";
/// The code with which `throwIf` says it: FUNCTION_THROW_IF_VALUE_IS_NON_ZERO. A message without it may repeat a value of a row.
const THROWN: i32 = 395;

/// Rows of one topic, written on behalf of one consumer group.
pub struct Shelf {
    clickhouse: Arc<ClickHouse>,
    /// The topic's id, or its name where the broker has none: `_source` of every row.
    source: String,
    scope: Scope,
    seat: Arc<Seat>,
    closed: CancellationToken,
    complaints: Seldom,
    read_back: ReadBack,
}

impl Shelf {
    /// The shelf for rows of the topic with the id `source`.
    pub fn new(clickhouse: Arc<ClickHouse>, source: &str, group: &str, seat: Arc<Seat>) -> Self {
        Self {
            scope: Scope::new(&clickhouse.database, source, group),
            clickhouse,
            source: source.to_owned(),
            seat,
            closed: CancellationToken::new(),
            complaints: Seldom::default(),
            read_back: ReadBack::default(),
        }
    }

    /// With this, its lease ends: nothing more is sent.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Makes sure that nobody else still writes rows of these partitions.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn evict(&self, partitions: &[i32]) -> Result<(), Failure> {
        // First what this process let go of when its last lease ended.
        tokio::time::sleep(self.clickhouse.outwait(self.seat.may_begin_until())).await;
        self.clickhouse.evict(&self.scope, partitions).await
    }

    /// Sends an insert. Before that it is noted, for whoever has these partitions next and does not wait for a session to end.
    async fn send(&self, id: &InsertId, table: Table, body: Bytes) -> Result<u64, Failure> {
        if let Some(misfit) = &*self.clickhouse.misfit() {
            return Err(misfit.clone());
        }
        let sending = self.seat.sends(id.expires_ms).map_err(|error| Failure {
            class: Class::Transient,
            ended: true,
            message: format!("cannot note an insert in the directory for temporary files: {error}"),
        })?;
        // Noted first, then looked at: who ends the lease ends it first, and then looks at what is noted.
        if self.closed.is_cancelled() {
            sending.ended();
            return Err(Failure { class: Class::Transient, ended: true, message: "the lease has ended".into() });
        }
        let outcome = self.clickhouse.inserter.send(&id.to_string(), &self.statement(table, id.expires_ms), body).await;
        if outcome.as_ref().map_or_else(|failure| failure.ended, |_| true) {
            sending.ended();
        }
        outcome
    }

    /// Questions fail in series while ClickHouse is away: one line now and then says so.
    fn complain<A>(&self, answer: Result<A, Failure>) -> Result<A, Failure> {
        if let Err(failure) = &answer
            && self.complaints.now()
        {
            tracing::warn!("waiting for ClickHouse to say what is stored: {failure}");
        }
        answer
    }

    /// The statement that inserts what [`rows::encode`] encodes, unless it begins too late.
    fn statement(&self, table: Table, expires_ms: i64) -> String {
        let columns = rows::columns(table);
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let structure = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({names}) SELECT {names} FROM input({}) \
             WHERE throwIf(now64(3) > fromUnixTimestamp64Milli({expires_ms}), '{TOO_LATE}') = 0 \
             FORMAT RowBinaryWithNamesAndTypes",
            self.clickhouse.table(table.name()),
            quoted(&structure),
        )
    }
}

impl Warehouse for Shelf {
    type InsertId = InsertId;

    fn name(&self, spans: &[(i32, Span)]) -> InsertId {
        let partitions = spans.iter().map(|&(partition, _)| partition).collect();
        InsertId::new(&self.scope, partitions, self.clickhouse.clock.now_ms() + LIFETIME_MS)
    }

    async fn insert(&self, id: &InsertId, table: Table, deliveries: &[&Delivery]) -> Result<u64, Failure> {
        let body = rows::encode(table, &self.source, deliveries);
        let failure = match self.send(id, table, body).await {
            Ok(written) => return Ok(written),
            Err(failure) => failure,
        };
        let rows = deliveries.len();
        if failure::code_in(&failure.message) == Some(THROWN) && failure.message.contains(TOO_LATE) {
            tracing::info!(
                "{rows} rows for {table} were held up and refused as too late: asking what is stored, and again"
            );
            // Or it is our idea of the server's clock that is wrong. Where it does not answer, the next one is late again.
            let _ = self.clickhouse.greet().await;
            return Err(Failure { class: Class::Transient, ..failure });
        }
        if self.closed.is_cancelled() {
            tracing::debug!("insert into {table} let go of, {rows} rows: {failure}");
        } else {
            tracing::warn!("insert into {table} not confirmed, {rows} rows: {failure}");
        }
        // Rows are to blame only where ClickHouse is well otherwise, and the table is the one of the schema.
        if matches!(failure.class, Class::Data | Class::Unexplained)
            && let Err(why) = self.clickhouse.check_tables().await
        {
            return Err(Failure { class: why.class, ended: failure.ended, message: why.message });
        }
        Err(failure)
    }

    async fn quiesce(&self, id: &InsertId) -> Result<(), Failure> {
        self.complain(self.clickhouse.quiesce(id).await)
    }

    async fn stored(&self, spans: &[(i32, Span)]) -> Result<BTreeMap<i32, Islands>, Failure> {
        self.complain(self.clickhouse.stored(&self.source, spans).await)
    }

    fn read_back(&self) -> &ReadBack {
        &self.read_back
    }
}
