//! The dashboards as a person sees them, in a real browser: every number is one that ClickHouse confirms.

use crate::support::browser::Browser;
use crate::support::clickhouse::ClickHouse;
use crate::support::demo::Demo;
use crate::support::test_env::Part;
use crate::support::{WAIT_TIMEOUT, eventually};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// The page's promise: a line in the chart within this time.
const CHART_DEADLINE: Duration = Duration::from_secs(15);
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
    browser.eval("document.querySelector('nav a[href=\"/d/pipeline\"]').click()");
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
        for scheme in ["light", "dark"] {
            browser.scheme(scheme);
            browser.settles();
            browser.picture(&picture(&format!("{board}-{width}-{scheme}")));
        }
    }
    browser.resize(DESK);
    browser.settles();
}

#[test]
fn a_clickhouse_that_is_away_is_said_and_the_last_picture_stays() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13010", "--rate", "100"]);
    let mut browser = Browser::open(&demo.url, DESK, &demo.dir);
    browser.until(
        WAIT_TIMEOUT,
        "document.querySelectorAll('.u-wrap').length === 2 && document.getElementById('banner').hidden",
    );
    let before = shown(&mut browser, 4, ".big");
    demo.kill_clickhouse();
    browser.until(
        WAIT_TIMEOUT,
        "(round(), document.getElementById('banner').textContent.includes('does not answer since'))",
    );
    browser.picture(&picture("clickhouse-away"));
    assert!(shown(&mut browser, 4, ".big") >= before, "the last picture stays");
    assert_eq!(browser.eval("document.querySelectorAll('.u-wrap').length"), 2, "the charts stay");
    browser.until(WAIT_TIMEOUT, "document.getElementById('banner').textContent === 'ClickHouse is back'");
    browser.picture(&picture("clickhouse-back"));
    browser.until(WAIT_TIMEOUT, "document.getElementById('banner').hidden");
    eventually(WAIT_TIMEOUT, "the count goes on", || {
        let now = shown(&mut browser, 4, ".big");
        if now > before { Ok(()) } else { Err(now) }
    });
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

    browser.eval("(document.getElementById('range').value = '300', document.getElementById('range').onchange())");
    browser.until(WAIT_TIMEOUT, "page.range === 300");
    assert_eq!(browser.errors(), Vec::<String>::new(), "errors in the console");
    let ranges = browser.eval("[...document.getElementById('range').options].map((option) => Number(option.value))");
    assert_eq!(ranges, serde_json::json!([300, 900, 3600, 21600, 86400]));
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
