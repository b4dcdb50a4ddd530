//! Signals: a closed terminal drains as a stop does, and a process that has to survive it does.

use crate::support::demo::{Demo, directory};
use crate::support::process::Program;
use crate::support::stack::{OwnClickHouse, OwnKafka, free_port};
use crate::support::test_env::{Part, Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;
use ureq::Agent;

/// Only full batches leave before it is stopped: draining stores the rest.
const LATE: [&str; 2] = ["--batch-timeout", "60s"];

/// Sends more than one batch, and waits until the first is stored.
fn one_batch_and_a_rest(env: &TestEnv) {
    env.produce(&["--count", "1500", "--rate", "max"]).finish();
    eventually(WAIT_TIMEOUT, "a batch is stored", || {
        let stored = env.stored();
        is(stored >= 1_000, stored)
    });
}

#[test]
fn a_hangup_drains_every_command_that_runs_until_it_is_stopped() {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&LATE);
    one_batch_and_a_rest(&env);
    ingester.hang_up();
    ingester.succeeds();
    assert!(ingester.stdout().contains("events and 0 rejects stored"), "{}", ingester.stdout());
    assert_eq!(env.stored(), env.committed().values().sum::<i64>(), "what is stored is committed");

    let producer = env.produce(&["--rate", "200"]);
    eventually(WAIT_TIMEOUT, "some events are sent", || {
        let sent = env.ends().values().sum::<i64>();
        is(sent > 1_700, sent)
    });
    producer.program.hang_up();
    let sent = 1_500 + producer.finish().len() as i64;
    assert_eq!(env.ends().values().sum::<i64>(), sent, "all that was sent is in the manifest");

    let mut dashboard = env.run("dashboard", &["--listen", "127.0.0.1:0"]);
    eventually(WAIT_TIMEOUT, "it serves", || is(dashboard.stdout().contains("dashboard at"), "not yet"));
    dashboard.hang_up();
    dashboard.succeeds();
    drop(env);

    let _part = Part::shared();
    let mut demo = Demo::run_in(directory(), &["--port", "13190", "--rate", "500"]);
    demo.program.hang_up();
    demo.program.succeeds();
    assert!(demo.program.stdout().contains(" rejects stored in "), "{}", demo.program.stdout());
}

/// An ingester in a drain that lasts: its ClickHouse is frozen.
fn in_a_drain(env: &TestEnv, own: &OwnClickHouse, signal: fn(&Program)) -> Program {
    let metrics = format!("127.0.0.1:{}", free_port());
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "500ms", "--metrics", &metrics]);
    own.freeze();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let agent: Agent = Agent::config_builder().proxy(None).build().into();
    eventually(WAIT_TIMEOUT, "an insert is under way", || {
        let answer = agent.get(format!("http://{metrics}/metrics")).call().map_err(|error| error.to_string())?;
        let text = answer.into_body().read_to_string().map_err(|error| error.to_string())?;
        let line = text.lines().find(|line| line.starts_with("clickstream_in_flight_batches ")).unwrap_or_default();
        is(!line.is_empty() && !line.ends_with(" 0"), line.to_owned())
    });
    signal(&ingester);
    ingester.says("stopping", 1);
    ingester
}

/// After this time, a repeated signal counts as a second one.
const NEXT_SIGNAL: Duration = Duration::from_millis(200);

#[test]
fn a_drain_is_cut_short_by_a_second_signal_and_by_no_hangup() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    // As when a session ends: hangups from the shell and from the kernel, and a SIGTERM from the session manager.
    let mut ingester = in_a_drain(&env, &own, Program::hang_up);
    ingester.hang_up();
    ingester.term();
    ingester.hang_up();
    own.wake();
    ingester.succeeds();
    assert_eq!((env.stored(), env.committed().values().sum::<i64>()), (100, 100));

    // `timeout` sends its signal twice within a millisecond: that is one.
    let mut ingester = in_a_drain(&env, &own, |ingester| {
        ingester.term();
        ingester.term();
    });
    ingester.hang_up();
    std::thread::sleep(NEXT_SIGNAL);
    assert!(ingester.is_running());
    ingester.term();
    assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(130));
    own.wake();
}

#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let env = TestEnv::open();
    let (program, environment) = (env.command("ingest", &[]), ["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    let mut command = Command::new("sh");
    command.args(environment).arg(program.get_program()).args(program.get_args()).current_dir(&env.dir);
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut ingester = Program::start(&mut command, &env.file("nohup"));
    ingester.says("lease opened", 1);
    ingester.hang_up();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    env.drained();
    assert_eq!(ingester.said("stopping"), 0);
    ingester.drains();
    assert_eq!(env.stored(), 100);
}

/// A terminal: the end that a person looks at, and the one that a program is given.
fn terminal() -> (OwnedFd, OwnedFd) {
    // No other program may hold the first of them.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).expect("a pseudo-terminal");
    grantpt(&person).and_then(|()| unlockpt(&person)).expect("a pseudo-terminal");
    let program = ioctl_tiocgptpeer(&person, flags).expect("its other end");
    (person, program)
}

#[test]
fn a_closed_terminal_drains_and_the_drain_writes_to_nobody() {
    let env = TestEnv::open();
    let (person, terminal) = terminal();
    let program = env.command("ingest", &LATE);
    // It leads a session of its own on that terminal, as a shell does.
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args()).current_dir(&env.dir);
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ends = || Stdio::from(terminal.try_clone().expect("a file"));
    let mut ingester = Program::start_on(&mut command, &env.file("terminal"), ends);
    drop((command, terminal));
    one_batch_and_a_rest(&env);
    drop(person);
    ingester.succeeds();
    assert_eq!(env.stored(), env.committed().values().sum::<i64>(), "what is stored is committed");
}

#[test]
fn a_producer_whose_time_is_over_gives_up_when_nothing_is_acknowledged() {
    let kafka = OwnKafka::start(1);
    let env = TestEnv::open_in(&Services { brokers: kafka.brokers(), ..Services::default() });
    for options in [&["--rate", "1000"][..], &["--rate", "max"], &["--rate", "max", "--in-flight", "200000"]] {
        let producer = env.produce(&[options, &["--for", "3s", "--drain-timeout", "2s"]].concat());
        let mut program = producer.program;
        program.says("producing into", 1);
        kafka.freeze(1);
        assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "{options:?}");
        assert_eq!(
            program.said("messages were not acknowledged within 2s (--drain-timeout)"),
            1,
            "{}",
            program.stderr()
        );
        kafka.wake(1);
    }
}
