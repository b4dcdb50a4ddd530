//! The dashboards as a person sees them, in a real browser: every number is one that ClickHouse confirms.

use crate::http::free_address;
use crate::support::browser::Browser;
use crate::support::clickhouse::ClickHouse;
use crate::support::demo::Demo;
use crate::support::test_env::{Part, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// The page's promise: a line in the chart within this time.
const CHART_DEADLINE: Duration = Duration::from_secs(15);
/// A service that is away is named within 2 s; a busy machine draws a second later.
const AWAY_DEADLINE: Duration = Duration::from_secs(4);
const DESK: (u32, u32) = (1280, 900);
const TELEPHONE: (u32, u32) = (390, 844);

/// Pictures are kept, for people to look at.
fn picture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/screenshots").join(name).with_extension("png")
}

/// The value that a panel shows, by the name beside it where there is one.
fn shown(browser: &mut Browser, panel: u64, place: &str) -> f64 {
    let script = format!("Number(document.querySelector('[data-panel-id=\"{panel}\"] {place}')?.dataset.value)");
    browser.eval(&script).as_f64().unwrap_or(f64::NAN)
}

/// Queries ClickHouse, then the page, then ClickHouse again, until nothing changed in between: then both have to agree.
#[track_caller]
fn agree(browser: &mut Browser, clickhouse: &ClickHouse, sql: &str, mut read: impl FnMut(&mut Browser) -> f64) {
    let ask = || -> f64 { clickhouse.run(sql).trim().parse().unwrap_or_else(|_| panic!("{sql}: no number")) };
    let (page, table) = eventually(WAIT_TIMEOUT, "a moment in which nothing comes in", || {
        let before = ask();
        browser.eval("round()");
        let page = read(browser);
        if before == ask() { Ok((page, before)) } else { Err("rows come in") }
    });
    assert!((page - table).abs() < 1e-6, "the page says {page}, ClickHouse {table}: {sql}");
}

#[test]
fn the_page_of_a_running_demo_shows_what_clickhouse_holds() {
    let _alone = Part::whole();
    let demo = Demo::start(&["--port", "13000", "--rate", "100"]);
    let mut browser = Browser::open(&demo.url, DESK, &demo.dir);
    let rate = "Object.values(JSON.parse(document.querySelector('[data-panel-id=\"5\"] .body').dataset.last ?? '{}'))\
                .reduce((sum, value) => sum + value, 0)";
    browser.until(CHART_DEADLINE, &format!("Math.abs({rate} - 100) <= 10"));

    // The first purchase comes when it comes.
    browser.until(WAIT_TIMEOUT, "document.querySelectorAll('[data-panel-id=\"6\"] li').length === 3");
    browser.until(WAIT_TIMEOUT, "document.querySelector('[data-panel-id=\"9\"] tbody tr') !== null");

    let table = demo.clickhouse();
    for kind in ["page_view", "add_to_cart", "purchase"] {
        let sql = format!("SELECT uniqExact(event_id) FROM clickstream.events WHERE event_type = '{kind}'");
        agree(&mut browser, &table, &sql, |page| shown(page, 6, &format!("li[data-name={kind}]")));
    }
    let purchases = "FROM (SELECT DISTINCT event_id, price FROM clickstream.events WHERE event_type = 'purchase')";
    for (panel, sql) in [
        (1, format!("SELECT toFloat64(sum(price)) {purchases}")),
        (2, "SELECT uniqExact(user_id) FROM clickstream.events".into()),
        (3, format!("SELECT toFloat64(sum(price)) / count() {purchases}")),
        (4, "SELECT uniqExact(event_id) FROM clickstream.events".into()),
    ] {
        agree(&mut browser, &table, &sql, |page| shown(page, panel, ".big"));
    }
    let share = "SELECT uniqExactIf(event_id, event_type = 'purchase') / uniqExactIf(event_id, event_type = 'page_view') \
                 FROM clickstream.events";
    agree(&mut browser, &table, share, |page| shown(page, 8, "li[data-name=purchase]"));
    let best = "SELECT max(revenue) FROM (SELECT sumIf(toFloat64(price), event_type = 'purchase') AS revenue \
                FROM clickstream.events GROUP BY product_id)";
    agree(&mut browser, &table, best, |page| shown(page, 9, "tbody tr td:last-child"));

    is_pictured(&mut browser, "shop");
    browser.eval("document.querySelector('nav a[href*=\"/d/pipeline\"]').click()");
    browser.until(
        CHART_DEADLINE,
        "document.title.startsWith('Pipeline') && document.querySelectorAll('.u-wrap').length >= 5",
    );
    for (panel, sql) in [
        (1, "SELECT count() - uniqExact(_source, _partition, _offset) FROM clickstream.events"),
        (
            2,
            "SELECT max(toUnixTimestamp64Milli(ingested_at) - toUnixTimestamp64Milli(timestamp)) FROM clickstream.events",
        ),
        (3, "SELECT count() FROM clickstream.rejected"),
        (4, "SELECT count() FROM system.parts WHERE database = 'clickstream' AND table = 'events' AND active"),
        (
            11,
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'clickstream' AND table = 'rejected' AND active",
        ),
    ] {
        agree(&mut browser, &table, sql, |page| shown(page, panel, ".big"));
    }
    assert_eq!(shown(&mut browser, 1, ".big"), 0.0, "nothing is doubled");
    is_pictured(&mut browser, "pipeline");

    assert_eq!(browser.errors(), Vec::<String>::new(), "errors in the console");
    let elsewhere = |url: &String| !url.starts_with(&demo.url) && !url.starts_with("data:");
    let requests = browser.requests();
    assert!(!requests.iter().any(elsewhere), "it asks nobody else: {requests:?}");
}

/// The page fits in both widths and both colour schemes.
fn is_pictured(browser: &mut Browser, board: &str) {
    for (size, width) in [(DESK, "1280"), (TELEPHONE, "390")] {
        browser.resize(size);
        browser.until(CHART_DEADLINE, "document.documentElement.scrollWidth <= innerWidth");
        let cut = "[...document.querySelectorAll('h2, .big')].every((node) => node.scrollWidth <= node.clientWidth)";
        browser.until(CHART_DEADLINE, cut);
        for scheme in ["light", "dark"] {
            browser.scheme(scheme);
            browser.settles();
            browser.picture(&picture(&format!("{board}-{width}-{scheme}")));
        }
    }
    browser.resize(DESK);
    browser.settles();
}

/// The text of the line above the panels; empty while there is none.
const BANNER: &str = "(document.getElementById('banner').hidden ? '' : document.getElementById('banner').textContent)";

#[test]
fn a_clickhouse_that_is_away_or_back_or_restarted_is_said_at_once_and_the_last_picture_stays_grey() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13010", "--rate", "100"]);
    let mut browser = Browser::open(&demo.url, DESK, &demo.dir);
    let calm = format!("document.querySelectorAll('.u-wrap').length === 2 && {BANNER} === ''");
    browser.until(WAIT_TIMEOUT, &calm);
    let before = shown(&mut browser, 4, ".big");
    let away = format!("{BANNER}.includes(' has not answered since ')");
    let back = format!("{BANNER}.includes('ClickHouse is back since ')");

    assert!(demo.freeze_clickhouse());
    browser.until(AWAY_DEADLINE, &format!("{away} && document.querySelectorAll('.panel.old').length > 0"));
    browser.picture(&picture("clickhouse-away"));
    assert!(shown(&mut browser, 4, ".big") >= before, "the last picture stays");
    assert_eq!(browser.eval("document.querySelectorAll('.u-wrap').length"), 2, "the charts stay");
    assert!(demo.thaw_clickhouse());
    browser.until(WAIT_TIMEOUT, &back);
    browser.until(WAIT_TIMEOUT, "document.querySelectorAll('.panel.old').length === 0");

    demo.kill_clickhouse();
    browser.until(WAIT_TIMEOUT, &format!("{away} && {BANNER}.includes('ClickHouse ended, and is being restarted')"));
    browser.until(WAIT_TIMEOUT, &format!("{back} && {BANNER}.includes('ClickHouse was restarted at ')"));
    browser.picture(&picture("clickhouse-back"));
    browser.until(WAIT_TIMEOUT, &format!("{BANNER} === ''"));
    eventually(WAIT_TIMEOUT, "the count goes on", || {
        let now = shown(&mut browser, 4, ".big");
        if now > before { Ok(()) } else { Err(now) }
    });
}

/// Rows of two topics: the newest was inserted some seconds ago.
fn insert(env: &TestEnv, seconds: u32, first: u32) {
    env.sql(&format!(
        "INSERT INTO db.events (event_id, event_type, user_id, product_id, price, timestamp, _source, _partition, _offset, ingested_at) \
         SELECT generateUUIDv4(), 'page_view', 'u', 'p', 1, ingested_at - 1, if(number < 100, 'one', 'other'), 0, {first} + number, \
         now64(3) - {seconds} - intDiv(number, 10) AS ingested_at FROM numbers(300)"
    ));
}

#[test]
fn a_dead_ingester_is_red_and_no_old_figure_counts_as_present() {
    let env = TestEnv::open();
    insert(&env, 65, 0);
    let address = free_address();
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string()]);
    eventually(WAIT_TIMEOUT, "it listens", || is(dashboard.stdout().contains("dashboard at"), "not yet"));
    let mut browser = Browser::open(&format!("http://{address}/d/pipeline"), DESK, &env.dir);
    browser.until(WAIT_TIMEOUT, "document.querySelectorAll('.u-wrap').length >= 5");
    for panel in [12, 13] {
        let (age, colour) = (shown(&mut browser, panel, ".big"), colour(&mut browser, panel));
        assert!((65.0..120.0).contains(&age) && colour == "var(--bad)", "{panel}: {age} {colour}");
    }
    let legend = "document.querySelector('[data-panel-id=\"5\"] .legend').textContent";
    browser.until(WAIT_TIMEOUT, &format!("/^p50 p99 max nothing since \\d\\d:\\d\\d:\\d\\d$/.test({legend})"));
    assert_eq!(browser.eval("document.querySelector('[data-panel-id=\"7\"] .body').dataset.last"), r#"{"rows":0}"#);
    browser.until(WAIT_TIMEOUT, &format!("{BANNER}.startsWith('No row has been stored since ')"));
    browser.picture(&picture("ingester-dead"));

    let mut offset = 1_000;
    eventually(WAIT_TIMEOUT, "new rows make it green", || {
        insert(&env, 0, offset);
        offset += 1_000;
        browser.eval("round()");
        is(colour(&mut browser, 12) == "var(--good)", shown(&mut browser, 12, ".big"))
    });
    browser.until(WAIT_TIMEOUT, &format!("{BANNER}.startsWith('Rows are stored again, after ')"));
    dashboard.drains();
    browser.until(AWAY_DEADLINE, &format!("{BANNER}.startsWith('The dashboard at http')"));
    browser.picture(&picture("dashboard-away"));
}

fn colour(browser: &mut Browser, panel: u64) -> String {
    let script = format!("document.querySelector('[data-panel-id=\"{panel}\"] .big')?.style.color ?? ''");
    browser.eval(&script).as_str().unwrap_or_default().to_owned()
}

/// A page asks for the ages each few seconds, whatever the table holds.
#[test]
fn an_age_is_told_by_the_newest_parts_alone() {
    let env = TestEnv::open();
    env.sql("SYSTEM STOP MERGES db.events");
    for (seconds, rows) in [(1_800, 50_000), (20, 100)] {
        env.sql(&format!(
            "INSERT INTO db.events (event_id, event_type, user_id, product_id, price, timestamp, _source, _partition, _offset, ingested_at) \
             SELECT generateUUIDv4(), 'page_view', 'u', 'p', 1, ingested_at - 1, 'one', 0, {rows} + number, \
             now64(3) - {seconds} AS ingested_at FROM numbers({rows})"
        ));
    }
    let boards = [include_str!("../../dashboards/clickstream.json"), include_str!("../../dashboards/pipeline.json")];
    let mut seen = 0;
    for board in boards {
        let board: Value = serde_json::from_str(board).expect("JSON");
        for panel in board["panels"].as_array().expect("panels") {
            if panel["title"].as_str().is_some_and(|title| title.ends_with(", age")) {
                let sql = panel["targets"][0]["rawSql"].as_str().expect("SQL");
                let all = without_topic(
                    &sql.replace("FROM events", "FROM db.events").replace("FROM rejected", "FROM db.rejected"),
                );
                let age: f64 =
                    env.sql(&format!("{all} SETTINGS max_rows_to_read = 1000")).trim().parse().expect("an age");
                assert!((20.0..1_000.0).contains(&age), "{age}: {all}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 3);
}

/// The SQL of a panel when all topics are shown.
fn without_topic(sql: &str) -> String {
    let (end, mut sql) = (", $topic)", sql.to_owned());
    while let Some(at) = sql.find("$__conditionalAll(") {
        let length = sql[at..].find(end).expect("the end of the macro") + end.len();
        sql.replace_range(at..at + length, "1=1");
    }
    sql
}

#[test]
fn a_topic_can_be_chosen_where_a_table_holds_several() {
    let env = TestEnv::open();
    insert(&env, 10, 0);
    let address = free_address();
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string()]);
    eventually(WAIT_TIMEOUT, "it listens", || is(dashboard.stdout().contains("dashboard at"), "not yet"));
    let mut browser = Browser::open(&format!("http://{address}"), DESK, &env.dir);
    let events = "document.querySelector('[data-panel-id=\"4\"] .big')?.dataset.value";
    browser.until(WAIT_TIMEOUT, &format!("{events} === '300' && !document.getElementById('topics').hidden"));
    choose(&mut browser, "topic", "one");
    browser.until(WAIT_TIMEOUT, &format!("{events} === '100' && location.search.includes('var-topic=one')"));
    browser.reload();
    browser.until(WAIT_TIMEOUT, &format!("{events} === '100' && document.getElementById('topic').value === 'one'"));
    dashboard.drains();
}

/// Chooses a value as a reader does.
fn choose(browser: &mut Browser, id: &str, value: &str) {
    let select = format!("document.getElementById('{id}')");
    browser.eval(&format!("({select}.value = '{value}', {select}.dispatchEvent(new Event('change')))"));
}

#[test]
fn the_page_can_be_used_with_the_keyboard_and_a_legend_hides_its_series() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13020", "--rate", "200"]);
    let mut browser = Browser::open(&demo.url, TELEPHONE, &demo.dir);
    browser.until(WAIT_TIMEOUT, "document.querySelectorAll('.legend button').length >= 3");
    let focused = "document.activeElement.dataset.series ?? document.activeElement.tagName";
    eventually(WAIT_TIMEOUT, "the Tab key reaches the legend", || {
        browser.press("Tab", 9, "");
        let at = browser.eval(focused);
        if at == "purchase" { Ok(()) } else { Err(at) }
    });
    browser.press("Enter", 13, "\r");
    let pressed = "document.querySelector('[data-series=purchase]').getAttribute('aria-pressed')";
    assert_eq!(browser.eval(pressed), "false");
    assert_eq!(browser.eval(focused), "purchase", "the focus stays where it was");
    browser.eval("round()");
    assert_eq!(browser.eval(pressed), "false", "a refresh leaves it hidden");

    choose(&mut browser, "range", "now-15m");
    browser.until(WAIT_TIMEOUT, "shown.from === 'now-15m' && location.search.includes('from=now-15m')");
    browser.eval("history.back()");
    browser.until(WAIT_TIMEOUT, "shown.from === 'now-5m' && document.getElementById('range').value === 'now-5m'");
    assert_eq!(browser.errors(), Vec::<String>::new(), "errors in the console");
}

#[test]
fn a_range_that_is_dragged_over_is_shown_alone_and_its_address_shows_it_again() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13040", "--rate", "200"]);
    let mut browser = Browser::open(&demo.url, DESK, &demo.dir);
    browser.until(WAIT_TIMEOUT, "document.querySelector('[data-panel-id=\"5\"] .u-over') !== null");
    let width = "(range().to - range().from)";
    // A picture that is renewed between two events of the mouse ends the drag.
    choose(&mut browser, "refresh", "never");
    browser.eval("round()");
    let place = browser.eval("(({left, top, width}) => [left, top, width])(document.querySelector('[data-panel-id=\"5\"] .u-over').getBoundingClientRect())");
    let [left, top, across] = [0, 1, 2].map(|at| place[at].as_f64().expect("a number"));
    browser.drag((left + across * 0.25, top + 20.0), (left + across * 0.75, top + 30.0));
    browser.until(WAIT_TIMEOUT, &format!("Math.abs({width} - 150000) < 5000 && !live()"));
    let ends = browser.eval("[shown.from, shown.to]");
    browser.reload();
    browser.until(WAIT_TIMEOUT, "document.querySelector('[data-panel-id=\"4\"] .big') !== null");
    assert_eq!(browser.eval("[shown.from, shown.to]"), ends);
    browser.eval("document.getElementById('out').click()");
    browser.until(WAIT_TIMEOUT, &format!("Math.abs({width} - 300000) < 10000"));

    let typed = "document.getElementById('from').value = 'yesterday'; document.getElementById('custom').requestSubmit(); \
                 document.getElementById('from').validationMessage";
    assert_eq!(browser.eval(typed), "Write a time as 2026-01-31 14:30:00, or as now-1h");
    let typed = "document.getElementById('from').value = '2026-01-31 14:30'; document.getElementById('from').oninput(); \
                 document.getElementById('to').value = '2026-01-31 9:05:07 '; instant(document.getElementById('to').value, 0) \
                 === new Date(2026, 0, 31, 9, 5, 7).getTime()";
    assert_eq!(browser.eval(typed), Value::Bool(true));
    assert_eq!(browser.errors(), Vec::<String>::new(), "errors in the console");
}

#[test]
fn the_page_says_when_there_is_nothing_yet() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13030", "--rate", "0.01"]);
    let mut browser = Browser::open(&demo.url, DESK, &demo.dir);
    browser.until(WAIT_TIMEOUT, "document.querySelector('[data-panel-id=\"5\"]').textContent.includes('no data yet')");
    browser.picture(&picture("no-data-yet"));
    assert_eq!(browser.eval("document.getElementById('banner').hidden"), Value::Bool(true));
}
