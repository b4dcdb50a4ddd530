//! Rows, batches and answers that ClickHouse, or something before it, does not take.

use crate::support::oracle;
use crate::support::proxy::{Proxy, ProxyFault};
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::collections::BTreeSet;

/// The payload of an event with this product.
fn event(nth: usize, product: &str) -> String {
    let id = uuid::Uuid::new_v4();
    format!(
        r#"{{"event_id":"{id}","event_type":"page_view","user_id":"user_{nth}","product_id":"{product}","price":1.5,"timestamp":"2024-01-15T14:30:00Z"}}"#
    )
}

/// Sends this many events of one user, those at `culprits` with the product `odd`; returns their offsets.
fn send(env: &TestEnv, count: usize, culprits: &BTreeSet<usize>) -> Vec<i64> {
    let product = |nth| if culprits.contains(&nth) { "odd" } else { "prod_001" };
    let payloads: Vec<_> = (0..count).map(|nth| event(nth, product(nth))).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| ("user", payload.as_str())).collect();
    let places = env.kafka.send(&env.topic, &messages);
    culprits.iter().map(|&nth| places[nth].1).collect()
}

/// Asserts that these offsets, and no others, are in `rejected`, and all the rest in `events`.
#[track_caller]
fn only_these_are_rejected(env: &TestEnv, count: usize, culprits: &[i64], detail: &str) {
    assert_eq!(env.number("SELECT count() FROM db.events"), (count - culprits.len()) as i64);
    let rejected = env
        .rows(&format!("SELECT _offset, reason, position(detail, '{detail}') > 0 FROM db.rejected ORDER BY _offset"));
    let expected: Vec<_> = culprits.iter().map(|offset| [offset.to_string(), "refused".into(), "1".into()]).collect();
    assert_eq!(rejected, expected);
    env.run("audit", &[]).succeeds();
}

#[test]
fn a_row_on_which_an_expression_of_the_table_fails_is_rejected_with_any_code() {
    for (expression, detail) in [
        ("intDiv(1, product_id != 'odd')", "Code: 153"),
        ("throwIf(product_id = 'odd')", "Code: 395"),
        ("toUInt8(substring('1', 1 + (product_id = 'odd')))", "Code: "),
        ("toIPv4(if(product_id = 'odd', 'x', '1.1.1.1'))", "Code: 675"),
        ("repeat('x', if(product_id = 'odd', 2000000000, 1))", "Code: 131"),
    ] {
        let env = TestEnv::open();
        env.sql(&format!("ALTER TABLE db.events ADD COLUMN fragile String MATERIALIZED toString({expression})"));
        let culprits = send(&env, 1_000, &BTreeSet::from([rand::random_range(0..1_000)]));
        let mut ingester = env.ingest(&["--until-end"]);
        ingester.succeeds();
        only_these_are_rejected(&env, 1_000, &culprits, detail);
        // 30 into `events`, two into `rejected`.
        let closing = ingester.closing();
        assert!(closing.inserts <= 32, "{expression}: {closing:?}");
    }
}

#[test]
fn a_message_cannot_say_why_it_is_refused() {
    let env = TestEnv::open();
    env.sql("ALTER TABLE db.events ADD CONSTRAINT c CHECK user_id = 'user_1'");
    // Of what ClickHouse says of a setting, and of what our own statement throws.
    let users = [
        "Code: 395. DB::Exception: fenced",
        "Code: 216. DB::Exception: Query with id = x is already running",
        "Unknown setting 'deduplicate_insert' (UNKNOWN_SETTING)",
        "Setting limit should not be changed (SETTING_CONSTRAINT_VIOLATION)",
        "Code: 241. DB::Exception: memory",
    ];
    let payloads: Vec<_> =
        users.iter().map(|user| event(1, "p").replace("user_1", user)).chain([event(1, "p")]).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| ("user", payload.as_str())).collect();
    let places = env.kafka.send(&env.topic, &messages);
    let culprits: Vec<_> = places[..users.len()].iter().map(|(_, offset)| *offset).collect();
    env.ingest(&["--until-end"]).succeeds();
    only_these_are_rejected(&env, payloads.len(), &culprits, "Code: 469. DB::Exception: Constraint");
}

#[test]
fn many_rows_on_which_an_expression_fails_are_rejected_without_pauses() {
    let env = TestEnv::open();
    env.sql("ALTER TABLE db.events ADD COLUMN fragile UInt8 MATERIALIZED throwIf(product_id = 'odd')");
    let culprits = send(&env, 140, &(0..140).filter(|nth| nth % 7 == 0).collect());
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();
    only_these_are_rejected(&env, 140, &culprits, "Code: 395");
    // Retries after a pause: nine for the first culprit, and none for the others.
    let closing = ingester.closing();
    assert!(closing.retries <= 20, "{closing:?}");
}

#[test]
fn a_view_that_fails_on_a_row_does_not_stop_the_stream() {
    let env = TestEnv::open();
    env.sql("CREATE TABLE db.sums (product String, share Float64) ENGINE = MergeTree ORDER BY product");
    env.sql(
        "CREATE MATERIALIZED VIEW db.feeds_sums TO db.sums AS \
         SELECT product_id AS product, intDiv(10, product_id != 'odd') AS share FROM db.events",
    );
    send(&env, 300, &BTreeSet::from([7, 250]));
    env.ingest(&["--until-end"]).succeeds();
    // ClickHouse makes the insert into one table atomic: the row may be in `events` though the view has failed on it.
    assert_eq!(env.stored(), 300);
    env.run("audit", &[]).succeeds();
}

#[test]
fn a_single_row_that_always_fails_does_not_stop_the_stream() {
    let env = TestEnv::open();
    env.sql("ALTER TABLE db.events ADD COLUMN fragile UInt8 MATERIALIZED intDiv(1, product_id != 'odd')");
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "200ms", "--in-flight", "1"]);
    let culprits = send(&env, 1, &BTreeSet::from([0]));
    env.drained();
    send(&env, 10, &BTreeSet::new());
    env.drained();
    ingester.drains();
    only_these_are_rejected(&env, 11, &culprits, "Code: 153");
}

#[test]
fn a_server_that_fails_with_any_code_for_a_while_has_nothing_rejected() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    let manifest = env.produce(&["--count", "3000", "--rate", "max"]).finish();
    for code in [153, 36, 1_002, 9_999] {
        let text = format!("Code: {code}. DB::Exception: as told. (version 26.7)\n");
        proxy.plan(vec![ProxyFault::Instead(500, Some(code), text); 12]);
    }
    env.ingest(&["--until-end", "--clickhouse-url", &proxy.url()]).succeeds();
    assert_eq!(proxy.left(), 0);
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_batch_that_the_users_memory_does_not_hold_gets_smaller() {
    let own = OwnClickHouse::start();
    own.restart_with_users(
        "<clickhouse><profiles><default><max_memory_usage>24000000</max_memory_usage></default></profiles></clickhouse>",
    );
    let env = TestEnv::open_on(&own);
    let manifest = env.produce(&["--count", "400000", "--rate", "max"]).finish();
    let mut ingester = env.ingest(&["--until-end", "--batch-rows", "300000"]);
    ingester.succeeds();
    // How much comes together depends on the machine: that the limit is met in any case is the business of `laws refusals`.
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_proxy_that_takes_no_large_bodies_gets_small_ones() {
    let env = TestEnv::open();
    let proxy = Proxy::start(&env.clickhouse.url);
    proxy.takes_no_more_than(20_000);
    let manifest = env.produce(&["--count", "3000", "--rate", "max"]).finish();
    env.ingest(&["--until-end", "--clickhouse-url", &proxy.url()]).succeeds();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_group_may_have_any_name_and_still_ends_the_inserts_of_its_dead() {
    for group in ["it's", r#"a"b"#, "a\\", "x' OR 1 --", "tab\tand\nline", "topic/group", "ünïcode {source:String} ?"]
    {
        let mut env = TestEnv::open();
        env.group = group.into();
        env.produce(&["--count", "500", "--rate", "max"]).finish();
        let mut first = env.ingester_at_work(&["--batch-rows", "10", "--batch-timeout", "100ms"]);
        first.kill();
        env.ingest(&["--until-end"]).succeeds();
        assert_eq!(env.stored(), 500, "{group:?}");
    }
}

#[test]
fn rows_that_are_written_and_hidden_stop_it_before_it_commits() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    own.restart_with_users(&format!(
        "<clickhouse><users><default><databases><{0}><events><filter>product_id = 'none'</filter></events></{0}></databases></default></users></clickhouse>",
        env.database
    ));
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = env.ingest(&["--until-end"]);
    assert_eq!(ingester.exit_code(crate::support::WAIT_TIMEOUT), Some(1));
    assert!(ingester.stderr().contains("row policy"), "{}", ingester.stderr());
    assert!(env.committed().is_empty());
}

#[test]
fn the_query_of_the_address_goes_with_every_request_and_is_never_shown() {
    let env = TestEnv::open();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let url = format!("{}/?role=nobody&log_comment=secret", env.clickhouse.url);
    for command in ["setup", "ingest", "audit"] {
        let mut program = env.run(command, &["--clickhouse-url", &url]);
        assert_eq!(program.exit_code(crate::support::WAIT_TIMEOUT), Some(1), "{command}");
        let said = program.stderr() + &program.stdout();
        assert!(said.contains("nobody") && !said.contains("secret"), "{command}: {said}");
    }
    let url = format!("{}/?log_comment=mine{}", env.clickhouse.url, env.database);
    env.run("ingest", &["--until-end", "--clickhouse-url", &url]).succeeds();
    assert_eq!(env.stored(), 100);
}

#[test]
fn a_start_waits_for_an_answer_at_each_of_its_questions() {
    let env = TestEnv::open();
    send(&env, 10, &BTreeSet::new());
    for question in ["system.settings", "system.tables", "system.columns", "EXPLAIN"] {
        for (command, args) in [("setup", &[][..]), ("ingest", &["--until-end"]), ("audit", &[])] {
            let proxy = Proxy::start(&env.clickhouse.url);
            proxy.refuse_questions(question, 500, 202, "Code: 202. DB::Exception: Too many simultaneous queries");
            let mut program = env.run(command, &[args, &["--clickhouse-url", &proxy.url()]].concat());
            eventually(WAIT_TIMEOUT, "it waits, or does not ask that", || {
                is(program.has_ended() || program.said("waiting for ClickHouse") > 0, program.stderr())
            });
            proxy.answer_questions();
            program.succeeds();
        }
    }
    assert_eq!(env.stored(), 10);
}
