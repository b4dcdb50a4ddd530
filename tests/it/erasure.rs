//! Erased rows are deleted, and never return; no other row is touched.

use crate::raw::{self, Raw};
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::proxy::Proxy;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::path::Path;
use std::time::{Duration, Instant};

/// An event of a user.
fn event(user: &str) -> Raw {
    let json = serde_json::json!({
        "event_id": format!("{:032x}", rand::random::<u128>()), "event_type": "page_view", "user_id": user,
        "product_id": "p", "price": 1, "timestamp": "2024-01-15T14:30:00Z",
    });
    (Some(user.as_bytes().to_vec()), Some(json.to_string().into_bytes()))
}

fn message(key: &str, payload: &str) -> Raw {
    (Some(key.into()), Some(payload.into()))
}

/// An environment in which ClickHouse may rewrite parts, but merges nothing.
fn open() -> TestEnv {
    let env = TestEnv::open();
    merges(&env, "START");
    env
}

fn merges(env: &TestEnv, word: &str) {
    for table in ["events", "rejected"] {
        env.sql(&format!("SYSTEM {word} MERGES db.{table}"));
    }
}

/// Runs `erase`, which has to succeed; returns its output.
#[track_caller]
fn erase(env: &TestEnv, args: &[&str]) -> String {
    let mut erase = env.run("erase", args);
    erase.succeeds();
    erase.stdout()
}

#[track_caller]
fn fails(mut program: Program, code: i32) -> String {
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(code), "exit code; it says {}", program.stdout());
    program.stderr()
}

/// Sets the offsets of a group without members back to the topic's beginning.
fn set_back(env: &TestEnv) {
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &env.kafka.brokers)
        .set("group.id", &env.group)
        .create()
        .expect("settings that are valid");
    let mut list = TopicPartitionList::new();
    for partition in 0..env.kafka.partitions {
        list.add_partition_offset(&env.topic, partition, Offset::Offset(0)).expect("a valid offset");
    }
    group.commit(&list, CommitMode::Sync).expect("nobody is in the group");
}

/// Positions that are stored, or recorded as erased.
fn settled(env: &TestEnv) -> i64 {
    env.number(
        "SELECT uniqExact(_source, _partition, _offset) FROM (SELECT _source, _partition, _offset FROM db.events UNION ALL \
         SELECT _source, _partition, _offset FROM db.rejected UNION ALL SELECT _source, _partition, _offset FROM db.erased)",
    )
}

fn of_user(env: &TestEnv, user: &str) -> i64 {
    env.number(&format!("SELECT count() FROM db.events WHERE user_id = '{user}'"))
}

#[test]
fn erased_rows_never_return() {
    let env = open();
    let faults = ["--rate", "max", "--users", "20", "--faults", "bad=0.05"];
    env.produce(&[&faults[..], &["--count", "20000"]].concat()).finish();
    env.ingest(&["--until-end"]).succeeds();
    let (all, theirs) = (env.stored(), of_user(&env, "user_0007"));
    let rejects = env.number("SELECT count() FROM db.rejected WHERE key = 'user_0007'");
    assert!(theirs > 0 && rejects > 0);
    let said = erase(&env, &["--user", "user_0007", "--reason", "case 17"]);
    assert!(!said.contains("user_0007") && said.contains("Kafka"), "{said}");
    let gone = |what: &str| {
        assert_eq!(of_user(&env, "user_0007"), 0, "{what}");
        assert_eq!(env.number("SELECT count() FROM db.rejected WHERE key = 'user_0007'"), 0, "{what}");
        assert_eq!(env.stored(), all - theirs - rejects, "{what}: nothing else is touched");
    };
    gone("erased");
    assert_eq!(
        env.rows("SELECT DISTINCT reason, uniqExact(_partition, _offset) OVER () FROM db.erased"),
        [["case 17".to_owned(), (theirs + rejects).to_string()]]
    );

    let mut audit = env.run("audit", &["--heal"]);
    audit.succeeds();
    assert!(!audit.stdout().contains("healed"), "{}", audit.stdout());
    gone("healed");
    set_back(&env);
    env.ingest(&["--until-end"]).succeeds();
    gone("offsets set back");
    env.ingest(&["--until-end", "--group", &format!("{}-other", env.group), "--take-over", &env.group]).succeeds();
    gone("another group");
    let mut audit = env.run("audit", &["--format", "json"]);
    audit.succeeds();
    let found: serde_json::Value = serde_json::from_str(&audit.stdout()).expect("one JSON document");
    let erased = found["partitions"].as_array().unwrap().iter().map(|partition| partition["erased"].as_i64().unwrap());
    assert_eq!((erased.sum::<i64>(), &found["whole"]), (theirs + rejects, &true.into()));
}

#[test]
fn no_replay_sends_what_was_erased() {
    let env = open();
    let text = |nth: u32| format!("no json {nth}");
    let messages: Vec<_> = (0..20).map(|nth| message(["gone", "stays"][nth as usize % 2], &text(nth))).collect();
    raw::send(&env, 0, &messages);
    env.ingest(&["--until-end"]).succeeds();
    // As an erasure that was killed between its two steps leaves them.
    env.sql(
        "INSERT INTO db.erased SELECT _source, _partition, _offset, '', now64(3) FROM db.rejected WHERE key = 'gone' AND _offset < 10",
    );
    let mut list = env.run("rejects", &["--format", "json", "--limit", "100"]);
    list.succeeds();
    assert_eq!((list.stdout().lines().count(), list.stdout().matches("gone").count()), (15, 5));
    erase(&env, &["--user", "gone"]);
    env.run("rejects", &["--replay", "--yes"]).succeeds();
    let keys: Vec<_> =
        raw::read(&env).into_iter().filter(|sent| sent.replay_of.is_some()).map(|sent| sent.key).collect();
    assert_eq!(keys, vec![Some(b"stays".to_vec()); 10]);
}

#[test]
fn killed_at_any_moment_it_leaves_all_to_do_again_or_nothing() {
    let env = open();
    let count = 60_000;
    let faults = ["--rate", "max", "--users", "4", "--faults", "bad=0.05"];
    env.produce(&[&faults[..], &["--count", &count.to_string()]].concat()).finish();
    env.ingest(&["--until-end"]).succeeds();
    for user in ["user_0000", "user_0001", "user_0002"] {
        for _ in 0..4 {
            let mut program = env.run("erase", &["--user", user]);
            // The random moment is the fault.
            std::thread::sleep(Duration::from_millis(rand::random_range(0..800)));
            program.end();
            assert_eq!(settled(&env), count, "no row is deleted whose position is not recorded");
        }
        erase(&env, &["--user", user]);
        assert_eq!(of_user(&env, user), 0);
        assert_eq!(env.number(&format!("SELECT count() FROM db.rejected WHERE key = '{user}'")), 0);
        env.run("audit", &[]).succeeds();
    }
    assert_eq!(settled(&env), count);
    assert!(of_user(&env, "user_0003") > 0, "nobody else is gone");
}

#[test]
fn clickhouse_killed_at_any_moment_leaves_all_to_do_again_or_nothing() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let count = 60_000;
    env.produce(&["--rate", "max", "--users", "4", "--count", &count.to_string()]).finish();
    env.ingest(&["--until-end"]).succeeds();
    for user in ["user_0000", "user_0001", "user_0002"] {
        // A restart of ClickHouse starts merges again, too.
        merges(&env, "START");
        let mut program = env.run("erase", &["--user", user]);
        // The random moment is the fault.
        std::thread::sleep(Duration::from_millis(rand::random_range(0..800)));
        own.kill();
        own.up();
        let code = program.exit_code(WAIT_TIMEOUT);
        assert!(matches!(code, Some(0 | 1)), "it ends, and says how: {code:?}");
        assert_eq!(settled(&env), count, "no row is deleted whose position is not recorded");
        if code == Some(0) {
            assert_eq!(of_user(&env, user), 0, "it has said that they are gone");
        }
        erase(&env, &["--user", user]);
        assert_eq!(of_user(&env, user), 0);
        env.run("audit", &[]).succeeds();
    }
    assert_eq!(settled(&env), count);
}

#[test]
fn recorded_and_not_deleted_is_found_and_finished() {
    let env = open();
    raw::send(&env, 0, &[event("gone"), event("stays"), message("gone", "no json")]);
    env.ingest(&["--until-end"]).succeeds();
    merges(&env, "STOP");
    let mut killed = env.run("erase", &["--user", "gone"]);
    eventually(WAIT_TIMEOUT, "its mutation waits", || {
        let waiting = env.number(&format!(
            "SELECT count() FROM system.mutations WHERE database = '{}' AND NOT is_done",
            env.database
        ));
        is(waiting > 0, waiting)
    });
    killed.kill();
    let said = fails(env.run("audit", &[]), 1);
    assert!(said.contains("2 that were erased are stored again") && said.contains("erase --recorded"), "{said}");
    merges(&env, "START");
    erase(&env, &["--recorded"]);
    assert_eq!(env.stored(), 1);
    env.run("audit", &[]).succeeds();
}

#[test]
fn rows_that_a_backup_brings_back_are_found_and_deleted_again() {
    let env = open();
    raw::send(&env, 1, &[event("gone"), event("stays"), event("gone")]);
    env.ingest(&["--until-end"]).succeeds();
    env.sql("CREATE TABLE db.backup ENGINE = Memory AS SELECT * FROM db.events");
    erase(&env, &["--user", "gone"]);
    env.sql("INSERT INTO db.events SELECT * FROM db.backup WHERE user_id = 'gone'");
    let mut audit = env.run("audit", &[]);
    assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1));
    let out = audit.stdout();
    assert!(out.contains("erased, and stored again: 0..=0") && out.contains("again: 2..=2"), "{out}");
    assert!(out.contains("0 gaps, 0 duplicates"), "{out}");
    let said = erase(&env, &["--recorded"]);
    assert!(said.contains("2 events and 0 rejects erased"), "{said}");
    assert_eq!(env.stored(), 1);
    env.run("audit", &[]).succeeds();
}

#[test]
fn beside_running_ingesters_nothing_is_lost_or_doubled() {
    let env = open();
    let ingesters = [(); 2].map(|()| env.ingester_at_work(&["--batch-timeout", "200ms", "--batch-rows", "50"]));
    let producer = env.produce(&["--rate", "2000", "--for", "8s", "--users", "10", "--faults", "bad=0.05"]);
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        let mut program = env.run("erase", &["--user", "user_0003", "--user", "user_0005"]);
        match program.exit_code(WAIT_TIMEOUT) {
            Some(0) => {}
            code => assert!(
                code == Some(1) && program.stderr().contains("came while this was at work: run it again"),
                "{}",
                program.stderr()
            ),
        }
    }
    let sent = producer.finish().len() as i64;
    env.drained();
    erase(&env, &["--user", "user_0003", "--user", "user_0005"]);
    ingesters.into_iter().for_each(|mut ingester| ingester.drains());
    assert_eq!((of_user(&env, "user_0003"), of_user(&env, "user_0005")), (0, 0));
    let erased = env.number("SELECT uniqExact(_source, _partition, _offset) FROM db.erased");
    assert_eq!((settled(&env), env.stored() + erased), (sent, sent));
    env.run("audit", &[]).succeeds();
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let env = open();
    raw::send(&env, 0, &[event("u1"), event("u1"), event("u2"), message("u1", "no json")]);
    env.ingest(&["--until-end"]).succeeds();
    let said = erase(&env, &["--user", "u1", "--dry-run"]);
    assert!(said.contains("2 events and 1 rejects would be erased: nothing was changed"), "{said}");
    let said = erase(&env, &["--where", "user_id LIKE 'u%'", "--dry-run"]);
    assert!(said.contains("3 events (--where looks at no rejects) would be erased"), "{said}");
    assert_eq!((env.stored(), env.number("SELECT count() FROM db.erased")), (4, 0));
    let said = erase(&env, &["--user", "nobody"]);
    assert!(said.contains("nothing was found that is to be erased") && !said.contains("old parts"), "{said}");
    assert_eq!(env.stored(), 4);
}

#[test]
fn no_alias_in_a_condition_makes_it_delete_other_rows() {
    let env = open();
    let events: Vec<_> = (0..10).map(|nth| event(&format!("u{nth}"))).collect();
    for partition in 0..2 {
        raw::send(&env, partition, &events);
    }
    env.ingest(&["--until-end"]).succeeds();
    for (nth, condition) in [
        "(1 AS _partition) = 1 AND user_id = 'u0'",
        "(7 AS _offset) = 7 AND user_id = 'u1'",
        "('x' AS _source) = 'x' AND user_id = 'u2'",
        "('u9' AS user_id) = 'u9' AND price = 1 AND product_id = 'p' AND events.user_id = 'u3'",
    ]
    .into_iter()
    .enumerate()
    {
        // The condition may be refused; it must not delete other rows.
        let mut program = env.run("erase", &["--where", condition]);
        let _ = program.exit_code(WAIT_TIMEOUT);
        let others = env.number(&format!("SELECT countDistinct(user_id) FROM db.events WHERE user_id != 'u{nth}'"));
        let gone = env.number("SELECT 10 - countDistinct(user_id) FROM db.events");
        assert!(others >= 10 - nth as i64 - 1 && gone <= nth as i64 + 1, "{condition}: {}", program.stderr());
        assert_eq!(env.number("SELECT count() % 2 FROM db.events"), 0, "{condition}: both rows of a user, or none");
    }
    let left = env.rows("SELECT DISTINCT user_id FROM db.events WHERE user_id IN ('u0', 'u1', 'u2')");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_answer_alone_does_not_make_an_erasure() {
    let env = open();
    raw::send(&env, 0, &[event("u1"), event("u2")]);
    env.ingest(&["--until-end"]).succeeds();
    let url = env.clickhouse.url.clone();
    // Something takes the record, and says that all is well.
    let proxy = Proxy::start(&url);
    proxy.swallow_statements("INSERT INTO");
    let mut program = env.run("erase", &["--user", "u1", "--clickhouse-url", &proxy.url()]);
    assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1));
    let said = program.stderr();
    assert!(said.contains("nothing was deleted") && !program.stdout().contains("erased: recorded"), "{said}");
    assert_eq!((env.stored(), env.number("SELECT count() FROM db.erased")), (2, 0));
}

/// Ids that would mean something else where they were pasted into a statement.
const HOSTILE: [&str; 16] = [
    "it's",
    "' OR 1 = 1 --",
    "\\",
    "\\' OR 1 = 1 --",
    "'; TRUNCATE TABLE events; --",
    "\"; DROP TABLE x",
    "`",
    "{reason:String}",
    "a\tb",
    "a\nb",
    "\\n",
    "\\N",
    "%",
    "?",
    "ünïcödé \u{202e} 名前",
    "['a', 'b']",
];

#[test]
fn a_hostile_id_is_an_id() {
    let env = open();
    let ids: Vec<_> = HOSTILE.iter().copied().chain(["bystander", ""]).collect();
    let messages: Vec<_> = ids.iter().flat_map(|id| [event(id), message(id, "no json")]).collect();
    raw::send(&env, 0, &messages);
    env.ingest(&["--until-end"]).succeeds();
    let all = env.stored();
    assert_eq!(all, 2 * ids.len() as i64);
    for (nth, id) in HOSTILE.iter().enumerate() {
        let said = erase(&env, &["--user", id]);
        assert!(said.contains("1 events and 1 rejects erased"), "{id}: {said}");
        assert_eq!(env.stored(), all - 2 * (nth as i64 + 1), "{id}");
    }
    assert_eq!((of_user(&env, "bystander"), of_user(&env, "")), (1, 1));
    assert_eq!(fails(env.run("erase", &["--user", ""]), 2).matches("--user").count(), 1);
}

#[test]
fn a_condition_is_one_expression_or_nothing_happens() {
    let env = open();
    raw::send(&env, 0, &[event("a"), event("b -- c"), event("d"), message("d", "no json")]);
    env.ingest(&["--until-end"]).succeeds();
    for bad in [
        "",
        "1; DROP TABLE events",
        "1) OR (1",
        "1 -- x",
        "1 /* x",
        "1 # x",
        "(1",
        "'x",
        "$$) OR ($$",
        "1;",
        "\u{2018}x\u{2019} != ''",
    ] {
        let said = fails(env.run("erase", &["--where", bad]), 2);
        assert!(said.contains("--where"), "{bad}: {said}");
    }
    for wrong in ["no_such_column = 1", "user_id", "1 1", "SELECT", "user_id = ", "{x:String} = ''", "payload = 'x'"] {
        let said = fails(env.run("erase", &["--where", wrong]), 1);
        assert!(said.lines().filter(|line| line.contains("Code: ")).count() == 1, "{wrong}: {said}");
    }
    assert!(fails(env.run("erase", &[]), 2).contains("--user"));
    assert!(fails(env.run("erase", &["--user", "a", "--where", "1"]), 2).contains("--where"));
    assert_eq!((env.stored(), env.number("SELECT count() FROM db.erased")), (4, 0), "nothing happened");
    let said = erase(&env, &["--where", "user_id = 'b -- c' OR event_type = 'purchase'"]);
    assert!(said.contains("1 events (--where looks at no rejects) erased"), "{said}");
    assert_eq!(env.rows("SELECT user_id FROM db.events ORDER BY user_id"), [["a"], ["d"]]);
}

#[test]
fn rejects_that_name_the_user_are_found_in_every_form() {
    let env = open();
    let theirs = [
        message("k", r#"{"user_id":"u1","price":-1}"#),
        message("k", r#"{"user_id" : "u1", "event"#),
        message("k", r#"{"user_id":"u1"}{"user_id":"u2"}"#),
        message("k", r#"{"user_id":"u2"}{"user_id":"u1"}"#),
        message("k", r#"{"data":{"user_id":"u1"}}"#),
        message("k", r#"[{"user_id":"u2"},{"user_id":"u1"}]"#),
        message("k", "\u{feff}{\"user_id\":\"u1\",\"price\":-1}"),
        message("k", r#"{"user_id":"\u0075\u0031"}"#),
        message("u1", "anything"),
        (Some(b"u1".to_vec()), None),
    ];
    let others = [
        message("k", r#"{"user_id":"u11","price":-1}"#),
        message("k", r#"{"other_user_id":"u1"}"#),
        message("k", r#"{"user_id":1}"#),
        message("k", r#"{"user_id":["u1"]}"#),
        message("u11", ""),
    ];
    raw::send(&env, 0, &theirs);
    raw::send(&env, 1, &others);
    raw::send(&env, 2, &[message("k", r#"{"user_id":42}"#), message("k", r#"[{"user_id": 42}]"#)]);
    let headers: [(i32, &[raw::RawHeader]); 5] = [
        (0, &[("user", Some(b"u1"))]),
        (0, &[("a", None), ("context", Some(br#"{"user_id": "u1"}"#))]),
        (0, &[("a", None), ("a", Some(br#"{"who":{"user_id":"u1","#))]),
        (1, &[("u1", None), ("user", Some(b"u11"))]),
        (1, &[]),
    ];
    headers.iter().for_each(|(partition, headers)| raw::send_with(&env, *partition, message("k", ""), headers));
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.number("SELECT count() FROM db.rejected"), 22);
    erase(&env, &["--user", "u1"]);
    assert_eq!(
        env.rows("SELECT _partition, count() FROM db.rejected GROUP BY _partition ORDER BY _partition"),
        [["1", "7"], ["2", "2"]]
    );
    erase(&env, &["--user", "42"]);
    assert_eq!(env.number("SELECT count() FROM db.rejected WHERE _partition = 2"), 0);
    env.run("audit", &[]).succeeds();
}

#[test]
fn all_topics_in_the_tables_are_looked_at() {
    let env = open();
    raw::send(&env, 0, &[event("gone"), event("stays")]);
    env.ingest(&["--until-end"]).succeeds();
    // The topic is deleted and created again: another topic, and another source.
    env.kafka.delete(&env.topic);
    eventually(WAIT_TIMEOUT, "the topic is there again", || {
        let mut setup = env.run("setup", &["--connect-timeout", "1s"]);
        is(
            setup.exit_code(WAIT_TIMEOUT) == Some(0) && setup.stdout().contains("created"),
            setup.stdout() + &setup.stderr(),
        )
    });
    raw::send(&env, 0, &[event("gone"), event("gone"), event("stays"), message("gone", "")]);
    env.ingest(&["--until-end"]).succeeds();
    let sources = env.rows("SELECT DISTINCT _source FROM db.events ORDER BY ingested_at");
    assert_eq!(sources.len(), 2);
    let said = erase(&env, &["--user", "gone"]);
    assert!(said.contains(&format!("topic id {}: 1 events and 0 rejects\n", sources[0][0])), "{said}");
    assert!(said.contains(&format!("topic id {}: 2 events and 1 rejects\n", sources[1][0])), "{said}");
    assert!(said.contains("3 events and 1 rejects erased"), "{said}");
    assert_eq!((of_user(&env, "gone"), of_user(&env, "stays")), (0, 2));
}

#[test]
fn with_wait_the_bytes_have_left_the_disk() {
    let env = open();
    let user = format!("user-{:032x}", rand::random::<u128>());
    raw::send(&env, 0, &[event(&user), event("stays"), message(&user, "no json")]);
    env.ingest(&["--until-end"]).succeeds();
    for table in ["events", "rejected"] {
        env.sql(&format!("ALTER TABLE db.{table} MODIFY SETTING old_parts_lifetime = 3"));
    }
    let paths = env.rows(&format!("SELECT path FROM system.parts WHERE database = '{}'", env.database));
    let tables: Vec<_> = paths.iter().map(|path| Path::new(&path[0]).parent().expect("a table's directory")).collect();
    let on_disk = || tables.iter().map(|table| files_with(table, user.as_bytes())).sum::<usize>();
    assert!(on_disk() >= 2, "it can be found, in events and in rejected");
    let mut old = env.run("erase", &["--user", &user]);
    old.succeeds();
    assert!(old.stdout().contains("old parts that are still on this server's disk"), "{}", old.stdout());
    let said = erase(&env, &["--user", &user, "--wait"]);
    assert!(said.contains("no old part is on this server's disk"), "{said}");
    assert_eq!(on_disk(), 0, "in no part, no record and no mutation");
}

/// How many files below a directory hold these bytes.
fn files_with(dir: &Path, bytes: &[u8]) -> usize {
    let mut found = 0;
    // Parts go while this looks.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found += files_with(&path, bytes);
        } else if std::fs::read(&path).is_ok_and(|text| text.windows(bytes.len()).any(|window| window == bytes)) {
            found += 1;
        }
    }
    found
}

#[test]
fn a_database_of_before_says_to_run_setup() {
    let env = open();
    raw::send(&env, 0, &[event("u1")]);
    env.sql("DROP TABLE db.erased SYNC");
    for (command, args) in
        [("ingest", &["--until-end"][..]), ("audit", &[]), ("rejects", &[]), ("erase", &["--user", "u1"])]
    {
        let said = fails(env.run(command, args), 1);
        let line = said.lines().filter(|line| line.starts_with("clickstream: ")).collect::<Vec<_>>();
        assert!(
            line.len() == 1 && line[0].contains("erased is missing") && line[0].contains("`clickstream setup`"),
            "{command}: {said}"
        );
    }
    for word in ["created", "there"] {
        let mut setup = env.run("setup", &[]);
        setup.succeeds();
        assert!(setup.stdout().contains(&format!("tables {word}")), "{}", setup.stdout());
    }
    let manifest = env.produce(&["--count", "100", "--rate", "max"]).finish();
    env.ingest(&["--until-end"]).succeeds();
    assert_eq!(env.stored(), 1 + manifest.len() as i64);
    env.run("audit", &[]).succeeds();
    let topic = env.kafka.read(&env.topic);
    assert_eq!(oracle::unstored(&env, &topic), 0);
}

/// The program's question depends on this: it finds a row that is recorded and deleted while the question is being
/// answered.
#[test]
fn clickhouse_looks_at_the_tables_of_a_union_in_their_order() {
    let env = open();
    assert_eq!(seen_while_it_is_erased(&env, "events", "erased"), 10);
    eventually(WAIT_TIMEOUT, "the other way round, one is missed", || {
        let seen = seen_while_it_is_erased(&env, "erased", "events");
        is(seen == 9, seen)
    });
}

/// How many of ten positions are found by a question that looks at one table, pauses, and looks at the other; in the pause,
/// one of them is erased.
fn seen_while_it_is_erased(env: &TestEnv, first: &str, last: &str) -> i64 {
    env.sql("TRUNCATE TABLE db.events");
    env.sql("TRUNCATE TABLE db.erased");
    env.sql("INSERT INTO db.events (_source, _offset) SELECT 's', number FROM numbers(10)");
    // The scalar in the middle is worked out before the last table is looked at.
    let question = env.here(&format!(
        "SELECT uniqExact(_offset) FROM (SELECT _offset FROM db.{first} UNION ALL SELECT 0 WHERE (SELECT sleep(3)) = 1 \
         UNION ALL SELECT _offset FROM db.{last})"
    ));
    let clickhouse = env.clickhouse.clone();
    let asking = std::thread::spawn(move || clickhouse.number(&question));
    let running = format!("query LIKE '%{}.%sleep(3)%' AND query NOT LIKE '%processes%'", env.database);
    eventually(WAIT_TIMEOUT, "it is being read", || {
        let seen = env.number(&format!("SELECT count() FROM system.processes WHERE {running}"));
        is(seen == 1, seen)
    });
    env.sql("INSERT INTO db.erased (_source, _offset) VALUES ('s', 4)");
    env.sql(
        "ALTER TABLE db.events DELETE WHERE (_source, _partition, _offset) IN (SELECT _source, _partition, _offset \
         FROM db.erased) SETTINGS mutations_sync = 1",
    );
    asking.join().expect("an answer")
}

#[test]
fn one_user_among_a_million_rows() {
    let env = open();
    env.sql(
        "INSERT INTO db.events (event_id, event_type, user_id, product_id, price, timestamp, _source, _partition, _offset) \
         SELECT generateUUIDv4(), 'page_view', concat('user_', toString(number % 5000)), 'p', 1, now64(3), 's', number % 3, \
         intDiv(number, 3) FROM numbers(1000000)",
    );
    let began = Instant::now();
    let said = erase(&env, &["--user", "user_42"]);
    println!("note: erasing 200 rows among a million took {:.1?}", began.elapsed());
    assert!(said.contains("200 events"), "{said}");
    assert_eq!((of_user(&env, "user_42"), env.stored()), (0, 999_800));
}
