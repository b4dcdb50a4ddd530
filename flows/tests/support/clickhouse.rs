//! A sink that misbehaves on demand.

use super::ms;
use super::records::{BAD, ODD};
use super::server::{Begun, Fate, InsertId, Lie, Mail, Request, Row, Sent, Server, answered};
use flows::{
    Answer, ErrorKind, Failure, LeaseTable, Newest, OffsetRange, OffsetRanges, ReadBack, Record, Sink, Table, Tokens,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

/// A fake ClickHouse that panics if a row is stored twice.
pub struct FakeClickHouse {
    server: Mutex<Server>,
    /// Inserts that a client awaits: now, and at most.
    awaited: AtomicUsize,
    peak: AtomicUsize,
    /// Questions of any kind.
    asked: AtomicUsize,
    /// Attempts of inserts, refused ones too.
    attempts: AtomicUsize,
    processes: AtomicU64,
    read_back: ReadBack,
}

/// The connection of one process to the fake ClickHouse: its inserts carry its tokens.
pub struct FakeSink {
    pub clickhouse: Arc<FakeClickHouse>,
    pub tokens: Tokens,
    group: String,
    process: u64,
    /// Leases for healing have keys of their own: this is added to the partition.
    key: i32,
    /// Leases of others that must not be replaced either.
    besides: Vec<(i32, Uuid)>,
}

/// The key of a partition's lease for healing.
pub const HEAL: i32 = 1_000;

impl FakeClickHouse {
    /// Stores every insert, and takes this time for each.
    pub fn taking(takes: Duration) -> Self {
        Self::over(Server { takes, ..Server::open() })
    }

    /// These fates and durations for the first inserts; stores all later ones at once.
    pub fn scripted(script: impl IntoIterator<Item = (Fate, Duration)>) -> Self {
        Self::over(Server { script: script.into_iter().collect(), ..Server::open() })
    }

    /// Anything can happen to an insert and to a question.
    pub fn with_random_faults(seed: u64) -> Self {
        Self::over(Server { random_faults: Some(StdRng::seed_from_u64(seed)), ..Server::open() })
    }

    fn over(server: Server) -> Self {
        Self {
            server: Mutex::new(server),
            awaited: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            processes: AtomicU64::new(0),
            read_back: ReadBack::default(),
        }
        .trusted()
    }

    /// A process of a group that writes there, without a lease.
    pub fn sink(self: &Arc<Self>, group: &str) -> FakeSink {
        let process = self.processes.fetch_add(1, SeqCst);
        FakeSink {
            clickhouse: self.clone(),
            tokens: Tokens::default(),
            group: group.into(),
            process,
            key: 0,
            besides: Vec::new(),
        }
    }

    /// A healer, which stops where one of these leases is replaced.
    pub fn healer(self: &Arc<Self>, besides: Vec<(i32, Uuid)>) -> FakeSink {
        FakeSink { key: HEAL, besides, ..self.sink("group") }
    }

    /// Rows that ClickHouse loses, as after a restored backup. Copies of the inserts that stored them are not on their way any more.
    pub fn lose(&self, is_lost: impl Fn(i32, i64) -> bool) {
        let mut server = self.lock();
        server.catch_up(Instant::now());
        server.rows.retain(|&(_, partition, offset)| !is_lost(partition, offset));
        server.index.retain(|&(partition, offset), _| !is_lost(partition, offset));
        let holds = |request: &Request| request.rows.iter().any(|&(partition, offset)| is_lost(partition, offset));
        server.mail.retain(|(_, mail)| !matches!(mail, Mail::Insert(request) if holds(request)));
    }

    /// One that has a lease of these partitions, however it came by it.
    pub fn sink_with_lease(self: &Arc<Self>, partitions: impl IntoIterator<Item = i32>) -> FakeSink {
        let sink = self.sink("group");
        partitions.into_iter().for_each(|partition| sink.takes_over(partition));
        sink
    }

    /// As if its lease had stored something before: the first inserts of a test need no question.
    fn trusted(self) -> Self {
        [Table::Events, Table::Rejected].into_iter().for_each(|table| self.read_back.succeeded(table));
        self
    }

    /// As it is when a lease begins: the first answers are compared with what can be read.
    pub fn fresh(self) -> Self {
        Self { read_back: ReadBack::default(), ..self }
    }

    /// From now on a foreign settings profile has this effect.
    pub fn lie(&self, lie: Lie) {
        self.lock().lie = Some(lie);
    }

    pub fn lying(self, lie: Lie) -> Self {
        self.lie(lie);
        self
    }

    /// A proxy repeats each request after this time.
    pub fn repeating(self, after: Duration) -> Self {
        self.lock().repeats = Some(after);
        self
    }

    /// Whose answers to the first questions are these failures.
    pub fn baffled(self, failures: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.lock().baffled.extend(failures);
        self
    }

    /// With rows of an earlier owner.
    pub fn holding(self, rows: impl IntoIterator<Item = (Table, i32, i64)>) -> Self {
        for row in rows {
            self.lock().store(row);
        }
        self
    }

    /// All rows, sorted, once no insert runs and none is on its way: so rows of dropped inserts are seen, too.
    pub fn rows(&self) -> Vec<(i32, i64, Table)> {
        let mut server = self.lock();
        while let Some(last) = server.last() {
            server.catch_up(last);
        }
        let mut rows: Vec<_> =
            server.rows.iter().map(|&(table, partition, offset)| (partition, offset, table)).collect();
        rows.sort_by_key(|&(partition, offset, table)| (partition, offset, table == Table::Rejected));
        rows
    }

    /// The offsets in `table`, sorted.
    pub fn offsets(&self, table: Table) -> Vec<(i32, i64)> {
        self.rows().into_iter().filter(|row| row.2 == table).map(|(partition, offset, _)| (partition, offset)).collect()
    }

    /// Whether a row is stored by now.
    pub fn holds(&self, partition: i32, offset: i64) -> bool {
        let mut server = self.lock();
        server.catch_up(Instant::now());
        server.index.contains_key(&(partition, offset))
    }

    /// The inserts, in the order of their beginning.
    pub fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    pub fn sent_to(&self, table: Table) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| sent.table == table).collect()
    }

    /// How many inserts a client awaits, and how many it awaited at most at the same time.
    pub fn awaited(&self) -> (usize, usize) {
        (self.awaited.load(SeqCst), self.peak.load(SeqCst))
    }

    /// How many attempts of inserts came, those that were refused too.
    pub fn attempts(&self) -> usize {
        self.attempts.load(SeqCst)
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// Somebody writes a lease by hand.
    pub fn forge(&self, partition: i32, epoch: u64) {
        let row = Row { partition, epoch, token: Uuid::max(), group: "group".into() };
        self.lock().write(row).unwrap_or_default();
    }

    /// Somebody empties the table of leases.
    pub fn empty_leases(&self) {
        self.lock().empty_leases();
    }

    /// So long, at most, requests are on their way.
    pub fn late(&self, late: Duration) {
        self.lock().late = late.as_millis() as u64;
    }

    /// The group of a partition's newest lease.
    pub fn owner(&self, partition: i32) -> Option<String> {
        self.lock().newest(partition).map(|row| row.group.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        // Tests that fail on purpose look at it afterwards.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question that takes a moment, or fails.
    async fn ask(&self) -> Result<(), Failure> {
        self.asked.fetch_add(1, SeqCst);
        if let Some(kind) = self.lock().baffled.pop_front() {
            return Err(answered(kind));
        }
        let random_faults =
            self.lock().random_faults.as_mut().map(|rng| (rng.random_bool(0.1), rng.random_range(0..20)));
        let Some((fails, millis)) = random_faults else { return Ok(()) };
        sleep(ms(millis)).await;
        if fails { Err(answered(ErrorKind::Transient)) } else { Ok(()) }
    }
}

impl FakeSink {
    fn is_superseded(&self, carried: &[(i32, Uuid)]) -> bool {
        let own: Vec<_> = carried.iter().filter(|(at, _)| at / HEAL == self.key / HEAL).collect();
        self.tokens.replaced(&own.into_iter().map(|(at, token)| (at - self.key, *token)).collect::<Vec<_>>())
    }

    /// Takes a lease at once, as nothing but a test can.
    pub fn takes_over(&self, partition: i32) {
        let mut server = self.clickhouse.lock();
        let epoch = server.newest(partition).map_or(1, |row| row.epoch + 1);
        let token = self.tokens.new_token();
        server.write(Row { partition, epoch, token, group: self.group.clone() }).unwrap_or_default();
        self.tokens.hold([partition], token);
    }
}

impl Sink for FakeSink {
    type InsertId = (InsertId, Vec<i32>);

    fn read_back(&self) -> &ReadBack {
        &self.clickhouse.read_back
    }

    fn name(&self, ranges: &[(i32, OffsetRange)]) -> Self::InsertId {
        (self.clickhouse.lock().name(), ranges.iter().map(|(partition, _)| *partition).collect())
    }

    async fn insert(&self, id: &Self::InsertId, table: Table, rows: &[&Record]) -> Result<Answer, Failure> {
        let holds = |product| {
            table == Table::Events && rows.iter().any(|row| row.event().is_none_or(|it| it.product == product))
        };
        let refused = if holds(BAD) {
            Some(ErrorKind::Data)
        } else if holds(ODD) {
            Some(ErrorKind::Unexplained)
        } else {
            None
        };
        let rows: Vec<_> = rows.iter().map(|row| (row.partition, row.offset())).collect();
        let own = self.tokens.of(&id.1);
        if own.iter().any(|(_, token)| token.is_nil()) {
            return Ok(Answer::Fenced);
        }
        let own = own.into_iter().map(|(at, token)| (at + self.key, token));
        let carries: Vec<_> = own.chain(self.besides.iter().filter(|(at, _)| id.1.contains(at)).copied()).collect();
        let request = Request { id: id.0, owner: self.process, carries, table, rows, refused };
        self.clickhouse.attempts.fetch_add(1, SeqCst);
        let accepted = self.clickhouse.lock().accept(&request);
        match accepted {
            Err((at, unanswered)) => {
                sleep_until(at).await;
                Err(unanswered)
            }
            Ok(Begun::Refused(Answer::Fenced)) if self.is_superseded(&request.carries) => Ok(Answer::Superseded),
            Ok(Begun::Refused(answer)) => Ok(answer),
            Ok(Begun::Runs(nth, answers, answer)) => {
                let _awaited = Awaited::new(&self.clickhouse);
                sleep_until(answers).await;
                if self.clickhouse.lock().answer(nth) { Err(answered(ErrorKind::Transient)) } else { answer }
            }
        }
    }

    async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        self.clickhouse.stored(ranges).await
    }
}

impl LeaseTable for FakeSink {
    async fn newest(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Newest>, Failure> {
        self.clickhouse.ask().await?;
        let mut server = self.clickhouse.lock();
        server.catch_up(Instant::now());
        let newest = |partition: &i32| {
            let Row { epoch, token, group, .. } = server.newest(*partition + self.key)?.clone();
            Some((*partition, Newest { epoch, token, group }))
        };
        Ok(partitions.iter().filter_map(newest).collect())
    }

    async fn write(&self, token: Uuid, epochs: &[(i32, u64)]) -> Result<(), Failure> {
        self.clickhouse.ask().await?;
        let mut outcome = Ok(());
        for &(partition, epoch) in epochs {
            outcome = self
                .clickhouse
                .lock()
                .write(Row { partition: partition + self.key, epoch, token, group: self.group.clone() })
                .and(outcome);
        }
        outcome
    }

    async fn quiesce(&self, partitions: &[i32]) -> Result<(), Failure> {
        self.clickhouse.ask().await?;
        let running = self.clickhouse.lock().running_in(partitions, self.process);
        if let Some((_, ends)) = running.into_iter().max_by_key(|(_, ends)| *ends) {
            sleep_until(ends).await;
        }
        self.clickhouse.ask().await
    }
}

impl FakeClickHouse {
    /// Which offsets of these ranges are stored.
    pub async fn stored(&self, ranges: &[(i32, OffsetRange)]) -> Result<BTreeMap<i32, OffsetRanges>, Failure> {
        self.ask().await?;
        let mut server = self.lock();
        server.catch_up(Instant::now());
        if server.lie == Some(Lie::Hides) {
            return Ok(BTreeMap::new());
        }
        let stored_ranges = |&(partition, range): &(i32, OffsetRange)| {
            let offsets = server.index.range((partition, range.first)..(partition, range.next));
            (
                partition,
                OffsetRanges::new(offsets.map(|(&(_, offset), _)| OffsetRange::new(offset, offset + 1)).collect()),
            )
        };
        Ok(ranges.iter().map(stored_ranges).collect())
    }
}

/// Counts a client that waits for its insert, until it has its answer or is dropped.
struct Awaited<'a>(&'a FakeClickHouse);

impl<'a> Awaited<'a> {
    fn new(clickhouse: &'a FakeClickHouse) -> Self {
        let awaited = clickhouse.awaited.fetch_add(1, SeqCst) + 1;
        clickhouse.peak.fetch_max(awaited, SeqCst);
        Self(clickhouse)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, SeqCst);
    }
}
