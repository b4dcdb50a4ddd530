//! The server's side of the warehouse: what is stored, what runs, and what becomes of it.

use super::ms;
use flows::{Class, Failure, Table};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

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
    /// Refused with an error that nobody knows, the one of an odd row; nothing was stored.
    Unexplained,
    /// Refused with another one; nothing was stored.
    Flaky,
    /// The client panics.
    Panic,
}

/// What a setting of somebody else's does to answers that look like success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Of each insert only so many rows are stored. The answer is one of success, and names that number.
    Limits(usize),
    /// The answer does not name a number: a proxy has taken it out.
    NamesNone,
    /// Rows are stored, and no question shows them.
    Hides,
    /// An insert of more than so many rows is refused as too large.
    Memory(usize),
}

/// The name of an insert: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InsertId(usize);

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
pub const FRESH: Duration = ms(5_000);

pub struct Server {
    pub opened: Instant,
    pub rows: Vec<(Table, i32, i64)>,
    /// The positions in `rows`.
    pub index: BTreeSet<(i32, i64)>,
    pub running: Vec<Running>,
    /// The positions in `running`.
    pub busy: HashSet<(i32, i64)>,
    pub sent: Vec<Sent>,
    pub named: HashMap<InsertId, Instant>,
    /// Inserts that came too long after they were named.
    pub stale: usize,
    /// The fates of the first inserts; then all are stored and take `takes`, unless there is a mood.
    pub script: VecDeque<(Fate, Duration)>,
    pub takes: Duration,
    /// How the first questions fail.
    pub baffled: VecDeque<Class>,
    pub doubt: Doubt,
    pub lie: Option<Lie>,
    pub mood: Option<StdRng>,
}

/// An insert on the server. It goes on without its client.
pub struct Running {
    pub id: InsertId,
    table: Table,
    rows: Vec<(i32, i64)>,
    /// So many of the rows are stored in the end.
    stores: usize,
    pub ends: Instant,
}

impl Server {
    pub fn open() -> Self {
        Self {
            opened: Instant::now(),
            rows: Vec::new(),
            index: BTreeSet::new(),
            running: Vec::new(),
            busy: HashSet::new(),
            sent: Vec::new(),
            named: HashMap::new(),
            stale: 0,
            script: VecDeque::new(),
            takes: Duration::ZERO,
            baffled: VecDeque::new(),
            doubt: Doubt::Await,
            lie: None,
            mood: None,
        }
    }

    pub fn name(&mut self) -> InsertId {
        let id = InsertId(self.named.len());
        self.named.insert(id, Instant::now());
        id
    }

    /// Begins an insert; returns its number, and when it is answered with what.
    pub fn accept(
        &mut self,
        id: &InsertId,
        table: Table,
        rows: Vec<(i32, i64)>,
        refused: Option<Class>,
    ) -> Result<(usize, Instant, Result<u64, Failure>), Failure> {
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
        let refused = match self.lie {
            Some(Lie::Memory(most)) if rows.len() > most => Some(Class::TooLarge),
            _ => refused,
        };
        let stored = match self.lie {
            Some(Lie::Limits(limit)) => rows.len().min(limit),
            _ => rows.len(),
        };
        let named = if self.lie == Some(Lie::NamesNone) { 0 } else { stored as u64 };
        let (stores, late, answer) = match (fate, refused) {
            (Fate::Stored, Some(class)) => (0, ms(0), Err(answered(class))),
            (Fate::Stored, None) => (stored, ms(0), Ok(named)),
            (Fate::Failed, _) => (0, ms(0), Err(answered(Class::Transient))),
            (Fate::Unanswered, _) => (stored, ms(0), Err(unanswered())),
            (Fate::Part(part), _) => (part.min(stored), ms(0), Err(answered(Class::Transient))),
            (Fate::Late(late), _) => (stored, late, Err(unanswered())),
            (Fate::Permanent, _) => (0, ms(0), Err(answered(Class::Permanent))),
            (Fate::Unexplained, _) => (0, ms(0), Err(answered(Class::Unexplained))),
            (Fate::Flaky, _) => {
                (0, ms(0), Err(Failure { message: "Code: 1001. flaky".into(), ..answered(Class::Unexplained) }))
            }
            (Fate::Panic, _) => panic!("as scripted"),
        };
        let (answers, stores) = (now + takes, if refused.is_some() { 0 } else { stores });
        self.sent.push(Sent { table, rows: rows.clone(), began: now - self.opened, answered: None });
        self.running.push(Running { id: *id, table, rows, stores, ends: answers + late });
        Ok((self.sent.len() - 1, answers, answer))
    }

    /// The client has waited for the answer.
    pub fn answer(&mut self, nth: usize) {
        self.catch_up(Instant::now());
        self.sent[nth].answered = Some(self.opened.elapsed());
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
            46..49 => Fate::Flaky,
            _ => Fate::Stored,
        };
        let hangs = rng.random_bool(0.1);
        (fate, ms(rng.random_range(0..if hangs { 5_000 } else { 60 })))
    }

    /// When the insert `id` ends, if it is not over by now.
    pub fn end(&mut self, id: &InsertId) -> Option<Instant> {
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

    /// The inserts under way that touch these partitions.
    pub fn running_in(&self, partitions: &[i32]) -> Vec<InsertId> {
        let touches = |insert: &&Running| insert.rows.iter().any(|(partition, _)| partitions.contains(partition));
        self.running.iter().filter(touches).map(|insert| insert.id).collect()
    }

    /// Lets happen what has happened by `now`.
    pub fn catch_up(&mut self, now: Instant) {
        for insert in self.running.extract_if(.., |insert| insert.ends <= now).collect::<Vec<_>>() {
            for (nth, row) in insert.rows.into_iter().enumerate() {
                self.busy.remove(&row);
                if nth < insert.stores {
                    self.store((insert.table, row.0, row.1));
                }
            }
        }
    }

    pub fn store(&mut self, row: (Table, i32, i64)) {
        self.rows.push(row);
        self.index.insert((row.1, row.2));
    }
}

pub fn answered(class: Class) -> Failure {
    Failure { class, ended: true, message: format!("{class:?}, as scripted") }
}

fn unanswered() -> Failure {
    Failure { ended: false, ..answered(Class::Transient) }
}
