//! One run of a scenario: the settings drawn from its seed, its duration, and its measurements.

use crate::support::manifest::Line;
use crate::support::oracle::{self, Count};
use crate::support::process::Program;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// The scenario's name, which begins with the fault's number, and its action.
pub type Scenario = (&'static str, fn(&mut ScenarioRun));

/// The most memory that `ingest` may have, in MB.
const MEMORY_MB: u64 = 256;
/// The longest time until all messages are stored and committed, after a fault has ended. Long runs, which have the machine to
/// themselves, judge it. Short runs, many side by side, only show it.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// A dynamic member returns under another member id. So its group waits for the session of the previous one, 6 s, and for a second
/// one if the member is killed meanwhile.
const DYNAMIC_RECOVERY: Duration = Duration::from_secs(12);

/// One run of a scenario.
pub struct ScenarioRun {
    name: &'static str,
    pub rng: StdRng,
    /// The duration; none in the short version, which has a number of rounds.
    time: Option<Duration>,
    began: Instant,
    /// The drawn settings, for the line at the end.
    drawn: String,
    faults: u32,
    count: Count,
    recovery: Option<Duration>,
    /// How long it may be.
    recovery_limit: Duration,
    memory_mb: u64,
}

impl ScenarioRun {
    /// Runs a scenario and prints one line about it, whatever comes of it.
    pub fn run(name: &'static str, scenario: fn(&mut Self)) {
        let seed = variable("CLICKSTREAM_FAULTS_SEED").map_or_else(rand::random::<u32>, |seed| seed as u32);
        let mut run = Self {
            name,
            rng: StdRng::seed_from_u64(seed.into()),
            time: variable("CLICKSTREAM_FAULTS_MINUTES").map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
            began: Instant::now(),
            drawn: String::new(),
            faults: 0,
            count: Count::default(),
            recovery: None,
            recovery_limit: RECOVERY_TIMEOUT,
            memory_mb: 0,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&mut run)));
        let verdict = if outcome.is_ok() { "ok    " } else { "FAILED" };
        println!("{verdict} {name} {}; ci/faults --seed {seed} {name}", run.figures());
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    fn figures(&self) -> String {
        let Count { messages, lost, doubled } = self.count;
        let back = self.recovery.map_or_else(String::new, |time| format!(", back within {:.1} s", time.as_secs_f64()));
        let memory = if self.memory_mb > 0 { format!(", {} MB at most", self.memory_mb) } else { String::new() };
        format!(
            "[{}] {:.0} s, {messages} messages, {} faults, {lost} lost, {doubled} doubled{back}{memory}",
            self.drawn,
            self.began.elapsed().as_secs_f64(),
            self.faults,
        )
    }

    /// Continues for the given time, or for this many rounds in the short version.
    pub fn rounds(&self, short: u32) -> impl Iterator<Item = u32> + use<> {
        let end = self.time.map(|time| self.began + time);
        (0..).take_while(move |&round| end.map_or(round < short, |end| Instant::now() < end))
    }

    /// Whether this is a long run.
    pub const fn is_long(&self) -> bool {
        self.time.is_some()
    }

    /// Draws a setting.
    pub fn draw(&mut self) -> Setting {
        let setting = Setting::draw(&mut self.rng);
        self.sets(&setting);
        setting
    }

    /// Notes a setting that the scenario fixes, if it differs from the drawn one.
    pub fn sets(&mut self, setting: &Setting) {
        self.drawn = setting.to_string();
        self.recovery_limit =
            if setting.members == Members::Dynamic { RECOVERY_TIMEOUT + DYNAMIC_RECOVERY } else { RECOVERY_TIMEOUT };
    }

    /// Lets a random time pass, under load: so each fault meets another moment of the work.
    pub fn moment(&mut self, at_most: Duration) {
        std::thread::sleep(at_most.mul_f64(self.rng.random_range(0.0..1.0)));
    }

    /// One more fault happens.
    pub const fn fault(&mut self) {
        self.faults += 1;
    }

    /// A fault lasts: waits until all that stood in the topic now is stored and committed nevertheless.
    #[track_caller]
    pub fn goes_on(&self, env: &TestEnv) {
        let began = Instant::now();
        env.drained();
        eprintln!("{}: fault {}, it went on after {:.1} s", self.name, self.faults, began.elapsed().as_secs_f64());
    }

    /// A fault is over: waits until all that stood in the topic now is stored and committed, and takes the time.
    #[track_caller]
    pub fn recovers(&mut self, env: &TestEnv) {
        let over = Instant::now();
        env.drained();
        let took = over.elapsed();
        self.recovery = self.recovery.max(Some(took));
        eprintln!("{}: fault {}, all was well again after {:.1} s", self.name, self.faults, took.as_secs_f64());
        assert!(!self.is_long() || took < self.recovery_limit, "back only {took:?} after the fault was over");
    }

    /// Takes its weight, while it runs.
    #[track_caller]
    pub fn weigh(&mut self, program: &Program) {
        self.memory_mb = self.memory_mb.max(program.peak_memory_mb());
        assert!(self.memory_mb < MEMORY_MB, "{} MB", self.memory_mb);
    }

    /// Asserts that every message is stored once, as it was produced.
    #[track_caller]
    pub fn judge(&mut self, env: &TestEnv, manifest: &[Line]) {
        self.judge_but(env, manifest, 0);
        env.run("audit", &[]).succeeds();
    }

    /// Judges a run in which this many rows may be stored twice.
    #[track_caller]
    pub fn judge_but(&mut self, env: &TestEnv, manifest: &[Line], doubled: usize) {
        let topic = env.kafka.read(&env.topic);
        self.count = oracle::count(env, &topic);
        assert_eq!(self.count.lost, 0, "LOST");
        assert!(self.count.doubled <= doubled, "DOUBLED: {}", self.count.doubled);
        oracle::stored_as_produced(env, manifest, &topic);
    }
}

fn variable(name: &str) -> Option<f64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// How a member is known to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// By the name that it keeps, as by default: one that is started after a crash takes over at once.
    Static,
    /// By the name that it is given.
    Named,
    /// Not at all: the dead one's session has to end first.
    Dynamic,
}

/// The drawn settings of a scenario: those of the ingester, and the load.
#[derive(Clone, Debug)]
pub struct Setting {
    pub partitions: i32,
    pub rows: u32,
    pub in_flight: u32,
    pub strategy: &'static str,
    pub members: Members,
    pub rate: u32,
    session_s: u32,
    batch_timeout: &'static str,
    /// Whether events go into a table that is not the shop's.
    own_table: bool,
}

/// The shortest `session.timeout.ms` that brokers allow, and Kafka's default, in seconds.
const SESSIONS_S: [u32; 2] = [6, 45];

impl Setting {
    fn draw(rng: &mut StdRng) -> Self {
        let mut of = |choices: &[u32]| *choices.choose(rng).expect("there are some");
        let (partitions, rows, in_flight) = (of(&[1, 3, 12]), of(&[10, 200, 1_000]), of(&[1, 4, 16]));
        let members = [Members::Static, Members::Named, Members::Dynamic][of(&[0, 1, 2]) as usize];
        Self {
            partitions: partitions as i32,
            rows,
            in_flight,
            strategy: ["range", "cooperative-sticky"][of(&[0, 1]) as usize],
            members,
            // The partitions of a dead dynamic member wait for a whole session, and so would the scenario.
            session_s: if members == Members::Dynamic { SESSIONS_S[0] } else { of(&SESSIONS_S) },
            // As by default, where batches leave by time.
            rate: if (rows, in_flight) == (1_000, 4) { 100 } else { fast(rows) },
            batch_timeout: "5s",
            own_table: variable("CLICKSTREAM_FAULTS_OWN_TABLE").map_or(of(&[0, 0, 1]) == 1, |own| own > 0.0),
        }
    }

    /// For scenarios about inserts on their way: at each moment there is one, and the next one does not wait for it.
    pub const fn keep_inserting(&mut self) {
        (self.batch_timeout, self.rate) = ("1s", fast(self.rows));
    }

    /// For what needs several members: each of them has partitions.
    pub fn share_out(&mut self) {
        self.partitions = self.partitions.max(3);
    }

    /// For what lasts until a session is over: the shortest there is.
    pub const fn end_sessions_soon(&mut self) {
        self.session_s = SESSIONS_S[0];
    }

    /// Members that come and go without a name. Their sessions are short.
    pub const fn have_no_names(&mut self) {
        self.members = Members::Dynamic;
        self.end_sessions_soon();
    }

    pub fn services(&self) -> Services {
        Services { partitions: self.partitions, own_table: self.own_table, ..Services::default() }
    }

    /// The ingester's, for the member of this name.
    pub fn flags(&self, member: &str) -> Vec<&'static str> {
        let mut flags = vec![
            format!("--batch-rows={}", self.rows),
            format!("--batch-timeout={}", self.batch_timeout),
            format!("--in-flight={}", self.in_flight),
            format!("--kafka=partition.assignment.strategy={}", self.strategy),
            format!("--kafka=session.timeout.ms={}000", self.session_s),
        ];
        match self.members {
            Members::Static => {}
            Members::Named => flags.push(format!("--instance-id={member}")),
            Members::Dynamic => flags.push("--instance-id=none".into()),
        }
        flags.into_iter().map(|flag| &*flag.leak()).collect()
    }

    /// The producer's.
    pub fn load(&self) -> Vec<&'static str> {
        // Messages that are bad for the shop may be good for another table.
        let faults =
            if self.own_table { "--faults=dup=0.01,late=0.01" } else { "--faults=bad=0.01,dup=0.01,late=0.01" };
        vec![format!("--rate={}", self.rate).leak(), faults]
    }
}

/// Events a second: ClickHouse on a small machine takes some dozens of inserts.
const fn fast(rows: u32) -> u32 {
    if rows == 10 { 400 } else { 1_000 }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partitions, rows, in_flight, strategy, members, session_s, rate, own_table, .. } = self;
        write!(f, "{partitions} partitions, {rows} rows x {in_flight}, {strategy}, ")?;
        let table = if *own_table { "own table" } else { "events" };
        write!(f, "{members:?}, sessions of {session_s} s, {rate}/s, {table}")
    }
}

/// Waits until rows come in.
#[track_caller]
pub fn is_at_work(env: &TestEnv) {
    let before = env.stored();
    eventually(WAIT_TIMEOUT, "rows come in", || {
        let now = env.stored();
        is(now > before, now)
    });
}

/// Asserts that it kept its partitions from its start until now.
#[track_caller]
pub fn stayed(ingester: &Program) {
    let counts = (ingester.said("partitions assigned"), ingester.said("partitions revoked"));
    assert_eq!(counts, (1, 0), "assignments and revocations");
}
