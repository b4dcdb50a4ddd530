//! A warehouse that misbehaves on demand.

use super::{ms, records::BAD};
use flows::{Class, Delivery, Failure, InsertId, Islands, Span, Table, Warehouse};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// What becomes of an insert. A row of the product "bad" turns all that would store it into a refusal.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Stored, and said so.
    Stored,
    /// Failed before anything was stored, and said so.
    Failed,
    /// Stored, but the answer is lost.
    Unanswered,
    /// Only so many of its rows are stored, as can happen to an insert into several parts; the answer says that it failed.
    Part(usize),
    /// The answer is lost, and the server goes on: the rows are stored so much later, unless somebody kills the insert.
    Late(Duration),
    /// A failure that will not pass by itself.
    Permanent,
    /// The client panics.
    Panic,
}

/// What `quiesce` does about an insert that still runs.
#[derive(Clone, Copy, Debug)]
pub enum Doubt {
    Await,
    Kill,
}

/// An insert as the warehouse saw it. Times count from when the depot was opened.
#[derive(Clone, Debug)]
pub struct Sent {
    pub table: Table,
    pub rows: Vec<(i32, i64)>,
    pub began: Duration,
    /// None when the client did not wait for it.
    pub answered: Option<Duration>,
}

/// So long after it was named an insert may begin.
const FRESH: Duration = ms(5_000);

pub struct Depot {
    opened: Instant,
    state: Mutex<State>,
}

struct State {
    rows: Vec<(Table, i32, i64)>,
    index: BTreeSet<(i32, i64)>,
    running: Vec<Running>,
    /// The positions in `running`.
    busy: HashSet<(i32, i64)>,
    sent: Vec<Sent>,
    named: HashMap<InsertId, Instant>,
    /// Inserts that came too long after they were named, and questions whether an insert has ended.
    stale: usize,
    quiesced: usize,
    awaited: usize,
    peak: usize,
    script: VecDeque<(Fate, Duration)>,
    takes: Duration,
    doubt: Doubt,
    mood: Option<StdRng>,
}

/// An insert on the server. It goes on without its client.
struct Running {
    id: InsertId,
    table: Table,
    rows: Vec<(i32, i64)>,
    /// So many of the rows are stored in the end.
    stores: usize,
    ends: Instant,
}

impl Depot {
    /// Stores whatever comes, and takes so long for each insert.
    pub fn taking(takes: Duration) -> Self {
        Self::new(takes, [], None)
    }

    /// These fates and durations for the first inserts; stores all later ones at once.
    pub fn scripted(script: impl IntoIterator<Item = (Fate, Duration)>) -> Self {
        Self::new(Duration::ZERO, script, None)
    }

    /// Anything can happen to an insert and to a question.
    pub fn moody(seed: u64) -> Self {
        Self::new(Duration::ZERO, [], Some(StdRng::seed_from_u64(seed)))
    }

    fn new(takes: Duration, script: impl IntoIterator<Item = (Fate, Duration)>, mood: Option<StdRng>) -> Self {
        let state = State {
            rows: Vec::new(),
            index: BTreeSet::new(),
            running: Vec::new(),
            busy: HashSet::new(),
            sent: Vec::new(),
            named: HashMap::new(),
            stale: 0,
            quiesced: 0,
            awaited: 0,
            peak: 0,
            script: script.into_iter().collect(),
            takes,
            doubt: Doubt::Await,
            mood,
        };
        Self { opened: Instant::now(), state: Mutex::new(state) }
    }

    pub fn doubting(self, doubt: Doubt) -> Self {
        self.lock().doubt = doubt;
        self
    }

    /// With rows of an earlier owner.
    pub fn holding(self, rows: impl IntoIterator<Item = (Table, i32, i64)>) -> Self {
        for row in rows {
            self.lock().store(row);
        }
        self
    }

    /// All rows, sorted, as they are when nothing runs any more: duplicates show, and so do inserts that were let go of.
    pub fn rows(&self) -> Vec<(i32, i64, Table)> {
        let mut state = self.lock();
        let ends = state.running.iter().map(|insert| insert.ends).max();
        state.catch_up(ends.unwrap_or_else(Instant::now));
        let mut rows: Vec<_> =
            state.rows.iter().map(|&(table, partition, offset)| (partition, offset, table)).collect();
        rows.sort_by_key(|&(partition, offset, table)| (partition, offset, table == Table::Rejected));
        rows
    }

    /// The offsets in `table`, sorted.
    pub fn offsets(&self, table: Table) -> Vec<(i32, i64)> {
        self.rows().into_iter().filter(|row| row.2 == table).map(|(partition, offset, _)| (partition, offset)).collect()
    }

    /// Whether a row is there by now.
    pub fn holds(&self, partition: i32, offset: i64) -> bool {
        let mut state = self.lock();
        state.catch_up(Instant::now());
        state.index.contains(&(partition, offset))
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
        let state = self.lock();
        (state.awaited, state.peak)
    }

    /// How often it was asked whether an insert has ended.
    pub fn quiesced(&self) -> usize {
        self.lock().quiesced
    }

    /// How many inserts were refused because they came too long after they were named.
    pub fn stale(&self) -> usize {
        self.lock().stale
    }

    /// Quiesces all that a dead owner left running.
    pub async fn quiesce_all(&self) {
        let left: Vec<_> = self.lock().running.iter().map(|insert| insert.id.clone()).collect();
        for id in left {
            while self.quiesce(&id).await.is_err() {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Tests that fail on purpose look at it afterwards.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question that takes a moment, or fails.
    async fn ask(&self) -> Result<(), Failure> {
        let mood = self.lock().mood.as_mut().map(|rng| (rng.random_bool(0.1), rng.random_range(0..20)));
        let Some((fails, millis)) = mood else { return Ok(()) };
        sleep(ms(millis)).await;
        if fails { Err(answered(Class::Transient)) } else { Ok(()) }
    }
}

impl Warehouse for Depot {
    fn name(&self, _: &[(i32, Span)]) -> InsertId {
        let mut state = self.lock();
        let id = InsertId(state.named.len().to_string());
        state.named.insert(id.clone(), Instant::now());
        id
    }

    async fn insert(&self, id: &InsertId, table: Table, rows: &[&Delivery]) -> Result<(), Failure> {
        let refused = table == Table::Events && rows.iter().any(|row| row.event().is_none_or(|it| it.product == BAD));
        let rows: Vec<_> = rows.iter().map(|row| (row.partition, row.offset())).collect();
        let (nth, answers, answer) = self.lock().accept(id, table, rows, refused, self.opened)?;
        let _awaited = Awaited(self);
        sleep_until(answers).await;
        let mut state = self.lock();
        state.catch_up(Instant::now());
        state.sent[nth].answered = Some(self.opened.elapsed());
        answer
    }

    async fn quiesce(&self, id: &InsertId) -> Result<(), Failure> {
        self.lock().quiesced += 1;
        self.ask().await?;
        let ends = self.lock().end(id);
        if let Some(ends) = ends {
            sleep_until(ends).await;
        }
        Ok(())
    }

    async fn stored(&self, partition: i32, span: Span) -> Result<Islands, Failure> {
        self.ask().await?;
        let mut state = self.lock();
        state.catch_up(Instant::now());
        let offsets = state.index.range((partition, span.first)..(partition, span.next));
        Ok(Islands::new(offsets.map(|&(_, offset)| Span::new(offset, offset + 1)).collect()))
    }
}

impl State {
    /// Begins an insert; returns its number, and when it is answered with what.
    fn accept(
        &mut self,
        id: &InsertId,
        table: Table,
        rows: Vec<(i32, i64)>,
        refused: bool,
        opened: Instant,
    ) -> Result<(usize, Instant, Result<(), Failure>), Failure> {
        let now = Instant::now();
        self.catch_up(now);
        if now - self.named[id] > FRESH {
            self.stale += 1;
            return Err(answered(Class::Transient));
        }
        assert!(!rows.is_empty(), "an insert without rows");
        for row in &rows {
            assert!(!self.index.contains(row), "{row:?} is sent though it is stored");
            assert!(self.busy.insert(*row), "{row:?} is sent while an insert of it may still be running");
        }
        let (fate, takes) = self.fate(rows.len());
        let (stores, late, answer) = match fate {
            Fate::Stored if refused => (0, ms(0), Err(answered(Class::Data))),
            Fate::Stored => (rows.len(), ms(0), Ok(())),
            Fate::Failed => (0, ms(0), Err(answered(Class::Transient))),
            Fate::Unanswered => (rows.len(), ms(0), Err(unanswered())),
            Fate::Part(stored) => (stored.min(rows.len()), ms(0), Err(answered(Class::Transient))),
            Fate::Late(late) => (rows.len(), late, Err(unanswered())),
            Fate::Permanent => (0, ms(0), Err(answered(Class::Permanent))),
            Fate::Panic => panic!("as scripted"),
        };
        let (answers, stores) = (now + takes, if refused { 0 } else { stores });
        self.sent.push(Sent { table, rows: rows.clone(), began: now - opened, answered: None });
        self.running.push(Running { id: id.clone(), table, rows, stores, ends: answers + late });
        self.awaited += 1;
        self.peak = self.peak.max(self.awaited);
        Ok((self.sent.len() - 1, answers, answer))
    }

    fn fate(&mut self, rows: usize) -> (Fate, Duration) {
        if let Some(next) = self.script.pop_front() {
            return next;
        }
        let Some(rng) = &mut self.mood else { return (Fate::Stored, self.takes) };
        let fate = match rng.random_range(0..100) {
            0..12 => Fate::Failed,
            12..24 => Fate::Unanswered,
            24..32 => Fate::Part(rng.random_range(0..=rows)),
            32..44 => Fate::Late(ms(rng.random_range(1..4_000))),
            44..46 => Fate::Permanent,
            _ => Fate::Stored,
        };
        let hangs = rng.random_bool(0.1);
        (fate, ms(rng.random_range(0..if hangs { 5_000 } else { 60 })))
    }

    /// When the insert `id` ends, if it is not over by now.
    fn end(&mut self, id: &InsertId) -> Option<Instant> {
        self.catch_up(Instant::now());
        let nth = self.running.iter().position(|insert| insert.id == *id)?;
        let kill = match &mut self.mood {
            Some(rng) => rng.random_bool(0.5),
            None => matches!(self.doubt, Doubt::Kill),
        };
        if kill {
            self.running[nth].stores = 0;
            self.running[nth].ends = Instant::now();
        }
        Some(self.running[nth].ends)
    }

    /// Lets happen what has happened by `now`.
    fn catch_up(&mut self, now: Instant) {
        for insert in self.running.extract_if(.., |insert| insert.ends <= now).collect::<Vec<_>>() {
            for (nth, row) in insert.rows.into_iter().enumerate() {
                self.busy.remove(&row);
                if nth < insert.stores {
                    self.store((insert.table, row.0, row.1));
                }
            }
        }
    }

    fn store(&mut self, row: (Table, i32, i64)) {
        self.rows.push(row);
        self.index.insert((row.1, row.2));
    }
}

/// Counts a client that waits for its insert, until it has its answer or is dropped.
struct Awaited<'a>(&'a Depot);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.lock().awaited -= 1;
    }
}

fn answered(class: Class) -> Failure {
    Failure { class, ended: true, message: format!("{class:?}, as scripted") }
}

fn unanswered() -> Failure {
    Failure { ended: false, ..answered(Class::Transient) }
}
