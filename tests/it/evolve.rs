//! `ingest --evolve`: fields that a table does not name become columns.

use crate::own_table::POSITIONS;
use crate::raw::{self, Raw};
use crate::support::process::Program;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};

const EVOLVE: [&str; 5] = ["--table", "web", "--evolve", "--batch-timeout", "500ms"];

fn table(env: &TestEnv, columns: &str) {
    env.sql(&format!("CREATE TABLE db.web ({columns}, {POSITIONS}"));
}

fn message(payload: String) -> Raw {
    (Some(b"k".to_vec()), Some(payload.into_bytes()))
}

/// The columns that were added, with their types.
fn added(env: &TestEnv) -> Vec<Vec<String>> {
    env.rows(&format!(
        "SELECT name, type FROM system.columns WHERE database = '{}' AND table = 'web' AND comment LIKE 'added by %' ORDER BY name",
        env.database
    ))
}

#[track_caller]
fn gets(env: &TestEnv, columns: &[[&str; 2]]) {
    eventually(WAIT_TIMEOUT, "the table has these columns", || is(added(env) == columns, added(env)));
}

/// Each message of the topic is a row or a reject, once.
#[track_caller]
fn nothing_is_lost(env: &TestEnv) {
    env.drained();
    let ends: i64 = env.ends().values().sum();
    let stored = env.number("SELECT (SELECT count() FROM db.web) + (SELECT count() FROM db.rejected)");
    assert_eq!(stored, ends);
    assert_eq!(env.number("SELECT count() - uniqExact(_partition, _offset) FROM db.web"), 0);
    env.run("audit", &["--table", "web"]).succeeds();
}

#[test]
fn fields_become_columns_under_load_and_nothing_is_lost_or_doubled() {
    let env = TestEnv::open();
    table(&env, "event_id UUID, _unknown JSON");
    let production = env.produce(&["--rate", "300"]);
    let mut ingester = env.ingest(&EVOLVE);
    gets(
        &env,
        &[
            ["event_type", "LowCardinality(Nullable(String))"],
            ["price", "Nullable(Decimal(18, 4))"],
            ["product_id", "Nullable(String)"],
            ["timestamp", "Nullable(DateTime64(3, \\'UTC\\'))"],
            ["user_id", "Nullable(String)"],
        ],
    );
    let filled = "user_id LIKE 'user_%' AND price > 0 AND toString(_unknown) = '{}'";
    eventually(WAIT_TIMEOUT, "the columns are filled", || {
        let rows = env.number(&format!("SELECT count() FROM db.web WHERE {filled}"));
        is(rows > 300, rows)
    });
    let sent = production.stop().len() as i64;
    nothing_is_lost(&env);
    ingester.drains();
    assert_eq!(env.number("SELECT count() FROM db.web"), sent);
    // Rows from before have their fields in `_unknown`.
    let in_unknown = "isNull(user_id) AND toString(_unknown.user_id) LIKE 'user_%'";
    assert_eq!(env.number(&format!("SELECT countIf({filled}) + countIf({in_unknown}) FROM db.web")), sent);
}

/// Each sees other types in its partitions. The server decides, and both go on.
#[test]
fn two_members_never_give_a_field_two_types() {
    let env = TestEnv::open();
    table(&env, "id UInt32");
    let mut members = ["a", "b"].map(|machine| env.ingest_on(machine, &EVOLVE));
    members.iter_mut().for_each(|member| member.says("lease opened", 1));
    let send = |ids: std::ops::Range<u32>| {
        for (partition, value) in [(0, "7"), (1, "\"seven\""), (2, "[7]")] {
            let payload = |id| message(format!(r#"{{"id":{id},"x":{value}}}"#));
            raw::send(&env, partition, &ids.clone().map(payload).collect::<Vec<_>>());
        }
    };
    send(0..150);
    eventually(WAIT_TIMEOUT, "the field has one column", || is(added(&env).len() == 1, added(&env)));
    env.drained();
    send(150..300);
    nothing_is_lost(&env);
    // From then on the field is in its column, or the message is rejected for it.
    let rows = |condition: &str| env.number(&format!("SELECT count() FROM db.{condition}"));
    assert_eq!(rows("web WHERE id >= 150 AND empty(ifNull(toString(x), ''))"), 0);
    assert_eq!(rows("rejected WHERE detail NOT LIKE 'x: %'"), 0);
    assert!(rows("web WHERE id >= 150") >= 150, "one type at least fits");
    for mut member in members {
        let leases = member.stderr().matches("lease opened").count();
        assert!(leases < 12, "a column costs a lease or two: {leases}");
        member.drains();
    }
}

#[test]
fn a_table_gets_so_many_columns_and_no_more() {
    let env = TestEnv::open();
    table(&env, "id UInt32");
    let comment = "added by clickstream ingest --evolve";
    let columns: Vec<_> = (0..99).map(|nth| format!("ADD COLUMN c{nth} Nullable(UInt8) COMMENT '{comment}'")).collect();
    env.sql(&format!("ALTER TABLE db.web {}", columns.join(", ")));
    let mut ingester = env.ingester_at_work(&EVOLVE);
    let payload = |id| message(format!(r#"{{"id":{id},"p":1,"q":2}}"#));
    raw::send(&env, 0, &(0..150).map(payload).collect::<Vec<_>>());
    ingester.says("no column was added for q: --evolve has added 100 columns, which is its limit", 1);
    assert_eq!(added(&env).len(), 100);
    raw::send(&env, 0, &(150..200).map(payload).collect::<Vec<_>>());
    nothing_is_lost(&env);
    ingester.drains();
    assert_eq!(env.number("SELECT countIf(p = 1) FROM db.web WHERE id >= 150"), 50);
}

#[test]
fn without_the_right_to_alter_there_is_one_warning_and_all_is_stored() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    table(&env, "id UInt32");
    let grants = ["SHOW ON *.*", "SELECT ON *.*", "INSERT ON *.*"].map(|grant| format!("<query>GRANT {grant}</query>"));
    own.restart_with_users(&format!(
        "<clickhouse><users><writer><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
         <quota>default</quota><grants>{}</grants></writer></users></clickhouse>",
        grants.concat()
    ));
    let user = [("CLICKSTREAM_CLICKHOUSE_USER", "writer")];
    let mut ingester: Program = env.run_with("ingest", &EVOLVE, &user);
    ingester.says("lease opened", 1);
    let payload = |id| message(format!(r#"{{"id":{id},"p":1}}"#));
    raw::send(&env, 0, &(0..150).map(payload).collect::<Vec<_>>());
    let grant = format!(
        "no column was added for p: user writer may not: GRANT ALTER ADD COLUMN ON {}.web TO writer",
        env.database
    );
    ingester.says(&grant, 1);
    raw::send(&env, 0, &(150..200).map(payload).collect::<Vec<_>>());
    nothing_is_lost(&env);
    assert_eq!(env.number("SELECT count() FROM db.web"), 200);
    assert_eq!(ingester.stderr().matches("no column was added").count(), 1);
    ingester.drains();
}
