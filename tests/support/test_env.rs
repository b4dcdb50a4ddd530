//! A test's own world: a topic, a group, a database, and the program with its environment set to them.

use super::clickhouse::ClickHouse;
use super::kafka::Kafka;
use super::manifest::{self, Line};
use super::process::Program;
use super::stack::{self, OwnClickHouse};
use super::{WAIT_TIMEOUT, eventually, is};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// No merge ever: what a merge would hide has to be seen. In the table's settings, where a restart of ClickHouse finds them.
/// And as many parts as it takes, since none of them goes away.
const RAW: &str = "max_bytes_to_merge_at_max_space_in_pool = 1, max_bytes_to_merge_at_min_space_in_pool = 1, \
                   parts_to_delay_insert = 100000, parts_to_throw_insert = 100000";

/// A table of the user's own, in place of the shop's `events`: with types of its own, and more columns.
const OWN_TABLE: &str = "CREATE TABLE db.web (event_id UUID, user_id LowCardinality(Nullable(String)), product_id String, \
    event_type Enum8('page_view' = 1, 'add_to_cart' = 2, 'purchase' = 3), price Decimal(38, 4), timestamp DateTime64(6, 'UTC'), \
    tags Array(String) DEFAULT [toString(event_type), product_id], absent Nullable(Int64), _unknown JSON, _topic LowCardinality(String), \
    _key String, _headers Map(String, String), _raw_message String, \
    _source LowCardinality(String), _partition Int32, _offset Int64, ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')) \
    ENGINE = MergeTree ORDER BY (_source, _partition, _offset)";

/// Laws about time are judged while nothing else runs.
static MACHINE: RwLock<()> = RwLock::new(());

/// A test's part of the machine, for as long as it runs.
pub enum Part {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Whole { _guard: RwLockWriteGuard<'static, ()> },
}

impl Part {
    // A test that failed leaves nothing behind that the next one could mind.
    pub fn shared() -> Self {
        Self::Shared { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) }
    }

    pub fn whole() -> Self {
        Self::Whole { _guard: MACHINE.write().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// Which services a test uses, and how its topic is made.
pub struct Services {
    pub brokers: String,
    pub clickhouse: String,
    pub partitions: i32,
    /// Whether events go into a table of the user's own.
    pub own_table: bool,
}

impl Default for Services {
    /// The services that all tests share, and as many partitions as `setup` makes.
    fn default() -> Self {
        Self { brokers: stack::brokers(), clickhouse: stack::clickhouse_url(), partitions: 3, own_table: false }
    }
}

/// A topic, a group and a database of one test. Dropping it removes all three, and the files of a test that passed.
pub struct TestEnv {
    pub topic: String,
    pub group: String,
    pub database: String,
    pub kafka: Kafka,
    pub clickhouse: ClickHouse,
    pub dir: PathBuf,
    own_table: bool,
    /// The topic that its ingesters read besides.
    other_topic: Option<String>,
    /// The id of its topic, if rows of another one are in the tables.
    source: Option<String>,
    programs: AtomicU32,
    /// None for the second topic of another environment, which has the part, the database and the files.
    part: Option<Part>,
}

impl TestEnv {
    /// On the services that all tests share.
    pub fn open() -> Self {
        Self::open_in(&Services::default())
    }

    /// Opens an environment without any other test beside it: for laws about time.
    pub fn open_alone() -> Self {
        Self::made(&Services::default(), Part::whole())
    }

    /// With a ClickHouse of the test's own.
    pub fn open_on(own: &OwnClickHouse) -> Self {
        Self::open_in(&Services { clickhouse: own.url(), ..Services::default() })
    }

    /// On this services.
    pub fn open_in(services: &Services) -> Self {
        Self::made(services, Part::shared())
    }

    /// Names only; nothing is made yet.
    pub fn bare() -> Self {
        Self::named(&Services::default(), Part::shared())
    }

    fn made(services: &Services, part: Part) -> Self {
        let env = Self::named(services, part);
        if services.own_table {
            env.sql(&format!("CREATE DATABASE {}", env.database));
            env.sql(OWN_TABLE);
        }
        env.run("setup", &["--partitions", &services.partitions.to_string()]).succeeds();
        for table in ["events", "rejected"] {
            env.sql(&format!("ALTER TABLE db.{table} MODIFY SETTING {RAW}"));
            env.sql(&format!("SYSTEM STOP MERGES db.{table}"));
        }
        env
    }

    fn named(services: &Services, part: Part) -> Self {
        let name = format!("it_{:08x}", rand::random::<u32>());
        let kafka = Kafka::new(&services.brokers, &name, services.partitions);
        let clickhouse = ClickHouse::new(&services.clickhouse);
        if let Err(error) = kafka.answers() {
            panic!("no answer from Kafka at {}: run ./ci/test ({error})", kafka.brokers);
        }
        if let Err(error) = clickhouse.ask("SELECT 1") {
            panic!("no answer from ClickHouse at {}: run ./ci/test ({error})", clickhouse.url);
        }
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::create_dir_all(&dir).expect("the target directory can be written");
        Self {
            topic: name.clone(),
            group: name.clone(),
            database: name,
            kafka,
            clickhouse,
            dir,
            own_table: services.own_table,
            other_topic: None,
            source: None,
            programs: AtomicU32::new(0),
            part: Some(part),
        }
    }

    /// A second topic for the same group and tables, which ingesters of this environment read from now on, too. Each of the two
    /// environments sees the rows of its own topic only.
    pub fn with_second_topic(mut self) -> (Self, Self) {
        let topic = format!("{}.second", self.topic);
        self.run("setup", &["--topic", &topic, "--partitions", &self.kafka.partitions.to_string()]).succeeds();
        let mut second = Self {
            topic: topic.clone(),
            group: self.group.clone(),
            database: self.database.clone(),
            kafka: self.kafka.clone(),
            clickhouse: self.clickhouse.clone(),
            dir: self.dir.join("second"),
            own_table: self.own_table,
            other_topic: None,
            source: None,
            programs: AtomicU32::new(0),
            part: None,
        };
        std::fs::create_dir_all(&second.dir).expect("a directory of ours");
        self.other_topic = Some(topic);
        for env in [&mut self, &mut second] {
            env.source = Some(env.topic_id());
        }
        (self, second)
    }

    /// `_source` of the topic's rows, as the program has it.
    pub fn topic_id(&self) -> String {
        let mut rejects = self.run("rejects", &[]);
        rejects.succeeds();
        let line = rejects.stdout();
        let (_, id) = line.split_once('(').expect("topic NAME (ID): …");
        id.split(')').next().expect("a text has a beginning").to_owned()
    }

    /// Starts `clickstream COMMAND ARGS` here.
    pub fn run(&self, command: &str, args: &[&str]) -> Program {
        self.run_with(command, args, &[])
    }

    /// Starts `clickstream COMMAND ARGS` with further variables.
    pub fn run_with(&self, command: &str, args: &[&str], environment: &[(&str, &str)]) -> Program {
        let mut program = self.command(command, args);
        Program::start(program.envs(environment.iter().copied()), &self.file(command))
    }

    /// The command line that [`run`](Self::run) starts.
    pub fn command(&self, command: &str, args: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_clickstream"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLICKSTREAM_")) {
            program.env_remove(name);
        }
        let also = self.other_topic.as_ref().filter(|_| command == "ingest");
        program
            .arg(command)
            .args(args)
            .env("CLICKSTREAM_BROKERS", &self.kafka.brokers)
            .env("CLICKSTREAM_TOPIC", also.map_or_else(|| self.topic.clone(), |also| format!("{},{also}", self.topic)))
            .env("CLICKSTREAM_GROUP", &self.group)
            .env("CLICKSTREAM_CLICKHOUSE_URL", &self.clickhouse.url)
            .env("CLICKSTREAM_DATABASE", &self.database)
            .env("TMPDIR", &self.dir)
            .envs(self.own_table.then_some(("CLICKSTREAM_TABLE", "web")))
            .current_dir(&self.dir);
        program
    }

    /// Starts an ingester as on another machine: its state is in a directory of this name.
    pub fn ingest_on(&self, machine: &str, args: &[&str]) -> Program {
        let elsewhere = self.dir.join(machine);
        std::fs::create_dir_all(&elsewhere).expect("a directory of ours");
        self.run_with("ingest", args, &[("TMPDIR", elsewhere.to_str().expect("plain names"))])
    }

    /// From now on this is about another group on the same topic and tables. Returns the name of the one before.
    pub fn change_group(&mut self, group: &str) -> String {
        self.kafka = Kafka::new(&self.kafka.brokers, group, self.kafka.partitions);
        std::mem::replace(&mut self.group, group.to_owned())
    }

    /// Loses the rows that match, as a backup that was restored does; both tables, no merge. Returns how many.
    #[track_caller]
    pub fn lose(&self, condition: &str) -> i64 {
        let before = self.stored();
        for table in ["events", "rejected"] {
            let run = |sql: &str| self.clickhouse.run(&self.named_here(sql));
            run(&format!("CREATE TABLE db.kept ENGINE = Memory AS SELECT * FROM db.{table} WHERE NOT ({condition})"));
            run(&format!("TRUNCATE TABLE db.{table}"));
            run(&format!("INSERT INTO db.{table} SELECT * FROM db.kept"));
            run("DROP TABLE db.kept");
        }
        let lost = before - self.stored();
        assert!(lost > 0, "nothing was lost");
        lost
    }

    /// Starts an ingester.
    pub fn ingest(&self, args: &[&str]) -> Program {
        self.run("ingest", args)
    }

    /// Starts an ingester, and waits until it has partitions.
    pub fn ingester_at_work(&self, args: &[&str]) -> Program {
        let mut ingester = self.ingest(args);
        ingester.says("lease opened", 1);
        ingester
    }

    /// Starts a producer that writes a manifest.
    pub fn produce(&self, args: &[&str]) -> Production {
        let manifest = self.file("manifest").with_extension("jsonl");
        let program = self.run("produce", &[args, &["--manifest", manifest.to_str().expect("plain names")]].concat());
        Production { program, manifest }
    }

    /// Another name for a file of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{:02}-{name}", self.programs.fetch_add(1, Relaxed)))
    }

    /// Runs a statement in which `db.` stands for this test's database, and `db.events` for the table of its events.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.clickhouse.run(&self.here(sql))
    }

    /// The rows of its answer.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.clickhouse.rows(&self.here(sql))
    }

    /// Its answer, one number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        self.clickhouse.number(&self.here(sql))
    }

    pub fn here(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        if let Some(source) = &self.source {
            for table in ["events", "rejected"] {
                let of_topic = format!("FROM (SELECT * FROM db.{table} WHERE _source = '{source}')");
                sql = sql.replace(&format!("FROM db.{table}"), &of_topic);
            }
        }
        self.named_here(&sql)
    }

    fn named_here(&self, sql: &str) -> String {
        let sql = if self.own_table { &sql.replace("db.events", "db.web") } else { sql };
        sql.replace("db.", &format!("{}.", self.database))
    }

    /// Rows of both tables.
    #[track_caller]
    pub fn stored(&self) -> i64 {
        self.number("SELECT (SELECT count() FROM db.events) + (SELECT count() FROM db.rejected)")
    }

    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.kafka.ends(&self.topic)
    }

    pub fn committed(&self) -> BTreeMap<i32, i64> {
        self.kafka.committed(&self.topic).expect("the group's coordinator answers")
    }

    /// Waits until the group has committed everything that the topic holds now.
    #[track_caller]
    pub fn drained(&self) {
        self.drained_to(&self.ends(), WAIT_TIMEOUT);
    }

    /// Waits until the group has committed so far in each partition.
    #[track_caller]
    pub fn drained_to(&self, ends: &BTreeMap<i32, i64>, within: Duration) {
        eventually(within, &format!("the group has committed up to {ends:?}"), || {
            let marks = self.kafka.committed(&self.topic).unwrap_or_default();
            is(ends.iter().all(|(at, end)| marks.get(at).unwrap_or(&0) >= end), marks)
        });
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        self.kafka.delete(&self.topic);
        if self.part.is_none() {
            return;
        }
        // A ClickHouse of the test's own may be gone by now, and its data with it.
        let _ = self.clickhouse.ask(&format!("DROP DATABASE IF EXISTS {} SYNC", self.database));
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A producer at work.
pub struct Production {
    pub program: Program,
    manifest: PathBuf,
}

impl Production {
    /// Waits until the producer has finished; returns the acknowledged messages.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Line> {
        self.program.succeeds();
        manifest::read(&self.manifest)
    }

    /// Stops a producer that would never end; returns the acknowledged messages.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Line> {
        self.program.drains();
        manifest::read(&self.manifest)
    }
}
