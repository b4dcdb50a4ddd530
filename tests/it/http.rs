//! Requests that were made to hurt, at the two things that serve HTTP: whatever comes, they answer the next one, in bounded
//! memory, and give away nothing that is not theirs.

use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Requests of each kind of nonsense.
const REQUESTS: usize = 1_500;
/// The longest time until an answer, on a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most memory of either process: the dashboard holds no answer larger than 16 MB.
const MEMORY_MB: u64 = 128;

pub fn free_address() -> SocketAddr {
    // Another process may take it meanwhile: then the program says so, and the test fails.
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Sends bytes, whatever they are, and nothing more; returns the answer, empty where the connection was closed without one.
fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // A client that is refused early finds the connection closed while it still writes.
    let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    answer(stream)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, RESPONSE_TIMEOUT).expect("it listens");
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(RESPONSE_TIMEOUT)).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

pub fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
}

/// A good request, on a connection that stays open until it is answered.
pub fn get(address: SocketAddr, target: &str) -> Vec<u8> {
    get_from(address, "localhost", target)
}

fn get_from(address: SocketAddr, host: &str, target: &str) -> Vec<u8> {
    let mut stream = connect(address);
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it takes a short request");
    answer(stream)
}

fn bytes(rng: &mut StdRng, most: usize) -> Vec<u8> {
    (0..rng.random_range(0..most)).map(|_| rng.random()).collect()
}

/// A request target out of pieces that mean something, and some that should not.
fn target(rng: &mut StdRng) -> String {
    const PIECES: [&str; 40] = [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/d/",
        "/assets/",
        "/api/dashboards",
        "/api/status",
        "clickstream",
        "pipeline",
        "/panels/",
        "1",
        "-1",
        "4294967296",
        "99999999999999999999",
        "?",
        "&",
        "=",
        "from=",
        "to=",
        "width=",
        "0",
        "9223372036854775807",
        "-9223372036854775808",
        "%00",
        "%2e%2e",
        "..",
        "../../etc/passwd",
        "%ff",
        "%",
        "%zz",
        "'",
        "\"",
        ";DROP TABLE events",
        "{uid}",
        "\u{202e}",
        "é",
        "\\",
        "*",
        "http://evil.example/",
    ];
    let target: String = (0..rng.random_range(1..9)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect();
    target.replace(' ', "+")
}

fn request(rng: &mut StdRng) -> Vec<u8> {
    const METHODS: [&str; 8] = ["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "\u{1}"];
    let mut request =
        format!("{} {} HTTP/1.1\r\n", METHODS[rng.random_range(0..METHODS.len())], target(rng)).into_bytes();
    for _ in 0..rng.random_range(0..6) {
        const NAMES: [&str; 8] = [
            "Host",
            "Host: localhost\r\nX",
            "Content-Length",
            "Transfer-Encoding: chunked\r\nX",
            "Range",
            "Cookie",
            "Expect",
            "",
        ];
        request.extend(NAMES[rng.random_range(0..NAMES.len())].as_bytes());
        request.extend(b": ");
        request.extend(bytes(rng, 60));
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    request.extend(bytes(rng, 100));
    request
}

/// Attacks one server; `home` is a target that it answers with 200.
fn attack(address: SocketAddr, home: &str, program: &Program) {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..REQUESTS {
        ask(address, &bytes(&mut rng, 300));
        let answer = ask(address, &request(&mut rng));
        assert!(!answer.windows(5).any(|part| part == b"root:"), "a file of the machine");
        let target = target(&mut rng);
        let code = status(&get(address, &target));
        assert!(code.is_none_or(|code| code < 500 || code == 503), "{code:?} to {target}");
    }
    // A target and headers that are far too long, far too many headers, and an unwanted body.
    let long = "a".repeat(2_000_000);
    let many = "X: y\r\n".repeat(100_000);
    for head in [
        format!("GET /{long} HTTP/1.1\r\n"),
        format!("GET / HTTP/1.1\r\nX: {long}\r\n"),
        format!("GET / HTTP/1.1\r\n{many}"),
    ] {
        let answer = ask(address, format!("{head}Host: localhost\r\n\r\n").as_bytes());
        assert!(matches!(status(&answer), None | Some(400..=499)), "{:?}", status(&answer));
    }
    let body = format!("POST {home} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n").into_bytes();
    ask(address, &[body, vec![b'x'; 50_000_000]].concat());
    // Many silent connections at once.
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    assert_eq!(status(&get(address, home)), Some(200), "the next one is answered");
    drop(idle);
    let peak = program.peak_memory_mb();
    assert!(peak < MEMORY_MB, "{peak} MB");
    assert_eq!(program.said("panicked"), 0, "{}", program.stderr());
}

#[test]
fn no_request_brings_the_metrics_or_the_ingester_down() {
    let env = TestEnv::open();
    let address = free_address();
    let mut ingester = env.ingester_at_work(&["--metrics", &address.to_string(), "--batch-timeout", "300ms"]);
    attack(address, "/healthz", &ingester);
    assert!(String::from_utf8_lossy(&get(address, "/metrics")).contains("clickstream_events_total 0"));
    let manifest = env.produce(&["--count", "500", "--rate", "max"]).finish();
    env.drained();
    ingester.drains();
    assert_eq!(env.stored(), manifest.len() as i64);
}

#[test]
fn no_request_brings_the_dashboard_down() {
    let env = TestEnv::open();
    let address = free_address();
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string()]);
    eventually(WAIT_TIMEOUT, "it listens", || is(TcpStream::connect(address).is_ok(), ()));
    attack(address, "/", &dashboard);
    for (target, expected) in [
        ("/api/dashboards/clickstream/panels/1?from=0&to=9223372036854775807&width=1", 400),
        ("/api/dashboards/clickstream/panels/1?from=-9223372036854775808&to=9223372036854775807&width=1", 400),
        ("/api/dashboards/clickstream/panels/1?from=1&to=2&width=99999999999999999999", 400),
        ("/api/dashboards/clickstream/panels/4294967296?from=1&to=2&width=1", 400),
        ("/api/dashboards/..%2f..%2fetc%2fpasswd", 404),
        ("/assets/..%2fapp.js", 404),
    ] {
        assert_eq!(status(&get(address, target)), Some(expected), "{target}");
    }
    assert_eq!(status(&get_from(address, "evil.example", "/")), Some(403));
    dashboard.drains();
}
