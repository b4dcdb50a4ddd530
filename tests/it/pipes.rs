//! Output without a reader, and output that cannot be written: no command panics, and pipelines continue.

use crate::support::demo::{Demo, directory};
use crate::support::process::Program;
use crate::support::stack::free_port;
use crate::support::test_env::{Part, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, pipe};
use std::process::{Command, Stdio};

/// The exit code of a command whose reader went away, as a shell shows it for `git` or `cat`.
const READER_GONE: i32 = 141;

/// A pipe whose reader is gone already.
fn closed() -> Stdio {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A disk without any room.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has this device").into()
}

/// The command line is dropped as soon as the program runs: it holds the other ends of pipes.
fn start(env: &TestEnv, args: &[&str], stdout: Option<Stdio>, stderr: Option<Stdio>) -> Program {
    Program::start_into(&mut env.command(args[0], &args[1..]), &env.file(args[0]), stdout, stderr)
}

/// An environment with rejects, so that all commands have output.
fn with_something_to_say() -> TestEnv {
    let env = TestEnv::open();
    env.produce(&["--count", "300", "--rate", "max", "--faults", "bad=0.2", "--seed", "1"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    env
}

/// Every command that prints and ends, with arguments with which it succeeds.
fn commands<'a>(log: &'a str, dir: &'a str, metrics: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["setup"],
        vec!["audit"],
        vec!["audit", "--format", "json"],
        vec!["audit", "--heal"],
        vec!["rejects"],
        vec!["rejects", "--format", "json", "--limit", "100"],
        vec!["rejects", "--replay"],
        vec!["erase", "--user", "nobody", "--dry-run"],
        vec!["report", log],
        vec!["report", log, "--format", "json"],
        vec!["report", log, "--format", "png"],
        vec!["report", "--compare", log, log],
        vec!["secrets", dir],
        vec!["health", "--metrics", metrics],
        vec!["--help"],
        vec!["ingest", "--help"],
        vec!["--version"],
    ]
}

#[track_caller]
fn each_command(stdout: fn() -> Stdio, check: impl Fn(&[&str], Option<i32>, &str)) {
    let env = with_something_to_say();
    let (log, dir, metrics) = (env.file("produce.log"), env.file("secrets"), format!("127.0.0.1:{}", free_port()));
    let log = log.to_str().unwrap();
    env.produce(&["--count", "300", "--rate", "max", "--latency-log", log]).finish();
    let mut ingester = env.ingester_at_work(&["--metrics", &metrics]);
    env.drained();
    for args in commands(log, dir.to_str().unwrap(), &metrics) {
        start(&env, &args, None, None).succeeds();
        let mut program = start(&env, &args, Some(stdout()), None);
        let code = program.exit_code(WAIT_TIMEOUT);
        let said = program.stderr();
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        let said: Vec<_> = said.lines().filter(|line| line.starts_with("clickstream: ")).collect();
        check(&args, code, &said.join("\n"));
    }
    ingester.drains();
}

#[test]
fn a_reader_that_went_away_ends_every_command_without_a_word() {
    each_command(closed, |args, code, said| {
        assert_eq!((code, said), (Some(READER_GONE), ""), "{args:?}");
    });
}

#[test]
fn standard_output_on_a_full_disk_is_one_line_and_exit_code_1() {
    each_command(full, |args, code, said| {
        assert_eq!(code, Some(1), "{args:?}");
        assert_eq!(
            said, "clickstream: cannot write to standard output: No space left on device (os error 28)",
            "{args:?}"
        );
    });
}

#[test]
fn a_reader_that_has_read_enough_ends_a_long_list() {
    let env = TestEnv::open();
    env.produce(&["--count", "5000", "--rate", "max", "--faults", "bad=1", "--seed", "1"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    let (mut reader, writer) = pipe().expect("a pipe");
    let args = ["rejects", "--format", "json", "--limit", "5000"];
    let mut program = start(&env, &args, Some(writer.into()), None);
    reader.read_exact(&mut [0; 600]).expect("a list longer than that");
    drop(reader);
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(READER_GONE));
    assert_eq!(program.stderr(), "", "not a word");
}

#[test]
fn a_pipeline_ends_by_its_own_outcome_even_if_nobody_reads_its_report() {
    let env = TestEnv::open();
    let produce = ["produce", "--count", "100", "--rate", "max"];
    let ingest = ["ingest", "--until-end"];
    start(&env, &produce, Some(closed()), None).succeeds();
    start(&env, &ingest, Some(closed()), None).succeeds();
    assert_eq!((env.stored(), env.committed()), (100, ends(&env)), "it has drained");

    for (args, sent) in [(&produce[..], 200), (&ingest[..], 200)] {
        let mut program = start(&env, args, Some(full()), None);
        assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "the report is a part of it");
        let said = program.stderr();
        assert!(said.contains("clickstream: cannot write to standard output: No space left"), "{said}");
        assert_eq!(env.ends().values().sum::<i64>(), sent);
    }
    assert_eq!((env.stored(), env.committed()), (200, ends(&env)), "it has drained");

    // The command reports its own failure, with its own exit code.
    let mut refused = start(&env, &["ingest", "--database", "nowhere"], Some(closed()), None);
    assert_eq!(refused.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(refused.stderr().contains("nowhere"), "{}", refused.stderr());
}

/// The ends of the partitions that hold something: what a group commits.
fn ends(env: &TestEnv) -> BTreeMap<i32, i64> {
    env.ends().into_iter().filter(|(_, end)| *end > 0).collect()
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let env = TestEnv::open();
    for (nth, stderr) in [(1, closed as fn() -> Stdio), (2, full)] {
        // At trace level the log is never silent.
        let mut command = env.command("ingest", &[]);
        command.env("CLICKSTREAM_LOG", "trace");
        let mut ingester = Program::start_into(&mut command, &env.file("ingest"), None, Some(stderr()));
        start(&env, &["produce", "--count", "100", "--rate", "max"], None, Some(stderr())).succeeds();
        env.drained();
        ingester.drains();
        assert_eq!(env.stored(), nth * 100);
        assert!(ingester.stdout().contains(" events and 0 rejects stored"), "{}", ingester.stdout());

        for (args, code) in [(&["ingest", "--database", "nowhere"][..], 1), (&["ingest", "--batch-rows", "many"], 2)] {
            assert_eq!(start(&env, args, None, Some(stderr())).exit_code(WAIT_TIMEOUT), Some(code), "{args:?}");
            assert_eq!(
                start(&env, args, Some(stderr()), Some(stderr())).exit_code(WAIT_TIMEOUT),
                Some(code),
                "{args:?}"
            );
        }
    }
}

#[test]
fn the_dashboard_and_the_demo_end_where_nobody_reads_where_they_are() {
    let env = TestEnv::bare();
    let mut dashboard = start(&env, &["dashboard", "--listen", "127.0.0.1:0"], Some(closed()), None);
    assert_eq!((dashboard.exit_code(WAIT_TIMEOUT), dashboard.stderr().as_str()), (Some(READER_GONE), ""));
    drop(env);

    let _part = Part::shared();
    let dir = directory();
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickstream"));
    command.args(["demo", "--port", "13180"]).env("TMPDIR", &dir).current_dir(&dir);
    let mut demo = Program::start_into(&mut command, &dir.join("demo"), Some(closed()), None);
    assert_eq!((demo.exit_code(WAIT_TIMEOUT), demo.stderr().as_str()), (Some(READER_GONE), ""));
    eventually(WAIT_TIMEOUT, "nothing of it is left", || {
        let left = (Demo::processes(&dir), Demo::temporary(&dir));
        is(left.0.is_empty() && left.1.is_empty(), left)
    });
}
