//! A warehouse that misbehaves on demand.

use super::ms;
use super::records::{BAD, ODD};
use super::server::{Doubt, Fate, InsertId, Lie, Sent, Server, answered};
use flows::{Class, Delivery, Failure, Islands, ReadBack, Span, Table, Warehouse};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// It panics at an insert of a row that is stored, or that an earlier insert may still store.
pub struct Depot {
    server: Mutex<Server>,
    /// Inserts that a client awaits: now, and at most.
    awaited: AtomicUsize,
    peak: AtomicUsize,
    /// Questions whether an insert has ended, and questions of any kind.
    quiesced: AtomicUsize,
    asked: AtomicUsize,
    read_back: ReadBack,
}

impl Depot {
    /// Stores whatever comes, and takes so long for each insert.
    pub fn taking(takes: Duration) -> Self {
        Self::over(Server { takes, ..Server::open() })
    }

    /// These fates and durations for the first inserts; stores all later ones at once.
    pub fn scripted(script: impl IntoIterator<Item = (Fate, Duration)>) -> Self {
        Self::over(Server { script: script.into_iter().collect(), ..Server::open() })
    }

    /// Anything can happen to an insert and to a question.
    pub fn moody(seed: u64) -> Self {
        Self::over(Server { mood: Some(StdRng::seed_from_u64(seed)), ..Server::open() })
    }

    fn over(server: Server) -> Self {
        Self {
            server: Mutex::new(server),
            awaited: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            quiesced: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            read_back: ReadBack::default(),
        }
        .trusted()
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

    /// A setting of somebody else's, from now on.
    pub fn lie(&self, lie: Lie) {
        self.lock().lie = Some(lie);
    }

    pub fn lying(self, lie: Lie) -> Self {
        self.lie(lie);
        self
    }

    pub fn doubting(self, doubt: Doubt) -> Self {
        self.lock().doubt = doubt;
        self
    }

    /// Whose answers to the first questions are these failures.
    pub fn baffled(self, failures: impl IntoIterator<Item = Class>) -> Self {
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

    /// All rows, sorted, as they are when nothing runs any more: duplicates show, and so do inserts that were let go
    /// of.
    pub fn rows(&self) -> Vec<(i32, i64, Table)> {
        let mut server = self.lock();
        let ends = server.running.iter().map(|insert| insert.ends).max();
        server.catch_up(ends.unwrap_or_else(Instant::now));
        let mut rows: Vec<_> =
            server.rows.iter().map(|&(table, partition, offset)| (partition, offset, table)).collect();
        rows.sort_by_key(|&(partition, offset, table)| (partition, offset, table == Table::Rejected));
        rows
    }

    /// The offsets in `table`, sorted.
    pub fn offsets(&self, table: Table) -> Vec<(i32, i64)> {
        self.rows().into_iter().filter(|row| row.2 == table).map(|(partition, offset, _)| (partition, offset)).collect()
    }

    /// Whether a row is there by now.
    pub fn holds(&self, partition: i32, offset: i64) -> bool {
        let mut server = self.lock();
        server.catch_up(Instant::now());
        server.index.contains(&(partition, offset))
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

    /// How often it was asked whether an insert has ended.
    pub fn quiesced(&self) -> usize {
        self.quiesced.load(SeqCst)
    }

    /// How many questions it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// How many inserts were refused because they came too long after they were named.
    pub fn stale(&self) -> usize {
        self.lock().stale
    }

    /// Quiesces all that dead owners of these partitions left running, and nothing of others.
    pub async fn evict(&self, partitions: &[i32]) {
        let left: Vec<_> = self.lock().running_in(partitions);
        for id in left {
            while self.quiesce(&id).await.is_err() {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        // Tests that fail on purpose look at it afterwards.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question that takes a moment, or fails.
    async fn ask(&self) -> Result<(), Failure> {
        self.asked.fetch_add(1, SeqCst);
        if let Some(class) = self.lock().baffled.pop_front() {
            return Err(answered(class));
        }
        let mood = self.lock().mood.as_mut().map(|rng| (rng.random_bool(0.1), rng.random_range(0..20)));
        let Some((fails, millis)) = mood else { return Ok(()) };
        sleep(ms(millis)).await;
        if fails { Err(answered(Class::Transient)) } else { Ok(()) }
    }
}

impl Warehouse for Depot {
    type InsertId = InsertId;

    fn read_back(&self) -> &ReadBack {
        &self.read_back
    }

    fn name(&self, _: &[(i32, Span)]) -> InsertId {
        self.lock().name()
    }

    async fn insert(&self, id: &InsertId, table: Table, rows: &[&Delivery]) -> Result<u64, Failure> {
        let holds = |product| {
            table == Table::Events && rows.iter().any(|row| row.event().is_none_or(|it| it.product == product))
        };
        let refused = if holds(BAD) {
            Some(Class::Data)
        } else if holds(ODD) {
            Some(Class::Unexplained)
        } else {
            None
        };
        let rows: Vec<_> = rows.iter().map(|row| (row.partition, row.offset())).collect();
        let (nth, answers, answer) = self.lock().accept(id, table, rows, refused)?;
        let _awaited = Awaited::new(self);
        sleep_until(answers).await;
        self.lock().answer(nth);
        answer
    }

    async fn quiesce(&self, id: &InsertId) -> Result<(), Failure> {
        self.quiesced.fetch_add(1, SeqCst);
        self.ask().await?;
        let ends = self.lock().end(id);
        if let Some(ends) = ends {
            sleep_until(ends).await;
        }
        Ok(())
    }

    async fn stored(&self, spans: &[(i32, Span)]) -> Result<BTreeMap<i32, Islands>, Failure> {
        self.ask().await?;
        let mut server = self.lock();
        server.catch_up(Instant::now());
        if server.lie == Some(Lie::Hides) {
            return Ok(BTreeMap::new());
        }
        let islands = |&(partition, span): &(i32, Span)| {
            let offsets = server.index.range((partition, span.first)..(partition, span.next));
            (partition, Islands::new(offsets.map(|&(_, offset)| Span::new(offset, offset + 1)).collect()))
        };
        Ok(spans.iter().map(islands).collect())
    }
}

/// Counts a client that waits for its insert, until it has its answer or is dropped.
struct Awaited<'a>(&'a Depot);

impl<'a> Awaited<'a> {
    fn new(depot: &'a Depot) -> Self {
        let awaited = depot.awaited.fetch_add(1, SeqCst) + 1;
        depot.peak.fetch_max(awaited, SeqCst);
        Self(depot)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.awaited.fetch_sub(1, SeqCst);
    }
}
