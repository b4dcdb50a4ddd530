//! The server's side of the sink: stored rows, running inserts, and their outcomes.

use super::clickhouse::HEAL;
use super::ms;
use flows::{Answer, ErrorKind, Failure, Table};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// The outcome of an insert. A row of the product "bad" makes the server refuse every insert that would store it.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Stored, and said so.
    Stored,
    /// Failed before anything was stored, and said so.
    Failed,
    /// Stored, but the answer is lost.
    Unanswered,
    /// Only this many rows are stored, as can happen to an insert into several parts; the answer reports a failure.
    Part(usize),
    /// The answer is lost, and the server continues: the rows are stored this much later, unless the insert is killed.
    Late(Duration),
    /// A failure that will not pass by itself.
    Permanent,
    /// Refused with an unlisted error, as for a single odd row; nothing was stored.
    Unexplained,
    /// The rows are stored, and a view then fails on one of them: the answer says that the insert was refused.
    Complained,
    /// Refused with another one; nothing was stored.
    Flaky,
    /// The client panics.
    Panic,
}

/// The effect of a foreign settings profile on answers that look like success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Only this many rows of each insert are stored. The answer reports success, and names that number.
    Limits(usize),
    /// The answer does not name a number: a proxy has taken it out.
    NamesNone,
    /// Rows are stored, and no question shows them.
    Hides,
    /// An insert of more rows than this is refused as too large.
    Memory(usize),
}

/// The name of an insert: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InsertId(usize);

/// An insert as the sink saw it. Times count from when the clickhouse was opened.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: InsertId,
    pub table: Table,
    pub rows: Vec<(i32, i64)>,
    pub began: Duration,
    /// None when the client did not wait for it.
    pub answered: Option<Duration>,
}

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: InsertId,
    /// The process that sends it.
    pub owner: u64,
    pub carries: Vec<(i32, Uuid)>,
    pub table: Table,
    pub rows: Vec<(i32, i64)>,
    pub refused: Option<ErrorKind>,
}

/// A request that arrives at the server later than it was sent.
#[derive(Clone, Debug)]
pub enum Mail {
    Insert(Request),
    Lease(Row),
}

/// A row of `leases`.
#[derive(Clone, Debug)]
pub struct Row {
    pub partition: i32,
    pub epoch: u64,
    pub token: Uuid,
    pub group: String,
}

/// The outcome of a request on its arrival.
pub enum Begun {
    /// The request has refused itself, or counts as a copy of a running one.
    Refused(Answer),
    /// The insert runs: its number, the time of its answer, and the answer.
    Runs(usize, Instant, Result<Answer, Failure>),
}

pub struct Server {
    pub opened: Instant,
    pub rows: Vec<(Table, i32, i64)>,
    /// The positions in `rows`, and the table of each.
    pub index: BTreeMap<(i32, i64), Table>,
    pub running: Vec<Running>,
    pub sent: Vec<Sent>,
    /// Numbers of inserts that were killed.
    pub killed: HashSet<usize>,
    pub leases: Vec<Row>,
    pub mail: Vec<(Instant, Mail)>,
    pub names: usize,
    /// The fates of the first inserts; then all are stored and take `takes`, unless there is a random_faults.
    pub script: VecDeque<(Fate, Duration)>,
    pub takes: Duration,
    /// How the first questions fail.
    pub baffled: VecDeque<ErrorKind>,
    pub lie: Option<Lie>,
    pub random_faults: Option<StdRng>,
    /// How long, in milliseconds, requests and copies of them may be on their way, in a server with random faults.
    pub late: u64,
    /// A copy of each request arrives after this time.
    pub repeats: Option<Duration>,
}

/// An insert on the server, which continues without its client.
pub struct Running {
    pub nth: usize,
    pub request: Request,
    /// So many of the rows are stored in the end.
    stores: usize,
    pub ends: Instant,
}

impl Server {
    pub fn open() -> Self {
        Self {
            opened: Instant::now(),
            rows: Vec::new(),
            index: BTreeMap::new(),
            running: Vec::new(),
            sent: Vec::new(),
            killed: HashSet::new(),
            leases: Vec::new(),
            mail: Vec::new(),
            names: 0,
            script: VecDeque::new(),
            takes: Duration::ZERO,
            baffled: VecDeque::new(),
            lie: None,
            random_faults: None,
            late: 90_000,
            repeats: None,
        }
    }

    pub fn name(&mut self) -> InsertId {
        self.names += 1;
        InsertId(self.names)
    }

    /// A request of a client comes: at once, or later, where it is not answered; in some cases it comes once more.
    pub fn accept(&mut self, request: &Request) -> Result<Begun, (Instant, Failure)> {
        let now = Instant::now();
        self.catch_up(now);
        assert!(!request.rows.is_empty(), "an insert without rows");
        if let Some(rng) = &mut self.random_faults {
            let (held_back, repeated) = (rng.random_bool(0.03), rng.random_bool(0.05));
            let on_its_way = ms(rng.random_range(0..self.late));
            if held_back || repeated {
                // Rows on which an expression of the table has failed may be stored later.
                let refused = request.refused.filter(|kind| *kind == ErrorKind::Data || rng.random_bool(0.5));
                self.mail.push((now + on_its_way, Mail::Insert(Request { refused, ..request.clone() })));
            }
            if held_back {
                return Err((now + ms(20), unanswered()));
            }
        }
        if let Some(after) = self.repeats {
            // Whatever made the first one fail has passed by then.
            let copy = Request { refused: None, ..request.clone() };
            self.mail.push((now + after, Mail::Insert(copy)));
        }
        Ok(self.begin(request, now))
    }

    /// An insert begins. It runs before it looks at the leases and at its first row: nothing comes in between.
    fn begin(&mut self, request: &Request, now: Instant) -> Begun {
        if self.running.iter().any(|running| running.request.id == request.id) {
            return Begun::Refused(Answer::Running);
        }
        let is_newest =
            |&(partition, token): &(i32, Uuid)| self.newest(partition).map_or(Uuid::nil(), |row| row.token) == token;
        if !request.carries.iter().all(is_newest) {
            return Begun::Refused(Answer::Fenced);
        }
        if self.index.get(&request.rows[0]) == Some(&request.table) {
            return Begun::Refused(Answer::AlreadyStored);
        }
        let (fate, takes) = self.fate(request.rows.len());
        let refused = match self.lie {
            Some(Lie::Memory(most)) if request.rows.len() > most => Some(ErrorKind::TooLarge),
            _ => request.refused,
        };
        let stored = match self.lie {
            Some(Lie::Limits(limit)) => request.rows.len().min(limit),
            _ => request.rows.len(),
        };
        let named = Answer::Written(if self.lie == Some(Lie::NamesNone) { 0 } else { stored as u64 });
        let (stores, late, answer) = match (fate, refused) {
            (Fate::Stored, Some(kind)) => (0, ms(0), Err(answered(kind))),
            (Fate::Stored, None) => (stored, ms(0), Ok(named)),
            (Fate::Failed, _) => (0, ms(0), Err(answered(ErrorKind::Transient))),
            (Fate::Unanswered, _) => (stored, ms(0), Err(unanswered())),
            (Fate::Part(part), _) => (part.min(stored), ms(0), Err(answered(ErrorKind::Transient))),
            (Fate::Late(late), _) => (stored, late, Err(unanswered())),
            (Fate::Permanent, _) => (0, ms(0), Err(answered(ErrorKind::Permanent))),
            (Fate::Complained, _) => (stored, ms(0), Err(answered(ErrorKind::Unexplained))),
            (Fate::Unexplained, _) => (0, ms(0), Err(answered(ErrorKind::Unexplained))),
            (Fate::Flaky, _) => {
                (0, ms(0), Err(Failure { message: "Code: 1001. flaky".into(), ..answered(ErrorKind::Unexplained) }))
            }
            (Fate::Panic, _) => panic!("as scripted"),
        };
        let (answers, stores) = (now + takes, if refused.is_some() { 0 } else { stores });
        let nth = self.sent.len();
        let Request { id, table, rows, .. } = request.clone();
        self.sent.push(Sent { id, table, rows, began: now - self.opened, answered: None });
        self.running.push(Running { nth, request: request.clone(), stores, ends: answers + late });
        Begun::Runs(nth, answers, answer)
    }

    /// The client has waited for the answer; whether the insert was killed meanwhile.
    pub fn answer(&mut self, nth: usize) -> bool {
        self.catch_up(Instant::now());
        self.sent[nth].answered = Some(self.opened.elapsed());
        self.killed.contains(&nth)
    }

    fn fate(&mut self, rows: usize) -> (Fate, Duration) {
        if let Some(next) = self.script.pop_front() {
            return next;
        }
        let Some(rng) = &mut self.random_faults else { return (Fate::Stored, self.takes) };
        let fate = match rng.random_range(0..100) {
            0..12 => Fate::Failed,
            12..24 => Fate::Unanswered,
            // Either the first row is among the stored ones, or no row is stored.
            24..32 => Fate::Part(rng.random_range(0..=rows)),
            32..44 => Fate::Late(ms(rng.random_range(1..4_000))),
            44..46 => Fate::Permanent,
            46..48 => Fate::Flaky,
            48..51 => Fate::Complained,
            _ => Fate::Stored,
        };
        let hangs = rng.random_bool(0.1);
        (fate, ms(rng.random_range(0..if hangs { 5_000 } else { 60 })))
    }

    pub fn newest(&self, partition: i32) -> Option<&Row> {
        self.leases.iter().filter(|row| row.partition == partition).max_by_key(|row| (row.epoch, row.token))
    }

    /// Somebody empties the table of leases.
    pub fn empty_leases(&mut self) {
        self.leases.clear();
        // One that came later would make an old token the newest one: not covered, see docs/guarantees.md.
        self.mail.retain(|(_, mail)| !matches!(mail, Mail::Lease(_)));
    }

    /// A lease is written: whether its writer is told, and whether it comes about at once, late, or not at all.
    pub fn write(&mut self, row: Row) -> Result<(), Failure> {
        let now = Instant::now();
        self.catch_up(now);
        let Some(rng) = &mut self.random_faults else {
            self.leases.push(row);
            return Ok(());
        };
        let (outcome, late) = (rng.random_range(0..100), ms(rng.random_range(0..self.late)));
        match outcome {
            0..3 => self.mail.push((now + late, Mail::Lease(row))),
            3..6 => {}
            6..9 => self.leases.push(row),
            9..14 => {
                self.leases.push(row.clone());
                self.mail.push((now + late, Mail::Lease(row)));
                return Ok(());
            }
            _ => {
                self.leases.push(row);
                return Ok(());
            }
        }
        Err(unanswered())
    }

    /// The inserts under way that touch these partitions. Those of other processes may be killed.
    pub fn running_in(&mut self, partitions: &[i32], me: u64) -> Vec<(usize, Instant)> {
        let now = Instant::now();
        self.catch_up(now);
        let touches =
            |running: &&mut Running| running.request.carries.iter().any(|(at, _)| partitions.contains(&(at % HEAL)));
        let mut found = Vec::new();
        for running in self.running.iter_mut().filter(touches) {
            let is_killed = self.random_faults.as_mut().is_some_and(|rng| rng.random_bool(0.5));
            if is_killed && running.request.owner != me {
                self.killed.insert(running.nth);
                (running.stores, running.ends) = (0, now);
            }
            found.push((running.nth, running.ends));
        }
        found
    }

    /// Lets happen what has happened by `now`, in its order.
    pub fn catch_up(&mut self, now: Instant) {
        loop {
            let ends = self.running.iter().map(|running| running.ends).min();
            let comes = self.mail.iter().map(|(at, _)| *at).min();
            let Some(next) = ends.into_iter().chain(comes).min().filter(|next| *next <= now) else { return };
            for insert in self.running.extract_if(.., |insert| insert.ends == next).collect::<Vec<_>>() {
                for row in insert.request.rows.into_iter().take(insert.stores) {
                    self.store((insert.request.table, row.0, row.1));
                }
            }
            for (_, mail) in self.mail.extract_if(.., |(at, _)| *at == next).collect::<Vec<_>>() {
                match mail {
                    Mail::Insert(request) => drop(self.begin(&request, next)),
                    Mail::Lease(row) => self.leases.push(row),
                }
            }
        }
    }

    /// When all has come and ended that is on its way now.
    pub fn last(&self) -> Option<Instant> {
        let ends = self.running.iter().map(|running| running.ends);
        ends.chain(self.mail.iter().map(|(at, _)| *at)).max()
    }

    pub fn store(&mut self, row: (Table, i32, i64)) {
        self.rows.push(row);
        let before = self.index.insert((row.1, row.2), row.0);
        assert!(before.is_none(), "{row:?} is stored twice: it was in {before:?}");
    }
}

pub fn answered(kind: ErrorKind) -> Failure {
    Failure { kind, ended: true, message: format!("{kind:?}, as scripted") }
}

pub fn unanswered() -> Failure {
    Failure { ended: false, ..answered(ErrorKind::Transient) }
}
