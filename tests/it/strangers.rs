//! Other users of a demo's machine, and failures under it: nobody gets access, the demo recovers, and it ends.

use crate::support::clickhouse::ClickHouse;
use crate::support::demo::{Demo, directory};
use crate::support::test_env::Part;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The program, with nothing on its standard input.
fn clickstream(args: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clickstream"));
    command.args(args).stdin(Stdio::null());
    token.map(|token| command.env("CLICKSTREAM_DEMO_TOKEN", token));
    command.output().expect("the program was built")
}

#[track_caller]
fn stores(demo: &Demo, least: i64) {
    let count = "SELECT count() FROM clickstream.events";
    eventually(WAIT_TIMEOUT, "rows are stored", || {
        let rows = demo.clickhouse().ask(count).unwrap_or_default();
        is(rows.trim().parse::<i64>().is_ok_and(|rows| rows >= least), rows)
    });
}

/// The ports at which a process listens.
fn ports(pid: u32) -> Vec<u16> {
    let sockets = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets =
        sockets.filter_map(|socket| std::fs::read_link(socket.path()).ok()?.into_os_string().into_string().ok());
    let sockets: Vec<_> = sockets.collect();
    let tables =
        ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default());
    let lines =
        tables.iter().flat_map(|table| table.lines().skip(1)).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = lines.filter(|line| line[3] == "0A" && sockets.contains(&format!("socket:[{}]", line[9])));
    listening.filter_map(|line| u16::from_str_radix(line[1].rsplit(':').next()?, 16).ok()).collect()
}

#[test]
fn nobody_gets_into_its_clickhouse_without_a_password() {
    let _part = Part::shared();
    let demo = Demo::start(&["--port", "13200", "--rate", "200"]);
    stores(&demo, 100);
    let url = demo.clickhouse_url();
    let stop = "SYSTEM STOP LISTEN HTTP";
    for credentials in ["", "?user=default", "?user=default&max_sessions_for_user=0", "?user=default&session_id=1"] {
        let anybody = ClickHouse::new(&format!("{url}/{credentials}"));
        for sql in ["SELECT 1", stop, "KILL QUERY WHERE user = 'default'"] {
            let refused = anybody.ask(sql).expect_err("nobody comes in");
            let known = ["USER_SESSION_LIMIT_EXCEEDED", "AUTHENTICATION_FAILED"];
            assert!(known.iter().any(|code| refused.contains(code)), "{credentials}: {sql}: {refused}");
        }
    }
    // Over the native protocol such a refusal would end the server.
    let port = url.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    let listened: Vec<_> = [demo.clickhouse_pid().expect("it runs")].into_iter().flat_map(ports).collect();
    assert_eq!(listened, [port]);
    for user in ["owner", "writer", "eraser", "reader"] {
        let refused = demo.clickhouse_as(user).ask(stop).expect_err(user);
        assert!(["ACCESS_DENIED", "READONLY"].iter().any(|code| refused.contains(code)), "{user}: {refused}");
    }
    stores(&demo, 300);
}

#[test]
fn a_clickhouse_that_does_not_answer_is_said_and_started_again() {
    let _part = Part::shared();
    let mut demo = Demo::start(&["--port", "13210", "--rate", "200"]);
    stores(&demo, 200);
    assert!(demo.freeze_clickhouse());
    // Without a page that asks for anything.
    eventually(WAIT_TIMEOUT, "it is said", || {
        let status = demo.json("/api/status");
        let note = status["note"].as_str().unwrap_or_default().to_owned();
        is(status["clickhouse"] == "away" && note.contains("ClickHouse does not answer"), status)
    });
    eventually(WAIT_TIMEOUT, "it is back", || {
        let status = demo.json("/api/status");
        is(status["clickhouse"] == "up" && status["note"].is_null(), status)
    });
    let before = demo.clickhouse().number("SELECT count() FROM clickstream.events");
    stores(&demo, before + 200);
    demo.program.drains();
    assert_eq!(demo.program.said("were not stored"), 0);
}

#[test]
fn a_stop_ends_a_demo_whose_clickhouse_never_answers_and_says_what_is_left() {
    let _part = Part::shared();
    let mut demo = Demo::start(&["--port", "13220", "--rate", "200"]);
    stores(&demo, 200);
    assert!(demo.freeze_clickhouse());
    eventually(WAIT_TIMEOUT, "rows wait", || {
        let status = demo.json("/api/status");
        is(status["clickhouse"] == "away", status)
    });
    demo.program.term();
    eventually(Duration::from_secs(30), "it has ended", || {
        // The next one that is started is frozen as well.
        demo.freeze_clickhouse();
        is(demo.program.has_ended(), "it runs")
    });
    let said = demo.program.stderr();
    assert!(said.contains("the drain took longer than 10 s") && said.contains("events were not stored"), "{said}");
}

#[test]
fn the_hidden_subcommands_touch_nothing_that_their_demo_has_not_marked() {
    let _part = Part::shared();
    let dir = directory();
    let precious = dir.join("precious");
    std::fs::write(&precious, "").expect("a directory of the test");
    let (dir_name, file_name) = (dir.to_str().expect("plain names"), precious.to_str().expect("plain names"));
    for args in [
        &["guard", dir_name][..],
        &["guard", "--remove", dir_name],
        &["guard", "--remove", dir_name, "--", "true"],
        &["guard", "--", "rm", file_name],
        &["libchdb", dir_name],
        &["libchdb", "/usr/lib/libssl.so"],
    ] {
        for token in [None, Some("")] {
            assert!(!clickstream(args, token).status.success(), "{args:?}");
            assert!(precious.exists(), "{args:?}");
        }
    }

    // Nor what another demo has marked.
    let demo = Demo::run_in(dir.clone(), &["--port", "13230"]);
    let home = dir.join(&Demo::temporary(&dir)[0]);
    for command in ["guard", "libchdb"] {
        for token in [None, Some(""), Some("0123456789abcdef0123456789abcdef")] {
            let ended = clickstream(&[command, home.to_str().expect("plain names")], token);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(1));
            assert!(said.contains("nothing was done: ") && said.contains("another demo"), "{said}");
        }
    }
    assert!(home.join("clickhouse.xml").exists());
    assert_eq!(demo.get("/").0, 200);
}

/// A library that leaves a file behind when it is loaded.
fn build_library(library: &Path, left_behind: &Path) {
    let source = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void f(void) {{ open(\"{}\", O_CREAT, 0600); }}\n",
        left_behind.display()
    );
    let file = library.with_extension("c");
    std::fs::create_dir_all(library.parent().expect("a directory")).expect("a directory of the test");
    std::fs::write(&file, source).expect("a directory of the test");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(library).arg(&file).status();
    assert!(built.expect("a C compiler").success());
}

#[test]
fn a_library_that_is_not_the_pinned_one_is_not_loaded() {
    let _part = Part::shared();
    let (dir, script) = (directory(), include_str!("../../ci/clickhouse.sh"));
    let version = script.split("libchdb_version=").nth(1).and_then(|rest| rest.lines().next()).expect("a version");
    let (library, loaded) = (dir.join(format!("lib-linux-x64-gnu-{version}/libchdb.so")), dir.join("loaded"));
    build_library(&library, &loaded);
    let demo = Command::new(env!("CARGO_BIN_EXE_clickstream"))
        .args(["demo", "--port", "13240", "--for", "1s"])
        .env("CLICKSTREAM_CACHE", &dir)
        .env("CLICKSTREAM_CLICKHOUSE", "embedded")
        .env("TMPDIR", &dir)
        .output()
        .expect("the program was built");
    let said = String::from_utf8_lossy(&demo.stderr).into_owned();
    assert_eq!(demo.status.code(), Some(1));
    assert!(said.contains("libchdb.so was not loaded: it is not the pinned ClickHouse"), "{said}");
    assert!(!loaded.exists(), "it was loaded");
    assert_eq!(Demo::temporary(&dir), Vec::<String>::new());
    let _ = std::fs::remove_dir_all(&dir);
}
