//! `check` says of a set-up what `ingest` would make of it, before anything is stored.

use crate::secured;
use crate::support::WAIT_TIMEOUT;
use crate::support::acl::On;
use crate::support::process::Program;
use crate::support::secured::{Secured, as_user, password};
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{eventually, is};
use serde_json::Value;

/// The position columns of a table.
const POSITIONS: &str = "_source LowCardinality(String), _partition Int32, _offset Int64, \
    ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')";

/// Long enough for a service that answers.
const NO_WAIT: [&str; 2] = ["--connect-timeout", "2s"];

/// The findings of a run of `check`.
struct Checked {
    code: Option<i32>,
    findings: Vec<Value>,
    stderr: String,
}

impl Checked {
    fn of(mut program: Program) -> Self {
        let code = program.exit_code(WAIT_TIMEOUT);
        let (stdout, stderr) = (program.stdout(), program.stderr());
        let findings = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
        Self { code, findings, stderr }
    }

    /// The names of the checks that have ended so.
    fn names(&self, status: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|finding| finding["status"] == status);
        found.map(|finding| finding["name"].as_str().expect("a name")).collect()
    }

    #[track_caller]
    fn part(&self, name: &str, part: &str) -> &str {
        let found = self.findings.iter().find(|finding| finding["name"] == name);
        found.and_then(|finding| finding[part].as_str()).unwrap_or_else(|| panic!("{name}: {:#?}", self.findings))
    }

    /// Asserts which checks have failed, and which were skipped for that.
    #[track_caller]
    fn fails(&self, failed: &[&str], skipped: &[&str]) -> &Self {
        assert_eq!(
            (self.names("fail"), self.names("skip")),
            (failed.to_vec(), skipped.to_vec()),
            "{:#?}",
            self.findings
        );
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        for name in failed {
            assert!(!self.part(name, "remedy").is_empty());
            assert!(self.stderr.lines().last().is_some_and(|line| line.contains(name)), "{}", self.stderr);
        }
        self
    }

    #[track_caller]
    fn says(&self, name: &str, words: &[&str]) -> &Self {
        let text = self.part(name, "text");
        assert!(words.iter().all(|word| text.contains(word)), "{name} says {words:?}: {text}");
        self
    }

    /// Asserts that nothing has failed.
    #[track_caller]
    fn is_sound(&self) -> &Self {
        assert_eq!((self.code, self.names("fail")), (Some(0), vec![]), "{:#?}\n{}", self.findings, self.stderr);
        self
    }
}

fn check(env: &TestEnv, args: &[&str]) -> Checked {
    Checked::of(env.run("check", &[args, &["--format", "json"]].concat()))
}

/// Everything that a start of `ingest` could leave behind.
fn traces(env: &TestEnv) -> (i64, i64, usize, usize) {
    let leases = env.number("SELECT count() FROM db.leases");
    (env.stored(), leases, env.committed().len(), env.ends().values().map(|end| *end as usize).sum())
}

#[test]
fn a_sound_set_up_is_all_green_and_left_as_it_is() {
    let env = TestEnv::open();
    let new = check(&env, &[]);
    new.is_sound().says("group", &["it has committed nothing", "no members"]).says("messages", &["is empty"]);
    new.says("leases", &["nobody has stored rows"]);
    assert!(new.findings.iter().all(|finding| finding["status"] == "ok"), "{:#?}", new.findings);
    assert_eq!(traces(&env), (0, 0, 0, 0), "nothing is written");

    env.produce(&["--count", "500", "--rate", "max"]).finish();
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "500ms"]);
    env.drained();
    let before = traces(&env);
    let busy = check(&env, &[]);
    busy.is_sound().says("group", &["lag 0", "partition 2: 0", "1 member: ", "with 3 partitions"]);
    busy.says("leases", &["partitions [0, 1, 2]", &env.group, "since 20"])
        .says("topic", &["3 partitions", "500 offsets"]);
    busy.says("messages", &["newest 500 messages", "each becomes a row"]).says("brokers", &["of Kafka 4."]);
    assert_eq!(traces(&env), before, "nothing is written");
    ingester.drains();
    let mut text = env.run("check", &["--sample", "10"]);
    text.succeeds();
    let lines: Vec<_> = text.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), busy.findings.len(), "a line each: {lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("ok    ")), "{lines:#?}");
    assert!(text.stdout().contains("newest 10 messages"), "{lines:#?}");
}

#[test]
fn a_service_that_is_away_hides_nothing_of_the_other_one() {
    let env = TestEnv::open();
    let kafka = check(&env, &[&["--brokers", "127.0.0.1:1"], &NO_WAIT[..]].concat());
    kafka.fails(&["brokers"], &["topic", "group", "leases", "messages", "timestamps"]);
    kafka.says("brokers", &["nothing listens at 127.0.0.1:1"]).says("topic", &["brokers"]);
    assert_eq!(kafka.part("table leases", "status"), "ok");

    let clickhouse = check(&env, &[&["--clickhouse-url", "http://127.0.0.1:1"], &NO_WAIT[..]].concat());
    let tables = ["table events", "table rejected", "table erased", "table leases"];
    let skipped = [&["profile"], &tables[..], &["rights", "clock", "leases", "messages", "timestamps"]].concat();
    clickhouse.fails(&["server"], &skipped).says("server", &["Connection refused", "messages wait in Kafka"]);
    assert_eq!(clickhouse.part("group", "status"), "ok");

    let file = env.dir.join("password");
    std::fs::write(&file, "wrong-secret").expect("a directory of ours");
    let wrong = check(&env, &["--clickhouse-password-file", file.to_str().expect("plain names")]);
    wrong.fails(&["server"], &skipped).says("server", &["Authentication failed", "--clickhouse-password-file"]);
    assert!(!format!("{:?}{}", wrong.findings, wrong.stderr).contains("wrong-secret"));

    let options = check(&env, &["--kafka", "enable.auto.commit=true", "--clickhouse-password-file", "nowhere"]);
    let skipped = [&["brokers", "topic", "group", "server"], &skipped[..]].concat();
    options.fails(&["kafka options", "clickhouse options"], &skipped);
}

#[test]
fn a_topic_or_tables_that_are_missing_are_named_with_what_makes_them() {
    let mut env = TestEnv::open();
    let missing = check(&env, &["--topic", "nowhere"]);
    missing.fails(&["topic"], &["group", "leases", "messages", "timestamps"]).says("topic", &["nowhere is missing at"]);
    assert!(missing.part("topic", "remedy").contains("clickstream setup"));

    env.sql("DROP TABLE db.erased SYNC");
    check(&env, &[]).fails(&["table erased"], &[]);
    let database = std::mem::replace(&mut env.database, "nowhere".into());
    let none = check(&env, &[]);
    env.database = database;
    let tables = ["table events", "table rejected", "table erased", "table leases"];
    none.fails(&tables, &["leases"]).says("table leases", &["leases is missing at"]);
    assert!(none.part("table events", "remedy").contains("clickstream setup"));
}

#[test]
fn the_statement_that_is_printed_makes_a_table_of_ones_own_do() {
    let env = TestEnv::open();
    env.sql("CREATE TABLE db.web (id UInt8, at DateTime('UTC')) ENGINE = MergeTree ORDER BY id");
    env.kafka.send(&env.topic, &[("key", r#"{"id":1,"at":1705329000}"#)]);
    let lacks = check(&env, &["--table", "web", "--time", "at"]);
    lacks.fails(&["table web"], &[]).says("table web", &["lacks columns", "none may be stored", "power cut"]);
    lacks.says("messages", &["newest 1 messages", "each becomes a row"]);
    let statements = lacks.part("table web", "remedy");
    assert_eq!(statements.lines().count(), 2, "{statements}");
    // In the text, too, each stands alone in its line.
    let mut text = env.run("check", &["--table", "web"]);
    assert_eq!(text.exit_code(WAIT_TIMEOUT), Some(1));
    for statement in statements.lines() {
        assert!(text.stdout().lines().any(|line| line.trim() == statement), "{}", text.stdout());
        env.sql(statement);
    }
    let green = check(&env, &["--table", "web", "--time", "at"]);
    green.is_sound().says("table web", &["2 columns are filled, and at is the event's time"]);
    assert_eq!(green.names("warn"), [""; 0]);
    env.ingest(&["--table", "web", "--until-end"]).succeeds();
}

#[test]
fn all_faults_of_a_table_are_told_at_once() {
    let env = TestEnv::open();
    env.sql("CREATE TABLE db.web (id UInt8, day Date) ENGINE = MergeTree PARTITION BY day ORDER BY id");
    let day = check(&env, &["--table", "web"]);
    day.fails(&["table web"], &[]).says("table web", &["partitioned by day", "stored twice", "lacks columns"]);

    env.sql(&format!(
        "CREATE OR REPLACE TABLE db.web (id UInt8, agg AggregateFunction(uniq, String), {POSITIONS}) ENGINE = MergeTree ORDER BY id"
    ));
    let agg = check(&env, &["--table", "web"]);
    agg.fails(&["table web"], &["messages", "timestamps"])
        .says("table web", &["column agg: "])
        .says("messages", &["table web"]);
}

#[test]
fn another_group_that_holds_the_leases_is_named_with_its_members() {
    let mut env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&[]);
    let first = env.change_group(&format!("{}-second", env.group));
    let second = check(&env, &[]);
    second.fails(&["leases"], &[]).says("leases", &[&format!("those of group {first};"), "--take-over"]);
    second.says("group", &["no members"]);
    ingester.drains();
}

#[test]
fn newest_messages_that_would_be_rejected_are_counted_by_field() {
    let env = TestEnv::open();
    env.sql(&format!(
        "CREATE TABLE db.web (id UInt8, {POSITIONS}) ENGINE = MergeTree ORDER BY (_source, _partition, _offset)"
    ));
    let good = [("key", r#"{"id":1,"campaign":"x"}"#); 6];
    env.kafka.send(&env.topic, &good);
    env.kafka.send(&env.topic, &[("key", r#"{"id":256}"#), ("key", "no json"), ("key", r#"{"id":300}"#)]);
    let few = check(&env, &["--table", "web"]);
    few.is_sound()
        .says("messages", &["3 of them (33 %)", "2 as out_of_range", "id: ", "1 as not_json", "left out: campaign"]);
    assert!(few.names("warn").contains(&"messages"));
    env.kafka.send(&env.topic, &[("key", r#"{"id":256}"#); 3]);
    check(&env, &["--table", "web"]).fails(&["messages"], &[]);
    env.sql("ALTER TABLE db.web MODIFY COLUMN id UInt16, ADD COLUMN _unknown JSON");
    let more = check(&env, &["--table", "web"]);
    more.is_sound().says("messages", &["1 of them", "kept in _unknown: campaign"]);
    assert_eq!(env.stored(), 0, "nothing is stored");
}

#[test]
fn a_right_that_is_missing_is_named_with_its_grant() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let database = &env.database;
    let with = |grants: &[String]| {
        let queries: String = grants.iter().map(|grant| format!("<query>{grant}</query>")).collect();
        own.restart_with_users(&format!(
            "<clickhouse><users><writer><password></password><networks><ip>::/0</ip></networks><profile>default</profile>\
             <grants>{queries}</grants></writer></users></clickhouse>"
        ));
        check(&env, &["--clickhouse-user", "writer"])
    };
    let all = [
        "SELECT, INSERT ON d.events",
        "SELECT, INSERT ON d.rejected",
        "SELECT ON d.erased",
        "SELECT, INSERT ON d.leases",
        "SELECT ON system.processes",
    ];
    let mut grants: Vec<_> = all.map(|grant| format!("GRANT {}", grant.replace("d.", &format!("{database}.")))).into();
    grants[1] = grants[1].replace(", INSERT", "");
    let lacks = with(&grants);
    lacks.fails(&["rights"], &[]).says("rights", &["inserts would be refused"]);
    let grant = format!("GRANT INSERT ON `{database}`.`rejected` TO `writer`");
    assert_eq!(lacks.part("rights", "remedy"), grant);
    grants.push(grant.replace(" TO `writer`", ""));
    with(&grants).is_sound();
}

/// A right to describe a group is not the right to join it and to commit.
#[test]
fn a_right_of_kafka_that_is_missing_is_named_with_its_resource() {
    let kafka = Secured::shared();
    let env = secured::open(&kafka);
    let user = kafka.user();
    let flags = as_user(&kafka.sasl, "PLAIN", &user, &password(&user));
    let args: Vec<_> = flags.iter().map(String::as_str).collect();
    let (topic, group) = (On::Topic(&env.topic), On::Group(&env.group));
    // A granted right takes effect a moment later.
    let fails = |failed: &[&str], name: &str, right: &str| {
        eventually(WAIT_TIMEOUT, right, || {
            let checked = check(&env, &args);
            is(
                checked.names("fail") == failed && checked.part(name, "text").contains(right),
                format!("{:#?}", checked.findings),
            )
        });
    };
    fails(&["topic"], "topic", "DESCRIBE on topic");
    kafka.acls.grant(&user, "DESCRIBE", topic);
    kafka.acls.grant(&user, "DESCRIBE", group);
    fails(&["group", "messages"], "group", "READ on group");
    fails(&["group", "messages"], "messages", "READ on topic");
    kafka.acls.grant(&user, "READ", topic);
    fails(&["group"], "group", "READ on group");
    kafka.acls.grant(&user, "READ", group);
    eventually(WAIT_TIMEOUT, "nothing is missing", || {
        let checked = check(&env, &args);
        is(checked.code == Some(0), format!("{:#?}", checked.findings))
    });
}
