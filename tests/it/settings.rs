//! Foreign settings profiles: no setting changes stored rows, and a setting that they forbid is reported at the start.

use crate::errors::fails_and_names;
use crate::pins::{PINS, Statements};
use crate::reviewed;
use crate::support::oracle;
use crate::support::process::Program;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{SHORT_SESSION, WAIT_TIMEOUT, eventually, is};

/// A user, with a profile of the same name.
struct User {
    name: String,
    /// Of the profile.
    settings: Vec<(String, String)>,
    /// Those of them that may not be changed.
    constant: bool,
    /// The part of a table that the user may see.
    filter: Option<(String, String, String)>,
}

impl User {
    fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), settings, constant: false, filter: None }
    }

    fn constant(self) -> Self {
        Self { constant: true, ..self }
    }

    fn xml(&self) -> (String, String) {
        let Self { name, settings, .. } = self;
        let filter = self.filter.as_ref().map_or(String::new(), |(database, table, filter)| {
            format!("<databases><{database}><{table}><filter>{filter}</filter></{table}></{database}></databases>")
        });
        let user = format!(
            "<{name}><password></password><networks><ip>127.0.0.1</ip></networks><profile>{name}</profile>\
             <quota>default</quota>{filter}</{name}>"
        );
        let values: String = settings.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
        let constraints: String = settings.iter().map(|(name, _)| format!("<{name}><const/></{name}>")).collect();
        let constraints =
            if self.constant { format!("<constraints>{constraints}</constraints>") } else { String::new() };
        (user, format!("<{name}>{values}{constraints}</{name}>"))
    }
}

fn restart_with(own: &OwnClickHouse, users: &[User]) {
    let (users, profiles): (Vec<_>, Vec<_>) = users.iter().map(User::xml).unzip();
    own.restart_with_users(&format!(
        "<clickhouse><users>{}</users><profiles>{}</profiles></clickhouse>",
        users.concat(),
        profiles.concat()
    ));
}

fn run_as(env: &TestEnv, user: &str, command: &str, args: &[&str]) -> Program {
    env.run_with(command, args, &[("CLICKSTREAM_CLICKHOUSE_USER", user)])
}

/// Each kind of harm, by settings that do it where nothing is pinned.
fn hostile(database: &str) -> Vec<User> {
    let filter = format!("{{'{database}.events':'_offset > 100','{database}.rejected':'_offset > 100'}}");
    vec![
        User::new("limits", &[("limit", "100")]),
        User::new("skips", &[("offset", "7")]),
        User::new("halves", &[("additional_result_filter", "rand() % 2 = 0")]),
        User::new("filters", &[("additional_table_filters", &filter), ("final", "1"), ("apply_deleted_mask", "0")]),
        User::new(
            "breaks",
            &[
                ("max_rows_to_read", "100"),
                ("max_rows_to_read_leaf", "100"),
                ("max_rows_in_distinct", "3"),
                ("max_rows_to_group_by", "3"),
                ("max_result_rows", "1"),
                ("read_overflow_mode", "break"),
                ("read_overflow_mode_leaf", "break"),
                ("distinct_overflow_mode", "break"),
                ("group_by_overflow_mode", "any"),
                ("result_overflow_mode", "break"),
            ],
        ),
        User::new("hurries", &[("max_execution_time", "0.001"), ("timeout_overflow_mode", "break")]),
        User::new(
            "remembers",
            &[
                ("use_query_cache", "1"),
                ("query_cache_nondeterministic_function_handling", "save"),
                ("query_cache_system_table_handling", "save"),
                ("query_cache_for_subqueries", "1"),
                ("query_cache_ttl", "3600"),
            ],
        ),
        User::new(
            "retypes",
            &[
                ("data_type_default_nullable", "1"),
                ("aggregate_functions_null_for_empty", "1"),
                ("empty_result_for_aggregation_by_empty_set", "1"),
                ("output_format_binary_encode_types_in_binary_format", "1"),
                ("input_format_binary_decode_types_in_binary_format", "1"),
                ("format_binary_max_string_size", "4"),
                ("inject_random_order_for_select_without_order_by", "1"),
                ("http_response_headers", "{'Transfer-Encoding':'gzip'}"),
            ],
        ),
        User::new(
            "splits",
            &[
                ("async_insert", "1"),
                ("wait_for_async_insert", "0"),
                ("max_block_size", "100"),
                ("max_insert_block_size", "100"),
                ("min_insert_block_size_rows", "50"),
                ("max_insert_threads", "4"),
                ("use_strict_insert_block_limits", "1"),
                ("input_format_max_block_size_bytes", "10000"),
            ],
        ),
        User::new("repeats_a_token", &[("insert_deduplication_token", "x"), ("deduplicate_insert", "enable")]),
        User::new(
            "shares",
            &[
                ("allow_experimental_parallel_reading_from_replicas", "1"),
                ("max_parallel_replicas", "2"),
                ("parallel_replicas_mode", "custom_key_sampling"),
                ("parallel_replicas_custom_key", "_offset"),
                ("parallel_replicas_count", "2"),
                ("parallel_replicas_for_non_replicated_merge_tree", "1"),
                ("cluster_for_parallel_replicas", "default"),
            ],
        ),
        User::new("is_old", &[("compatibility", "21.3"), ("allow_experimental_analyzer", "0")]),
        User::new(
            "insists",
            &[
                ("force_primary_key", "1"),
                ("force_index_by_date", "1"),
                ("force_optimize_projection_name", "none"),
                ("max_query_size", "10"),
                ("max_ast_depth", "3"),
                ("max_temporary_columns", "3"),
                ("min_execution_speed", "1000000000"),
                ("timeout_before_checking_execution_speed", "0"),
                ("dialect", "kusto"),
                ("allow_experimental_kusto_dialect", "1"),
            ],
        ),
    ]
}

#[test]
fn no_profile_has_rows_lost_or_doubled() {
    let own = OwnClickHouse::start();
    let shops: Vec<_> = hostile("").iter().map(|_| TestEnv::open_on(&own)).collect();
    let users: Vec<_> = shops.iter().enumerate().map(|(nth, env)| hostile(&env.database).remove(nth)).collect();
    restart_with(&own, &users);
    // Most of the time is spent waiting for sessions to end.
    for some in shops.iter().zip(&users).collect::<Vec<_>>().chunks(4) {
        std::thread::scope(|scope| {
            for (env, user) in some {
                scope.spawn(|| keeps_its_promises(env, &user.name));
            }
        });
    }
}

/// A drain that is killed, and killed again, and done; then all of it once more, with offsets set back.
fn keeps_its_promises(env: &TestEnv, user: &str) {
    const SMALL: [&str; 6] = ["--batch-rows", "150", "--in-flight", "2", "--batch-timeout", "600ms"];
    // Else no token would be looked at.
    env.sql("ALTER TABLE db.events MODIFY SETTING non_replicated_deduplication_window = 100");
    let mut manifest = env.produce(&["--count", "1500", "--rate", "max", "--faults", "bad=0.02"]).finish();
    for kill in 1..=2 {
        let mut victim = run_as(env, user, "ingest", &[&SMALL[..], &SHORT_SESSION].concat());
        eventually(WAIT_TIMEOUT, "some rows are stored", || is(env.stored() >= kill * 300, env.stored()));
        victim.kill();
    }
    let mut ingester = run_as(env, user, "ingest", &["--until-end"]);
    ingester.succeeds();
    env.kafka.set_back(&env.topic);
    manifest.extend(env.produce(&["--count", "1500", "--rate", "max"]).finish());
    let before = parts(env);
    let mut again = run_as(env, user, "ingest", &["--until-end", "--batch-rows", "500"]);
    again.succeeds();
    let closing = again.closing();
    assert_eq!(closing.before, 1_500, "{user}: what was stored is found: {closing:?}");
    assert_eq!(parts(env) - before, closing.inserts as i64, "{user}: each insert is one part: {closing:?}");
    oracle::exactly_once(env, &manifest);
    run_as(env, user, "audit", &[]).succeeds();
    let row = env.rows("SELECT _partition, _offset FROM db.events LIMIT 1").remove(0);
    env.sql(&format!(
        "INSERT INTO db.events SELECT * FROM db.events WHERE _partition = {} AND _offset = {}",
        row[0], row[1]
    ));
    fails_and_names(
        run_as(env, user, "audit", &[]),
        &["0 committed messages are missing", "1 are stored more than once"],
    );
    let mut rejects = run_as(env, user, "rejects", &["--format", "json", "--limit", "1000"]);
    rejects.succeeds();
    let bad = manifest.iter().filter(|line| line.bad().is_some()).count();
    assert_eq!(rejects.stdout().lines().count(), bad, "{user}: all rejects are listed");
}

/// How many parts both tables have.
fn parts(env: &TestEnv) -> i64 {
    let of_rows = "active AND table IN ('events', 'rejected')";
    env.number(&format!("SELECT count() FROM system.parts WHERE {of_rows} AND database = '{}'", env.database))
}

/// Another value than the pinned one, of the same type.
fn another(name: &str, pinned: &str) -> String {
    match (name, pinned) {
        ("compatibility", _) => "24.3".into(),
        ("dialect", _) => "kusto".into(),
        ("deduplicate_insert", _) => "enable".into(),
        ("deduplicate_insert_select", _) => "force_enable".into(),
        ("additional_table_filters" | "http_response_headers", _) => "{'X-Some':'1'}".into(),
        (_, "throw") => "break".into(),
        (_, "") => "x".into(),
        (_, number) => (number.parse::<i64>().expect("a number") ^ 1).to_string(),
    }
}

/// All names of settings that our statements bring.
fn pinned() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    // This one is a parameter of HTTP, which no profile has.
    PINS.iter().flat_map(|pins| pins.settings).filter(|(name, _)| *name != "wait_end_of_query")
}

#[test]
fn a_profile_that_forbids_to_pin_a_setting_is_refused_by_the_settings_name() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let constant = |name: &str, value: &str| User::new(&format!("no_{name}"), &[(name, value)]).constant();
    let mut users: Vec<_> = pinned().map(|(name, value)| constant(name, &another(name, value))).collect();
    // One that agrees forbids nothing.
    let ours = PINS.iter().filter(|pins| pins.of != Statements::Questions).flat_map(|pins| pins.settings).copied();
    // The first is no setting, and the other one differs between inserts and questions.
    let ours = ours.filter(|(name, _)| !["wait_end_of_query", "max_execution_time"].contains(name));
    let ours: Vec<_> = ours.collect();
    users.push(User::new("agrees", &ours).constant());
    users.push(User::new("limited", &[("max_rows_to_read", "1000")]).constant());
    users.push(User::new("reader", &[("readonly", "1")]));
    users.push(User::new("careful_reader", &[("readonly", "2")]));
    restart_with(&own, &users);
    env.produce(&["--count", "100", "--rate", "max", "--faults", "bad=0.1"]).finish();

    for some in pinned().collect::<Vec<_>>().chunks(4) {
        let user = |name: &str| format!("no_{name}");
        let started: Vec<_> =
            some.iter().map(|(name, _)| run_as(&env, &user(name), "ingest", &["--until-end"])).collect();
        for (program, (name, _)) in started.into_iter().zip(some) {
            fails_and_names(program, &[&user(name), &format!(" {name} = "), "--clickhouse-user"]);
        }
    }
    for command in ["setup", "ingest", "audit", "rejects"] {
        let says = ["user limited may not set max_rows_to_read = 0", "nothing more would be stored", "constraint"];
        fails_and_names(run_as(&env, "limited", command, &[]), &says);
        fails_and_names(run_as(&env, "reader", command, &[]), &["user reader", "readonly = 2"]);
    }
    for command in ["setup", "ingest"] {
        fails_and_names(run_as(&env, "careful_reader", command, &[]), &["user careful_reader", "readonly = 2"]);
    }
    assert_eq!(env.stored(), 0);
    assert!(env.committed().is_empty(), "nothing is committed");
    run_as(&env, "agrees", "ingest", &["--until-end"]).succeeds();
    for command in ["audit", "rejects"] {
        run_as(&env, "careful_reader", command, &[]).succeeds();
    }
    assert_eq!(env.stored(), 100);
}

#[test]
fn a_row_policy_that_hides_rows_is_refused() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let filter = |table: &str, filter: &str| Some((env.database.clone(), table.to_owned(), filter.to_owned()));
    restart_with(
        &own,
        &[
            User { filter: filter("events", "_offset != 7"), ..User::new("hides_events", &[]) },
            User { filter: filter("rejected", "0"), ..User::new("hides_rejects", &[]) },
            User { filter: filter("events", "1"), ..User::new("hides_none", &[]) },
        ],
    );
    // In an empty table it cannot be seen; there the first insert is read back.
    env.produce(&["--count", "300", "--rate", "max", "--faults", "bad=0.1"]).finish();
    run_as(&env, "hides_none", "ingest", &["--until-end"]).succeeds();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let before = env.committed();
    for command in ["ingest", "audit", "rejects"] {
        fails_and_names(run_as(&env, "hides_events", command, &[]), &["row policy", &env.here("db.events")]);
        fails_and_names(run_as(&env, "hides_rejects", command, &[]), &["row policy", &env.here("db.rejected")]);
    }
    assert_eq!((env.stored(), env.committed()), (300, before), "nothing more is stored or committed");
    run_as(&env, "hides_none", "ingest", &["--until-end"]).succeeds();
    run_as(&env, "hides_none", "audit", &[]).succeeds();
}

#[test]
fn each_setting_of_this_server_that_sounds_dangerous_is_pinned_or_reviewed() {
    let env = TestEnv::open();
    let names = env.rows("SELECT name FROM system.settings WHERE NOT is_obsolete ORDER BY name");
    let names: Vec<_> = names.into_iter().map(|mut row| row.remove(0)).collect();
    let sounds_dangerous = |name: &&String| reviewed::SUSPICIOUS.iter().any(|word| name.contains(word));
    let is_pinned = |name: &str| pinned().any(|(pinned, _)| *pinned == name);
    let new: Vec<_> =
        names.iter().filter(sounds_dangerous).filter(|name| !is_pinned(name) && !reviewed::is_left(name)).collect();
    assert!(new.is_empty(), "neither in src/clickhouse/pins.rs nor in tests/it/reviewed.rs: {new:?}");
}
