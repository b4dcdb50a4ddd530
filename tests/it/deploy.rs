//! The parts of a deployment: passwords, users with few rights, and health checks.

use crate::support::clickhouse::ClickHouse;
use crate::support::process::Program;
use crate::support::stack::{OwnClickHouse, free_port};
use crate::support::test_env::TestEnv;
use crate::support::{SHORT_SESSION, WAIT_TIMEOUT, eventually, is};
use std::path::{Path, PathBuf};

/// The users of an installation, and a ClickHouse that knows them and has no tables yet.
struct Installation {
    env: TestEnv,
    secrets: PathBuf,
    own: OwnClickHouse,
}

impl Installation {
    fn new() -> Self {
        let own = OwnClickHouse::start();
        let env = TestEnv::open_on(&own);
        let secrets = env.dir.join("secrets");
        env.run("secrets", &[secrets.to_str().unwrap()]).succeeds();
        own.restart_with_users(&read(&secrets.join("clickhouse/users.xml")));
        Self { env, secrets, own }
    }

    /// Starts a command as one of the users.
    fn run_as(&self, user: &str, command: &str, args: &[&str]) -> Program {
        let password = self.password_file(user);
        let as_user = ["--clickhouse-user", user, "--clickhouse-password-file", password.to_str().unwrap()];
        self.env.run(command, &[&["--database", "clickstream"], &as_user[..], args].concat())
    }

    /// Another client than the program's own, as one of the users.
    fn client(&self, user: &str) -> ClickHouse {
        let password = read(&self.password_file(user));
        ClickHouse::new(&format!("{}/?user={user}&password={password}", self.own.client().url))
    }

    fn password_file(&self, user: &str) -> PathBuf {
        self.secrets.join(user).join("password")
    }

    #[track_caller]
    fn refused(&self, user: &str, sql: &str) {
        let said = self.client(user).ask(sql).expect_err("it is refused");
        assert!(said.contains("ACCESS_DENIED") || said.contains("READONLY"), "{user}: {sql}: {said}");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn each_user_can_do_its_work_and_nothing_else() {
    let here = Installation::new();
    let mut too_early = here.run_as("writer", "setup", &[]);
    assert_eq!(too_early.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(too_early.stderr().contains("ACCESS_DENIED"), "{}", too_early.stderr());
    assert!(too_early.stderr().contains("clickstream setup"), "it says what to do: {}", too_early.stderr());
    for (user, tables) in [("owner", "created"), ("owner", "there"), ("writer", "there")] {
        let mut setup = here.run_as(user, "setup", &[]);
        setup.succeeds();
        assert!(setup.stdout().contains(&format!("tables {tables}")), "{user}: {}", setup.stdout());
    }
    // As an earlier version has made it.
    here.own.client().run("ALTER TABLE clickstream.rejected DROP COLUMN topic");
    assert_eq!(here.run_as("writer", "setup", &[]).exit_code(WAIT_TIMEOUT), Some(1));
    let mut setup = here.run_as("owner", "setup", &[]);
    setup.succeeds();
    assert!(setup.stdout().contains("missing columns added"), "{}", setup.stdout());

    // A killed member's successor asks which offsets are stored and which inserts run, and ends the latter.
    let mut ingester = here.run_as("writer", "ingest", &SHORT_SESSION);
    ingester.says("lease opened", 1);
    here.env.produce(&["--count", "20000", "--rate", "max"]).finish();
    ingester.kill();
    here.env.produce(&["--count", "1000", "--rate", "max"]).finish();
    here.run_as("writer", "ingest", &["--until-end"]).succeeds();
    here.run_as("writer", "audit", &[]).succeeds();
    let counts = "SELECT count(), uniqExact(_source, _partition, _offset) FROM clickstream.events";
    assert_eq!(here.client("reader").run(counts), "21000\t21000\n");

    let insert = "INSERT INTO clickstream.rejected (payload) VALUES ('x')";
    for sql in
        ["DROP TABLE clickstream.events", "ALTER TABLE clickstream.events DELETE WHERE 1", "SELECT * FROM system.users"]
    {
        here.refused("writer", sql);
    }
    for sql in [insert, "DROP TABLE clickstream.events", "SELECT * FROM system.processes"] {
        here.refused("reader", sql);
    }
    let alter = "ALTER TABLE clickstream.events ADD COLUMN x UInt8";
    for sql in [insert, alter, "SELECT * FROM clickstream.rejected", "DROP TABLE clickstream.events"] {
        here.refused("owner", sql);
    }
    here.refused("eraser", insert);
    here.refused("eraser", "INSERT INTO clickstream.events (user_id) VALUES ('x')");
    here.refused("eraser", "DROP TABLE clickstream.events");
    here.refused("writer", "INSERT INTO clickstream.erased (reason) VALUES ('x')");
}

/// Asserts that `reader` gets this, with these parameters of the request, and with the same settings in the statement.
fn asks(here: &Installation, name: &str, value: &str) -> [Result<String, String>; 2] {
    let mut client = here.client("reader");
    let in_the_statement = client.ask(&format!("SELECT 1 SETTINGS {name} = '{value}'"));
    client.url += &format!("&{name}={value}");
    [client.ask("SELECT 1"), in_the_statement]
}

#[test]
fn the_reader_cannot_lift_its_limits() {
    let here = Installation::new();
    for (name, value) in [
        ("max_execution_time", "0"),
        ("max_execution_time", "0.4"),
        ("max_execution_time", "66"),
        ("max_execution_time", "3600"),
        ("max_execution_time", "-1"),
        ("max_execution_time", "1e-9"),
        ("max_execution_time", "inf"),
        ("max_execution_time_leaf", "100"),
        ("timeout_overflow_mode", "break"),
        ("read_overflow_mode", "break"),
        ("result_overflow_mode", "break"),
        ("timeout_before_checking_execution_speed", "1000"),
        ("max_threads", "64"),
        ("readonly", "0"),
        ("readonly", "2"),
        ("max_memory_usage", "0"),
        ("max_memory_usage_for_user", "0"),
        ("max_temporary_data_on_disk_size_for_query", "0"),
        ("max_temporary_data_on_disk_size_for_user", "0"),
        ("max_rows_to_read", "0"),
        ("max_bytes_to_read", "0"),
        ("max_result_rows", "0"),
        ("max_result_bytes", "0"),
        ("max_concurrent_queries_for_user", "0"),
    ] {
        for answer in asks(&here, name, value) {
            let said = answer.expect_err(&format!("{name} = {value}"));
            // Refused by the profile, or no value at all.
            let codes = ["Code: 164.", "Code: 452.", "Code: 72."];
            assert!(codes.iter().any(|code| said.starts_with(code)), "{name} = {value}: {said}");
        }
    }
    // Queries of Grafana's ClickHouse plugin and of our own page, and a query by hand.
    for seconds in ["64", "8", "30", "1"] {
        assert_eq!(asks(&here, "max_execution_time", seconds), [Ok("1\n".into()), Ok("1\n".into())], "{seconds}");
    }
    let mut client = here.client("reader");
    client.url += "&profile=default";
    assert_eq!(client.run("SELECT getSetting('readonly'), getSetting('max_memory_usage')"), "1\t1000000000\n");
}

#[test]
fn a_query_of_the_reader_that_reaches_a_limit_ends_with_an_error() {
    let here = Installation::new();
    // The real limits, as far as they are cheap to reach.
    let reader = here.client("reader");
    let hard = "SELECT count() FROM numbers(900000000) WHERE NOT ignore(SHA256(toString(number)))";
    for (sql, error) in [
        (format!("{hard} SETTINGS max_execution_time = 1"), "TIMEOUT_EXCEEDED"),
        ("SELECT count() FROM numbers(2000000000) WHERE number % 2 = 0".into(), "TOO_MANY_ROWS"),
        ("SELECT number FROM numbers(300000)".into(), "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT randomString(10000) FROM numbers(30000)".into(), "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT repeat('x', 1000000) FROM numbers(5000)".into(), "MEMORY_LIMIT_EXCEEDED"),
        ("SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')".into(), "ACCESS_DENIED"),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')".into(), "ACCESS_DENIED"),
        ("SELECT * FROM remote('127.0.0.1:1', system.one)".into(), "ACCESS_DENIED"),
    ] {
        let said = reader.ask(&sql).expect_err(&sql);
        assert!(said.contains(&format!("({error})")), "{sql}: expected {error}, found {said}");
    }
    // Small ones in the place of those that would take gigabytes.
    let mut users = read(&here.secrets.join("clickhouse/users.xml"));
    for (name, value, small) in [
        ("max_bytes_to_read", "50000000000", "1000000000"),
        ("max_memory_usage_for_user", "2000000000", "200000000"),
        ("max_concurrent_queries_for_user", "50", "1"),
    ] {
        let limit = format!("<{name}>{value}</{name}>");
        assert!(users.contains(&limit), "{limit}");
        users = users.replace(&limit, &format!("<{name}>{small}</{name}>"));
    }
    here.own.restart_with_users(&users);
    let said = reader.ask("SELECT sum(number) FROM numbers(900000000)").unwrap_err();
    assert!(said.contains("(TOO_MANY_BYTES)"), "{said}");
    let said = reader.ask("SELECT length(groupArray(number)) FROM numbers(50000000)").unwrap_err();
    assert!(said.contains("(MEMORY_LIMIT_EXCEEDED)") && said.contains("User memory limit"), "{said}");
    let busy = here.client("reader");
    let running = std::thread::spawn(move || busy.ask("SELECT sleep(3)"));
    eventually(WAIT_TIMEOUT, "the first of two queries runs", || {
        let seen = here.own.client().number("SELECT count() FROM system.processes WHERE user = 'reader'");
        is(seen == 1, seen)
    });
    let said = reader.ask("SELECT 1").expect_err("the second one is refused");
    assert!(said.contains("(TOO_MANY_SIMULTANEOUS_QUERIES)"), "{said}");
    assert_eq!(running.join().unwrap(), Ok("0\n".into()));
}

#[test]
fn only_the_eraser_may_erase_and_a_missing_right_is_named_before_anything_happens() {
    let here = Installation::new();
    here.run_as("owner", "setup", &[]).succeeds();
    here.env.produce(&["--count", "1000", "--rate", "max", "--users", "10"]).finish();
    here.run_as("writer", "ingest", &["--until-end"]).succeeds();
    let arguments = ["--user", "user_0003"];
    for (user, right) in [("writer", "INSERT ON clickstream.erased"), ("owner", "SELECT ON clickstream.erased")] {
        // The owner cannot even count.
        let mut erase = here.run_as(user, "erase", &arguments);
        assert_eq!(erase.exit_code(WAIT_TIMEOUT), Some(1));
        let said = erase.stderr();
        let line = said.lines().find(|line| line.starts_with("clickstream: ")).expect("one line");
        assert!(line.contains("nothing was erased") && line.contains(&format!("GRANT {right} TO {user}")), "{said}");
    }
    let mut erase = here.run_as("reader", "erase", &arguments);
    assert_eq!(erase.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(erase.stderr().contains("its profile is readonly"), "{}", erase.stderr());
    assert_eq!(here.client("reader").run("SELECT count() FROM clickstream.erased"), "0\n");
    here.run_as("eraser", "erase", &[&arguments[..], &["--wait"]].concat()).succeeds();
    let left = "SELECT countIf(user_id = 'user_0003') = 0 AND count() > 0 FROM clickstream.events";
    assert_eq!(here.client("reader").run(left), "1\n");
    here.run_as("writer", "audit", &["--heal"]).succeeds();
    here.run_as("writer", "rejects", &[]).succeeds();
}

#[test]
fn a_writer_of_before_the_table_of_erased_positions_is_told_the_grant() {
    let here = Installation::new();
    here.run_as("owner", "setup", &[]).succeeds();
    let users = read(&here.secrets.join("clickhouse/users.xml"));
    let (writer, rest) =
        users.split_once("<query>GRANT SELECT ON clickstream.erased</query>").expect("the writer's grant");
    here.own.restart_with_users(&format!("{writer}{rest}"));
    here.env.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = here.run_as("writer", "ingest", &["--until-end"]);
    assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(1));
    let said = ingester.stderr();
    let line = said.lines().filter(|line| line.starts_with("clickstream: ")).collect::<Vec<_>>();
    assert!(line.len() == 1 && line[0].contains("grant SELECT") && line[0].contains("clickstream.erased"), "{said}");
    here.own.restart_with_users(&users);
    here.run_as("writer", "ingest", &["--until-end"]).succeeds();
    here.run_as("writer", "audit", &[]).succeeds();
}

#[test]
fn a_writer_may_end_its_own_queries() {
    let here = Installation::new();
    let (busy, writer) = (here.client("writer"), here.client("writer"));
    let running = std::thread::spawn(move || {
        busy.ask("SELECT sleepEachRow(1) FROM numbers(15) SETTINGS max_block_size = 1, log_comment = 'mine'")
    });
    let mine = "query LIKE '%log_comment = \\'mine\\'%' AND query NOT LIKE '%processes%'";
    eventually(WAIT_TIMEOUT, "it sees it run", || {
        let seen = writer.number(&format!("SELECT count() FROM system.processes WHERE {mine}"));
        is(seen == 1, seen)
    });
    writer.run(&format!("KILL QUERY WHERE {mine} AND query NOT LIKE 'KILL%' ASYNC"));
    let ended = running.join().unwrap();
    assert!(ended.as_ref().is_err_and(|said| said.contains("QUERY_WAS_CANCELLED")), "{ended:?}");
}

#[test]
fn secrets_are_made_once_and_never_shown() {
    let env = TestEnv::bare();
    let dir = env.dir.join("secrets");
    let names = ["owner/password", "writer/password", "eraser/password", "reader/password", "clickhouse/users.xml"];
    let mut before = Vec::new();
    for word in ["made", "kept"] {
        let mut run = env.run("secrets", &[dir.to_str().unwrap(), "--mode", "444"]);
        run.succeeds();
        assert!(run.stdout().contains(&format!("passwords {word}")), "{}", run.stdout());
        let files: Vec<_> = names.iter().map(|name| read(&dir.join(name))).collect();
        let said = run.stdout() + &run.stderr();
        assert!(files[..4].iter().all(|password| !said.contains(password) && !files[4].contains(password)), "{said}");
        assert!(before.is_empty() || before == files, "the second run changes nothing");
        before = files;
    }
    let file = env.file("no-directory");
    std::fs::write(&file, "").unwrap();
    let mut run = env.run("secrets", &[file.to_str().unwrap()]);
    assert_eq!(run.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(run.stderr().contains("no-directory/owner/password"), "{}", run.stderr());
}

#[test]
fn health_tells_a_living_process_from_a_working_one() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let address = format!("127.0.0.1:{}", free_port());
    let health = |args: &[&str]| {
        let mut program = env.run("health", &[&["--metrics", &address], args].concat());
        (program.exit_code(WAIT_TIMEOUT), program.stdout() + &program.stderr())
    };
    let (code, said) = health(&[]);
    assert_eq!((code, said.contains(&address) && said.lines().count() == 1), (Some(1), true), "nobody there: {said}");

    let mut ingester = env.ingester_at_work(&["--metrics", &address]);
    assert_eq!(health(&[]), (Some(0), "alive\n".into()));
    eventually(WAIT_TIMEOUT, "it is ready", || {
        let seen = health(&["--ready"]);
        is(seen == (Some(0), "ready\n".into()), seen)
    });
    own.freeze();
    eventually(WAIT_TIMEOUT, "it is not ready", || {
        let seen = health(&["--ready"]);
        is(seen.0 == Some(1) && seen.1.starts_with("clickstream: not ready: ClickHouse has not answered for "), seen)
    });
    assert_eq!(health(&[]), (Some(0), "alive\n".into()), "it lives without ClickHouse");
    own.wake();
    eventually(WAIT_TIMEOUT, "it is ready again", || {
        let seen = health(&["--ready"]);
        is(seen.0 == Some(0), seen)
    });
    ingester.drains();
}
