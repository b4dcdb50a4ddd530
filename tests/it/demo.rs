//! `demo`: all of it on one machine, without set-up, and nothing left behind.

use crate::support::demo::{Demo, directory};
use crate::support::test_env::Part;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::net::TcpListener;

/// Rows that its ClickHouse holds.
fn rows(demo: &Demo) -> i64 {
    demo.clickhouse().number("SELECT count() FROM clickstream.events")
}

#[track_caller]
fn stores(demo: &Demo, least: i64) {
    eventually(WAIT_TIMEOUT, "rows are stored", || {
        let rows = demo.clickhouse().ask("SELECT count() FROM clickstream.events").unwrap_or_default();
        is(rows.trim().parse::<i64>().is_ok_and(|rows| rows >= least), rows)
    });
}

/// The number of produced events, by the line of the stage `ack` in the report.
#[track_caller]
fn reported(demo: &Demo, stage: &str) -> i64 {
    let out = demo.program.stdout();
    let line = out.lines().find(|line| line.starts_with(stage)).unwrap_or_else(|| panic!("no {stage} in {out}"));
    line.split_whitespace().nth(1).and_then(|count| count.replace(',', "").parse().ok()).expect("a count")
}

#[test]
fn killed_it_leaves_no_process_and_no_directory_behind() {
    let _part = Part::shared();
    let dir = directory();
    let mut demo = Demo::run_in(dir.clone(), &["--port", "13100"]);
    assert_eq!(Demo::temporary(&dir).len(), 1);
    assert!(Demo::processes(&dir).len() >= 2, "a guard and a ClickHouse");
    demo.program.kill();
    eventually(WAIT_TIMEOUT, "all of its processes have ended", || {
        let left = Demo::processes(&dir);
        is(left.is_empty(), left)
    });
    assert_eq!(Demo::temporary(&dir), Vec::<String>::new());
}

#[test]
fn a_stop_drains_reports_and_removes_everything() {
    let _part = Part::shared();
    let dir = directory();
    let mut demo = Demo::run_in(dir.clone(), &["--port", "13110", "--rate", "500"]);
    let seen = || demo.json(&Demo::panel("clickstream", 4, 300))["results"][0]["data"][0][0].as_i64().unwrap_or(0);
    eventually(WAIT_TIMEOUT, "events are shown", || is(seen() > 500, seen()));
    demo.program.drains();
    let out = demo.program.stdout();
    assert!(out.contains("e2e below 1 s: "), "{out}");
    assert_eq!(reported(&demo, "ack"), reported(&demo, "e2e"), "all that was sent is stored");
    assert_eq!((Demo::temporary(&dir), Demo::processes(&dir)), (vec![], vec![]));
}

#[test]
fn a_taken_port_is_said_and_two_demos_run_side_by_side() {
    let _part = Part::shared();
    let _taken = TcpListener::bind("127.0.0.1:13120").expect("a port that no other test uses");
    let (one, other) = (Demo::start(&["--port", "13120"]), Demo::start(&["--port", "13120"]));
    assert_eq!(one.url, "http://127.0.0.1:13121");
    assert_eq!(other.url, "http://127.0.0.1:13122");
    assert!(one.program.stdout().contains("port 13120 is taken: using 13121"), "{}", one.program.stdout());
    stores(&one, 1);
    stores(&other, 1);
    let sources = |demo: &Demo| demo.clickhouse().run("SELECT DISTINCT _source FROM clickstream.events");
    assert_ne!(sources(&one), sources(&other));
}

#[test]
fn a_second_run_on_kept_data_takes_no_new_event_for_an_old_one() {
    let _part = Part::shared();
    let mut first = Demo::start(&["--port", "13130", "--rate", "200", "--for", "2s"]);
    first.program.succeeds();
    assert_eq!(reported(&first, "e2e"), 400);
    let second = Demo::start_in(first.dir.clone(), &["--port", "13130", "--rate", "200"]);
    stores(&second, 800);
    let table = second.clickhouse();
    let doubled = "SELECT count() - uniqExact(_source, _partition, _offset) FROM clickstream.events";
    assert_eq!(table.number(doubled), 0);
    let by_source = "SELECT count() FROM clickstream.events GROUP BY _source ORDER BY min(ingested_at)";
    assert_eq!(table.rows(by_source)[0], ["400"], "the first run's rows are there, and only its own");
}

#[test]
fn a_directory_in_use_is_said() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13140"]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_clickstream"))
        .args(["demo", "--port", "13145", "--data-dir"])
        .arg(demo.dir.join("data"))
        .output()
        .expect("the program was built");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains("is in use by another demo: stop it, or choose another directory"), "{said}");
}

#[test]
fn a_clickhouse_that_is_killed_comes_back_and_nothing_is_lost_or_doubled() {
    let _part = Part::shared();
    let mut demo = Demo::start(&["--port", "13150", "--rate", "300"]);
    for round in 1..=3 {
        stores(&demo, 600 * round);
        demo.kill_clickhouse();
        eventually(WAIT_TIMEOUT, "the page is told", || {
            let status = demo.json("/api/status");
            is(status["note"] == "ClickHouse ended, and is being restarted", status)
        });
        eventually(WAIT_TIMEOUT, "ClickHouse is back", || {
            let (status, text) = demo.get(&Demo::panel("clickstream", 4, 300));
            is(status == 200, text)
        });
    }
    let before = rows(&demo);
    stores(&demo, before + 300);
    let doubled = "SELECT count() - uniqExact(_source, _partition, _offset) FROM clickstream.events";
    assert_eq!(demo.clickhouse().number(doubled), 0);
    demo.program.drains();
    assert_eq!(reported(&demo, "ack"), reported(&demo, "e2e"), "all that was sent is stored");
}

#[test]
fn every_panel_of_every_board_answers_as_a_reader_who_may_not_write() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13160", "--rate", "300"]);
    stores(&demo, 300);
    let boards = demo.json("/api/dashboards");
    let mut asked = 0;
    for board in boards.as_array().expect("a list") {
        let uid = board["uid"].as_str().expect("an id");
        for panel in demo.json(&format!("/api/dashboards/{uid}"))["panels"].as_array().expect("a list") {
            let id = panel["id"].as_u64().expect("a number");
            for seconds in [300, 24 * 3_600] {
                let answer = demo.json(&Demo::panel(uid, id, seconds));
                let columns = answer["results"][0]["meta"].as_array().expect("columns").len();
                assert!(columns > 0, "{uid} {id}: {answer}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 30, "{asked} panels");
    let reader = demo.clickhouse_as("reader");
    for sql in [
        "INSERT INTO clickstream.rejected (payload) VALUES ('x')",
        "TRUNCATE TABLE clickstream.events",
        "CREATE TABLE clickstream.other (a Int8) ENGINE = Memory",
        "SELECT * FROM system.users",
        "SELECT 1 SETTINGS max_memory_usage = 0",
    ] {
        let refused = reader.ask(sql).expect_err(sql);
        assert!(["497", "164"].iter().any(|code| refused.contains(&format!("Code: {code}"))), "{sql}: {refused}");
    }
    let nobody = demo.clickhouse_as("reader").url.replace("password=", "password=x");
    let refused = crate::support::clickhouse::ClickHouse::new(&nobody).ask("SELECT 1").expect_err("a wrong password");
    assert!(refused.contains("516"), "{refused}");
}

#[test]
fn requests_for_others_or_beyond_reason_are_refused() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13170"]);
    for (path, expected) in [
        ("/", 200),
        ("/d/pipeline", 200),
        ("/assets/app.js", 200),
        ("/assets/../Cargo.toml", 404),
        ("/assets/%2e%2e%2fCargo.toml", 404),
        ("/api/dashboards/none", 404),
        ("/api/dashboards/clickstream/panels/99?from=0&to=1&width=1", 404),
        ("/api/dashboards/clickstream/panels/1", 400),
        ("/api/dashboards/clickstream/panels/1?from=5&to=1&width=100", 400),
        ("/api/dashboards/clickstream/panels/1?from=0&to=9999999999999&width=100", 400),
        ("/api/dashboards/clickstream/panels/1?from=0&to=1000&width=99999999", 400),
        ("/api/dashboards/clickstream/panels/1?from=1%20OR%201&to=2&width=100", 400),
        ("/api/dashboards/clickstream/panels/1?from=1&to=2&width=100&topic=shop.v1", 200),
        ("/api/dashboards/clickstream/panels/1?from=1&to=2&width=100&topic=%27%29%20OR%201%20--", 400),
        ("/api/dashboards/clickstream/topics?from=1&to=2", 200),
        ("/api/dashboards/none/topics?from=1&to=2", 404),
    ] {
        let (status, text) = demo.get(path);
        assert_eq!(status, expected, "{path}: {text}");
    }
    for host in ["evil.example", "localhost.evil.example:13170"] {
        assert_eq!(demo.get_as(host, "/api/dashboards").0, 403, "{host}");
    }
    let (status, headers) = demo.get_as("localhost:13170", "/");
    assert_eq!(status, 200);
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
}
