//! Somebody else answers in the place of ClickHouse: no command hangs, takes memory without end, or lets the answer write to the
//! terminal.

use crate::support::listener::Listener;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The memory of a container of Compose.
const MEMORY_MB: u64 = 256;

/// Every command that asks ClickHouse something, as it is run here.
const COMMANDS: [&[&str]; 5] =
    [&["setup"], &["ingest", "--until-end"], &["audit"], &["rejects"], &["erase", "--user", "u", "--dry-run"]];

/// Moves the cursor, rings, begins a line of its own, turns text around; also with a C1 control.
const HARMFUL: &str = "\u{1b}[2J\u{7}\r\u{9b}31m\u{202e}evil\u{2028}\u{85}";

/// The answer of a server in place of ClickHouse, repeated without end if it likes.
type Answer = fn(&mut TcpStream) -> std::io::Result<()>;

fn endless(head: &str, first: &[u8], more: &[u8], stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    stream.write_all(first)?;
    let more = more.repeat(64 * 1024 / more.len());
    loop {
        stream.write_all(&more)?;
    }
}

fn whole(status: u16, code: &str, body: &[u8], stream: &mut TcpStream) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} No\r\n{code}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

const ANSWERS: [(&str, Answer); 10] = [
    ("an endless error", |stream| {
        endless("HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", b"Code: 241. DB::Exception: ", b"x", stream)
    }),
    ("an endless head", |stream| endless("HTTP/1.1 200 OK\r\nX-A: ", b"", b"x", stream)),
    ("headers without end", |stream| endless("HTTP/1.1 200 OK\r\n", b"", b"X-A: b\r\n", stream)),
    // One column `n` of numbers, as ClickHouse's format RowBinaryWithNamesAndTypes has it.
    ("endless rows", |stream| endless(OK, b"\x01\x01n\x05Int64", &[7; 8], stream)),
    // One column of texts, the first of which has 2^62 bytes.
    ("an endless text", |stream| endless(OK, b"\x01\x01n\x06String\x80\x80\x80\x80\x80\x80\x80\x80\x40", b"x", stream)),
    // Bytes that a format with lengths would take for billions of columns.
    ("garbage", |stream| whole(200, "", b"\x80\x80\x80\x80\x80\x40\n", stream)),
    ("more garbage", |stream| whole(200, "", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", stream)),
    ("an endless result of a page", |stream| endless(OK, br#"{"meta":[],"data":{"n":[1"#, b",1", stream)),
    ("an error that writes to the terminal", |stream| {
        whole(
            500,
            "X-ClickHouse-Exception-Code: 60\r\n",
            format!("Code: 60. DB::Exception: {HARMFUL}").as_bytes(),
            stream,
        )
    }),
    ("a page that writes to the terminal", |stream| {
        whole(404, "", format!("<title>{HARMFUL}</title>").as_bytes(), stream)
    }),
];

/// Answers every request.
fn impostor(answer: Answer) -> Listener {
    Listener::open(move |mut stream| {
        let mut head = [0; 16 * 1024];
        // The program goes away when it has enough.
        let _ = stream.read(&mut head).and_then(|_| answer(&mut stream));
    })
}

#[track_caller]
fn nothing_harmful(what: &str, text: &str) {
    let harmful = |c: &char| *c != '\n' && (c.is_control() || HARMFUL.contains(*c) && !c.is_ascii());
    assert_eq!(text.chars().find(harmful), None, "{what}: {text:?}");
}

#[test]
fn a_server_in_place_of_clickhouse_gets_no_memory_and_no_terminal() {
    let env = TestEnv::open();
    env.produce(&["--count", "10", "--rate", "max"]).finish();
    for (what, answer) in ANSWERS {
        let listener = impostor(answer);
        let url = format!("http://{}", listener.address);
        for command in COMMANDS {
            let args = [&command[1..], &["--clickhouse-url", &url, "--connect-timeout", "1s"]].concat();
            let mut program = env.run(command[0], &args);
            let peak = program.peak_memory_mb_at_its_end(WAIT_TIMEOUT);
            let what = format!("{what}, {}", command[0]);
            assert_eq!(program.exit_code(WAIT_TIMEOUT), Some(1), "{what}");
            assert!(peak < MEMORY_MB, "{what}: {peak} MB");
            nothing_harmful(&what, &(program.stdout() + &program.stderr()));
        }
    }
    assert!(env.committed().is_empty());
}

#[test]
fn no_panel_shows_an_answer_without_end() {
    let env = TestEnv::bare();
    for (what, answer) in ANSWERS {
        let listener = impostor(answer);
        let url = format!("http://{}", listener.address);
        let args = ["--listen", "127.0.0.1:0", "--clickhouse-url", &url];
        let mut pages = env.run("dashboard", &args);
        let address = eventually(WAIT_TIMEOUT, "it says where the pages are", || {
            let said = pages.stdout();
            said.trim().strip_prefix("dashboard at ").map(str::to_owned).ok_or(said)
        });
        let panel = format!("{address}/api/dashboards/clickstream/panels/1?from=0&to=1000&width=100");
        let refused = ureq::get(&panel).config().http_status_as_error(false).build().call();
        let mut refused = refused.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(refused.status().is_server_error(), "{what}: {}", refused.status());
        nothing_harmful(what, &refused.body_mut().read_to_string().unwrap());
        let peak = pages.peak_memory_mb();
        assert!(peak < MEMORY_MB, "{what}: {peak} MB");
        pages.drains();
    }
}

#[test]
fn nothing_that_is_printed_writes_to_the_terminal() {
    let env = TestEnv::open();
    for status in [200, 503] {
        let listener = Listener::open(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]).and_then(|_| whole(status, "", HARMFUL.as_bytes(), &mut stream));
        });
        let mut health = env.run("health", &["--metrics", &listener.address.to_string()]);
        assert_eq!(health.exit_code(WAIT_TIMEOUT), Some(i32::from(status != 200)));
        nothing_harmful("health", &(health.stdout() + &health.stderr()));
    }
    let field = format!(r#"{{"event_type":{}}}"#, serde_json::json!(HARMFUL));
    env.kafka.send(&env.topic, &[(HARMFUL, HARMFUL), ("k", &field)]);
    env.ingest(&["--until-end"]).succeeds();
    for args in [&[][..], &["--format", "json"]] {
        let mut rejects = env.run("rejects", args);
        rejects.succeeds();
        nothing_harmful("rejects", &rejects.stdout());
    }
}
