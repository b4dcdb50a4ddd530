//! Errors pass on Kafka's reasons: which user is refused and why, which address cannot be reached, which right is
//! missing.

use crate::support::acl::On;
use crate::support::listener::Listener;
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::secured::{NO_HOST, SCRAM_USER, Secured, as_user, flags, password};
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Each command that asks Kafka something, as it is run here.
const COMMANDS: [&[&str]; 6] =
    [&["setup"], &["produce", "--count", "10"], &["ingest"], &["ingest", "--until-end"], &["audit"], &["rejects"]];

pub fn open(kafka: &Secured) -> TestEnv {
    TestEnv::open_in(&Services { brokers: kafka.open.clone(), ..Services::default() })
}

fn run(env: &TestEnv, command: &[&str], more: &[String]) -> Program {
    let args: Vec<_> = command[1..].iter().copied().chain(more.iter().map(String::as_str)).collect();
    env.run(command[0], &args)
}

/// Asserts that it ends with exit code 1 and one line that names all of these; returns the whole log.
#[track_caller]
fn fails_and_names(mut program: Program, within: Duration, names: &[&str]) -> String {
    assert_eq!(program.exit_code(within), Some(1), "exit code; {names:?}");
    let stderr = program.stderr();
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("clickstream: ")).collect();
    assert_eq!(lines.len(), 1, "one line: {stderr}");
    assert!(names.iter().all(|name| lines[0].contains(name)), "it names {names:?}: {}", lines[0]);
    assert!(!stderr.contains("secret-of") && !stderr.contains("panicked"), "{stderr}");
    stderr
}

/// Much shorter than the default `--connect-timeout`, and enough for a busy machine.
const NO_WAIT_DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_refused_client_is_told_why_at_once() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let user = kafka.user();
    let wrong = as_user(&kafka.sasl, "PLAIN", &user, "secret-of-others");
    for command in COMMANDS {
        let names = [kafka.sasl.as_str(), "refuses", "password", "sasl.username", "sasl.password"];
        fails_and_names(run(&env, command, &wrong), NO_WAIT_DEADLINE, &names);
    }
    let password = password(&user);
    let cases: [(Vec<String>, &[&str]); 5] = [
        (
            as_user(&kafka.sasl, "SCRAM-SHA-256", SCRAM_USER, "secret-of-others"),
            &[&kafka.sasl, "refuses", "SCRAM-SHA-256", "sasl.password"],
        ),
        (
            as_user(&kafka.sasl, "SCRAM-SHA-512", &user, &password),
            &[&kafka.sasl, "PLAIN,SCRAM-SHA-256", "sasl.mechanism"],
        ),
        (as_user(&kafka.open, "PLAIN", &user, &password), &[&kafka.open, "no users", "security.protocol=PLAINTEXT"]),
        (flags(&kafka.tls, &["security.protocol=SSL"]), &["certificate", &kafka.tls, "ssl.ca.location"]),
        (
            flags(&kafka.mutual_tls, &["security.protocol=SSL".into(), ca(&kafka)]),
            &[&kafka.mutual_tls, "certificate", "ssl.certificate.location", "ssl.key.location"],
        ),
    ];
    for (flags, names) in cases {
        fails_and_names(run(&env, &["ingest"], &flags), NO_WAIT_DEADLINE, names);
    }
    // The certificate is for an address, and not for this name.
    let port = kafka.tls.rsplit_once(':').unwrap().1;
    let flags = flags(&format!("localhost:{port}"), &["security.protocol=SSL".into(), ca(&kafka)]);
    fails_and_names(
        run(&env, &["ingest"], &flags),
        NO_WAIT_DEADLINE,
        &["certificate", "localhost", "host name", "--brokers"],
    );
}

fn ca(kafka: &Secured) -> String {
    format!("ssl.ca.location={}", kafka.ca().display())
}

#[test]
fn an_unreachable_service_is_waited_for_and_named_with_the_reason() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let plain = |brokers: &str| flags(brokers, &[""; 0]);
    let mute = Listener::open(|mut client| while client.read(&mut [0; 1_024]).is_ok_and(|read| read > 0) {});
    let mute = mute.address.to_string();
    let http = Listener::open(|mut client| {
        let _ = client.read(&mut [0; 1_024]).and_then(|_| client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let http = http.address.to_string();
    let cases: [(Vec<String>, &[&str]); 8] = [
        (plain(&kafka.tls), &[&kafka.tls, "TLS", "security.protocol=SSL"]),
        (plain(&kafka.sasl), &[&kafka.sasl, "user", "security.protocol=SASL_PLAINTEXT"]),
        (
            flags(&kafka.open, &["security.protocol=SSL"]),
            &[&kafka.open, "does not speak TLS", "security.protocol=PLAINTEXT"],
        ),
        (plain(&format!("{NO_HOST}:9092")), &["host name", NO_HOST, "--brokers"]),
        (plain("127.0.0.1:1"), &["nothing listens at 127.0.0.1:1", "refused", "--brokers"]),
        (plain(&mute), &[&mute, "does not answer", "firewall", "--brokers"]),
        (plain(&http), &[&http, "HTTP", "--brokers"]),
        // Of several brokers, one that answers is enough.
        (
            plain(&format!("{NO_HOST}:9092,{}", kafka.unresolved)),
            &["host name", NO_HOST, "broker 1", "advertised.listeners"],
        ),
    ];
    for (flags, names) in cases {
        let flags = [flags, vec!["--connect-timeout".into(), "3s".into()]].concat();
        let began = Instant::now();
        let names = [names, &["--connect-timeout 3s"]].concat();
        let log = fails_and_names(run(&env, &["ingest"], &flags), WAIT_TIMEOUT, &names);
        assert!(began.elapsed() >= Duration::from_secs(3), "it is waited for: {log}");
        assert!(log.contains("waiting for Kafka: "), "{log}");
    }
}

/// The most common case of all: the first broker answers, and sends its clients to an address that is not known where they are.
#[test]
fn an_address_that_a_broker_advertises_and_nobody_can_reach_is_named() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    for (brokers, names) in [
        (&kafka.unresolved, ["host name", NO_HOST, "broker 1", "advertised.listeners"]),
        (&kafka.gone, ["nothing listens at 127.0.0.1:1", "refused", "broker 1", "advertised.listeners"]),
    ] {
        for command in &COMMANDS[1..5] {
            let flags = flags(brokers, &[""; 0]);
            let flags = [flags, vec!["--connect-timeout".into(), "2s".into()]].concat();
            fails_and_names(run(&env, command, &flags), WAIT_TIMEOUT, &names);
        }
    }
}

/// A user of this broker, and its rights.
struct User<'a> {
    kafka: &'a Secured,
    name: String,
    flags: Vec<String>,
}

impl<'a> User<'a> {
    fn new(kafka: &'a Secured) -> Self {
        let name = kafka.user();
        let flags = as_user(&kafka.sasl, "PLAIN", &name, &password(&name));
        Self { kafka, name, flags }
    }

    fn grant(&self, operation: &str, on: On<'_>) {
        self.kafka.acls.grant(&self.name, operation, on);
    }

    fn revoke(&self, operation: &str, on: On<'_>) {
        self.kafka.acls.revoke(&self.name, operation, on);
    }

    /// Runs the command until it names another right than before, because a granted right takes effect a moment later.
    #[track_caller]
    fn lacks(&self, env: &TestEnv, command: &[&str], operation: &str, on: &str) {
        let lack = format!("lacks the right {operation} on {on}");
        eventually(WAIT_TIMEOUT, &format!("{command:?} says: {lack}"), || {
            let mut program = run(env, command, &self.flags);
            assert_eq!(
                program.exit_code(NO_WAIT_DEADLINE),
                Some(1),
                "{command:?} ends at once where {operation} on {on} is missing"
            );
            let log = program.stderr();
            let last = log.lines().last().unwrap_or_default().to_owned();
            is(last.starts_with("clickstream: ") && last.contains(&lack) && last.contains("kafka-acls"), last)
        });
    }

    #[track_caller]
    fn may(&self, env: &TestEnv, command: &[&str]) {
        eventually(WAIT_TIMEOUT, &format!("{command:?} may do all that it needs"), || {
            let mut program = run(env, command, &self.flags);
            is(program.exit_code(WAIT_TIMEOUT) == Some(0), program.stderr())
        });
    }
}

#[test]
fn setup_names_each_right_that_it_lacks() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let new = format!("{}_new", env.topic);
    let (user, setup) = (User::new(&kafka), ["setup", "--topic", &new]);
    user.lacks(&env, &setup, "DESCRIBE", &format!("topic {new}"));
    user.grant("DESCRIBE", On::Topic(&new));
    user.lacks(&env, &setup, "CREATE", &format!("topic {new}"));
    user.grant("CREATE", On::Topic(&new));
    user.may(&env, &setup);
    env.kafka.delete(&new);
}

#[test]
fn produce_names_each_right_that_it_lacks() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let (user, produce) = (User::new(&kafka), ["produce", "--count", "10", "--rate", "max"]);
    let topic = format!("topic {}", env.topic);
    user.lacks(&env, &produce, "DESCRIBE", &topic);
    user.grant("DESCRIBE", On::Topic(&env.topic));
    user.lacks(&env, &produce, "WRITE", &topic);
    // To write elsewhere is enough to get a producer id.
    user.grant("WRITE", On::Topic("another-topic"));
    user.lacks(&env, &produce, "WRITE", &topic);
    assert_eq!(env.ends().values().sum::<i64>(), 0);
    user.grant("WRITE", On::Topic(&env.topic));
    user.may(&env, &produce);
}

#[test]
fn a_producer_whose_right_is_taken_away_ends_and_says_so() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let user = User::new(&kafka);
    user.grant("WRITE", On::Topic(&env.topic));
    let mut producer = eventually(WAIT_TIMEOUT, "it may write", || {
        let mut program = run(&env, &["produce", "--rate", "max"], &user.flags);
        eventually(WAIT_TIMEOUT, "it produces, or ends", || {
            let is_at_work = env.ends().values().sum::<i64>() > 1_000;
            is(is_at_work || program.has_ended(), "neither")
        });
        if program.has_ended() { Err(program.stderr()) } else { Ok(program) }
    });
    user.revoke("WRITE", On::Topic(&env.topic));
    assert_eq!(producer.exit_code(NO_WAIT_DEADLINE), Some(1));
    let log = producer.stderr();
    let lack = format!("acknowledged messages: Kafka: this user lacks the right WRITE on topic {}", env.topic);
    assert!(log.contains("stopped after ") && log.contains(&lack), "{log}");
}

#[test]
fn ingest_names_each_right_that_it_lacks() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let manifest = env.produce(&["--count", "100", "--rate", "max"]).finish();
    let user = User::new(&kafka);
    let (ingest, topic, group) = (["ingest"], format!("topic {}", env.topic), format!("group {}", env.group));
    user.lacks(&env, &ingest, "DESCRIBE", &topic);
    user.grant("DESCRIBE", On::Topic(&env.topic));
    user.lacks(&env, &ingest, "READ", &group);
    // The coordinator may be looked for now, and the group not be joined.
    user.grant("DESCRIBE", On::Group(&env.group));
    user.lacks(&env, &ingest, "READ", &group);
    user.grant("READ", On::Group(&env.group));
    user.lacks(&env, &ingest, "READ", &topic);
    assert_eq!((env.committed(), env.stored()), (BTreeMap::new(), 0));
    user.grant("READ", On::Topic(&env.topic));
    user.may(&env, &["ingest", "--until-end"]);
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn audit_names_each_right_that_it_lacks() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    env.sql("TRUNCATE TABLE db.events");
    let (user, audit, heal) = (User::new(&kafka), ["audit"], ["audit", "--heal"]);
    let topic = format!("topic {}", env.topic);
    user.lacks(&env, &audit, "DESCRIBE", &topic);
    user.grant("DESCRIBE", On::Topic(&env.topic));
    user.lacks(&env, &audit, "DESCRIBE", &format!("group {}", env.group));
    user.grant("DESCRIBE", On::Group(&env.group));
    user.lacks(&env, &audit, "READ", &topic);
    user.grant("READ", On::Topic(&env.topic));
    user.may(&env, &heal);
    user.may(&env, &audit);
}

#[test]
fn rejects_names_each_right_that_it_lacks() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    env.kafka.send(&env.topic, &[("key", "not JSON")]);
    env.ingest(&["--until-end"]).succeeds();
    let user = User::new(&kafka);
    let (replay, topic) = (["rejects", "--replay", "--yes"], format!("topic {}", env.topic));
    let (marks, id) = (format!("{}.replayed", env.topic), format!("clickstream-replay/{}", env.topic));
    user.lacks(&env, &["rejects"], "DESCRIBE", &topic);
    user.grant("DESCRIBE", On::Topic(&env.topic));
    user.may(&env, &["rejects"]);
    user.lacks(&env, &replay, "DESCRIBE", &format!("topic {marks}"));
    user.grant("DESCRIBE", On::Topic(&marks));
    user.lacks(&env, &replay, "CREATE", &format!("topic {marks}"));
    user.grant("CREATE", On::Topic(&marks));
    user.lacks(&env, &replay, "WRITE", &format!("transactional id {id}"));
    user.grant("WRITE", On::TransactionalId(&id));
    user.lacks(&env, &replay, "WRITE", &topic);
    user.grant("WRITE", On::Topic(&env.topic));
    user.lacks(&env, &replay, "WRITE", &format!("topic {marks}"));
    user.grant("WRITE", On::Topic(&marks));
    user.may(&env, &replay);
    // The command has to read the marks of earlier replays first.
    user.lacks(&env, &replay, "READ", &format!("topic {marks}"));
    user.grant("READ", On::Topic(&marks));
    user.may(&env, &replay);
    env.kafka.delete(&marks);
}

#[test]
fn rights_that_are_taken_away_stop_nothing_for_good_and_lose_nothing() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let user = User::new(&kafka);
    let (topic, group) = (On::Topic(&env.topic), On::Group(&env.group));
    user.grant("READ", topic);
    user.grant("READ", group);
    let mut manifest = env.produce(&["--count", "1000", "--rate", "max"]).finish();
    let settings = [user.flags.clone(), vec!["--batch-timeout".into(), "500ms".into()]].concat();
    let mut ingester = run(&env, &["ingest"], &settings);
    env.drained();
    for (nth, (on, name)) in
        [(group, format!("group {}", env.group)), (topic, format!("topic {}", env.topic))].iter().enumerate()
    {
        user.revoke("READ", *on);
        ingester.says(&format!("lacks the right READ on {name}"), 1);
        manifest.extend(env.produce(&["--count", "1000", "--rate", "max"]).finish());
        user.grant("READ", *on);
        env.drained();
        ingester.says("allowed again", nth + 1);
    }
    assert!(ingester.stderr().contains("WARN"), "it is a warning");
    ingester.drains();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_stuck_flow_names_the_missing_right() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let user = User::new(&kafka);
    let (topic, group) = (On::Topic(&env.topic), On::Group(&env.group));
    user.grant("READ", topic);
    user.grant("READ", group);
    let mut ingester = run(&env, &["ingest"], &user.flags);
    ingester.says("lease opened", 1);
    user.revoke("READ", group);
    let right = format!("this user lacks the right READ on group {}", env.group);
    // Which of the two lasts first depends on which request is refused first.
    eventually(WAIT_TIMEOUT, "it says why it is stuck", || {
        let log = ingester.stderr();
        let stuck = |line: &&str| line.contains("; trying again, and messages wait") && line.contains(&right);
        is(log.lines().any(|line| stuck(&line)), log)
    });
    user.grant("READ", group);
    ingester.says("allowed again", 1);
    ingester.drains();
}

/// Grants the user of SCRAM its rights for a topic, and runs each command with these flags.
#[track_caller]
fn can_do_all_of_it(kafka: &Secured, env: &TestEnv, topic: &str, flags: &[String]) {
    let (on_topic, on_group) = (On::Topic(topic), On::Group(&env.group));
    for (operation, on) in [("CREATE", on_topic), ("READ", on_topic), ("WRITE", on_topic), ("READ", on_group)] {
        kafka.acls.grant(SCRAM_USER, operation, on);
    }
    for command in
        [&["setup"][..], &["produce", "--count", "100"], &["ingest", "--until-end"], &["audit"], &["rejects"]]
    {
        eventually(WAIT_TIMEOUT, &format!("{command:?}"), || {
            let mut program = run(env, command, flags);
            is(program.exit_code(WAIT_TIMEOUT) == Some(0), program.stderr())
        });
    }
    assert_eq!(env.stored(), 100);
}

#[test]
fn a_user_out_of_a_file_can_do_all_of_it() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let topic = format!("{}_file", env.topic);
    let file = env.file("kafka.properties");
    let settings = as_user(&kafka.sasl, "SCRAM-SHA-256", SCRAM_USER, &password(SCRAM_USER));
    let lines: Vec<_> = settings.iter().filter(|part| part.contains('=')).map(String::as_str).collect();
    std::fs::write(&file, format!("# of this test\n{}\n", lines.join("\n"))).unwrap();
    let file = ["--brokers", &kafka.sasl, "--topic", &topic, "--kafka-file", file.to_str().unwrap()].map(String::from);
    can_do_all_of_it(&kafka, &env, &topic, &file);
    // A flag wins over the file.
    let wrong = [&file[..], &["--kafka".into(), "sasl.password=secret-of-others".into()]].concat();
    fails_and_names(run(&env, &["setup"], &wrong), NO_WAIT_DEADLINE, &["refuses the user or the password"]);
    env.kafka.delete(&topic);
}

#[test]
fn a_user_over_tls_can_do_all_of_it() {
    let kafka = Secured::shared();
    let env = open(&kafka);
    let topic = format!("{}_tls", env.topic);
    let user = as_user(&kafka.sasl_tls, "SCRAM-SHA-256", SCRAM_USER, &password(SCRAM_USER));
    let tls = ["--kafka".into(), "security.protocol=SASL_SSL".into(), "--kafka".into(), ca(&kafka)];
    let flags = [user, tls.to_vec(), vec!["--topic".into(), topic.clone()]].concat();
    can_do_all_of_it(&kafka, &env, &topic, &flags);
    env.kafka.delete(&topic);
}
