//! Clients on the network that hold connections to the two HTTP servers: rows are still stored, the next request is
//! answered, and no connection is held beyond its time.

use crate::http::{free_address, get, status};
use crate::support::listener::Listener;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// Files that the program under attack may open, and connections that attack it.
const DESCRIPTORS: u64 = 256;
const ATTACKERS: usize = 1_100;
/// The number of file descriptors that the HTTP server may use.
const CONNECTIONS: usize = 32;
/// The number of connections that it may hold, if there are enough file descriptors.
const MAX_CONNECTIONS: usize = 64;
/// The deadline of an immediate end, on a busy machine.
const END_DEADLINE: Duration = Duration::from_secs(10);
const HALF: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ";

/// Connections that each send the same and then hold on. Those that the server closes are opened again, until this is dropped.
struct Siege {
    over: Arc<AtomicBool>,
    lasts: Option<JoinHandle<()>>,
}

impl Siege {
    fn lay(address: SocketAddr, connections: usize, sent: &'static [u8]) -> Self {
        let most = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("a limit may be raised so far");
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let attack = move || {
            let mut held: Vec<TcpStream> = Vec::new();
            while !is_over.load(SeqCst) {
                held.retain_mut(|stream| !matches!(stream.read(&mut [0; 4_096]), Ok(0)));
                while held.len() < connections && !is_over.load(SeqCst) {
                    // A full backlog of the kernel refuses no connection, and makes it wait.
                    let Ok(mut stream) = TcpStream::connect_timeout(&address, END_DEADLINE) else { break };
                    let _ = stream.write_all(sent);
                    stream.set_nonblocking(true).expect("a socket");
                    held.push(stream);
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        };
        Self { over, lasts: Some(std::thread::spawn(attack)) }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = self.lasts.take().map(JoinHandle::join);
    }
}

/// The command line of the program, in a process that may open few files.
fn with_few_descriptors(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""));
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    command.get_current_dir().map(|dir| limited.current_dir(dir));
    limited
}

/// Waits until a server answers with 200.
#[track_caller]
fn serves(address: SocketAddr, target: &str, within: Duration) {
    eventually(within, "it answers", || {
        let connected = TcpStream::connect_timeout(&address, END_DEADLINE).is_ok();
        let code = if connected { status(&get(address, target)) } else { None };
        is(code == Some(200), code)
    });
}

/// The status of the answer to a GET with these headers.
fn asked(address: SocketAddr, target: &str, headers: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, END_DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).expect("a socket");
    stream
        .write_all(format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes())
        .expect("it reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    status(&answer)
}

#[test]
fn half_sent_requests_take_no_descriptor_that_rows_need() {
    let env = TestEnv::open();
    let address = free_address();
    let command = env.command("ingest", &["--metrics", &address.to_string(), "--batch-timeout", "300ms"]);
    let mut ingester = Program::start(&mut with_few_descriptors(&command), &env.file("ingest"));
    ingester.says("lease opened", 1);
    serves(address, "/readyz", WAIT_TIMEOUT);
    let before = ingester.descriptors();

    let siege = Siege::lay(address, ATTACKERS, HALF);
    eventually(WAIT_TIMEOUT, "the server's connections are taken", || {
        let open = ingester.descriptors();
        is(open >= before + CONNECTIONS / 2, open)
    });
    let mut sent = 0;
    for _ in 0..3 {
        sent += env.produce(&["--count", "2000", "--rate", "max"]).finish().len();
        env.drained();
        let open = ingester.descriptors();
        assert!(open <= before + CONNECTIONS + 16, "{open} descriptors, {before} before");
        // A scraper that comes while they hold on is answered, and not after them.
        serves(address, "/metrics", END_DEADLINE);
    }
    assert_eq!(env.stored(), sent as i64);
    assert_eq!(ingester.said("Too many open files"), 0);

    drop(siege);
    eventually(WAIT_TIMEOUT, "nothing of it is left", || {
        is(ingester.descriptors() <= before + 4, ingester.descriptors())
    });
    serves(address, "/readyz", END_DEADLINE);
    ingester.drains();
}

#[test]
fn every_waiting_connection_ends_by_itself() {
    let env = TestEnv::open();
    let address = free_address();
    let mut ingester = env.ingester_at_work(&["--metrics", &address.to_string()]);
    serves(address, "/readyz", WAIT_TIMEOUT);
    let before = ingester.descriptors();

    let open = |sent: &[u8]| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(sent).expect("it reads what is short");
        stream
    };
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(open(b""));
        held.push(open(HALF));
        held.push(open(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        held.push(open(b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"));
        held.push(open(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx"));
    }
    // These ask without end, and read nothing.
    for _ in 0..8 {
        let mut stream = open(b"");
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a socket");
        while stream.write_all(&b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000)).is_ok() {}
        held.push(stream);
    }
    assert!(held.len() < MAX_CONNECTIONS, "the server could hold them all");
    eventually(WAIT_TIMEOUT, "all of them are closed", || {
        is(ingester.descriptors() <= before + 2, ingester.descriptors())
    });
    assert!(ingester.peak_memory_mb() < 128, "{} MB", ingester.peak_memory_mb());
    drop(held);
    serves(address, "/metrics", END_DEADLINE);
    ingester.drains();
}

#[test]
fn a_half_sent_request_does_not_hold_up_the_end_of_a_dashboard() {
    let env = TestEnv::open();
    let address = free_address();
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string()]);
    eventually(WAIT_TIMEOUT, "it listens", || is(TcpStream::connect(address).is_ok(), ()));
    let mut half = TcpStream::connect(address).expect("it listens");
    half.write_all(HALF).expect("it reads");
    serves(address, "/", END_DEADLINE);
    dashboard.term();
    // Shorter than the time for a head.
    assert_eq!(dashboard.exit_code(Duration::from_secs(5)), Some(0));
}

#[test]
fn a_browser_is_answered_on_behalf_of_nobody_else() {
    let env = TestEnv::open();
    let [metrics, pages] = [free_address(), free_address()];
    let mut ingester = env.ingester_at_work(&["--metrics", &metrics.to_string(), "--allow-host", "node.example"]);
    let mut dashboard = env.run("dashboard", &["--listen", &pages.to_string()]);
    serves(metrics, "/healthz", WAIT_TIMEOUT);
    eventually(WAIT_TIMEOUT, "it listens", || is(TcpStream::connect(pages).is_ok(), ()));
    for (address, target) in [(metrics, "/metrics"), (pages, "/")] {
        for (headers, expected) in [
            ("Host: localhost\r\n", 200),
            ("Host: evil.example\r\n", 403),
            ("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", 200),
            (
                "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
                403,
            ),
            ("Host: localhost\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", 403),
            (
                "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
                403,
            ),
            (
                "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
                200,
            ),
            ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        ] {
            assert_eq!(asked(address, target, headers), Some(expected), "{target} {headers}");
        }
        assert_eq!(asked(address, "/nothing", "Host: evil.example\r\n"), Some(403));
    }
    // As Prometheus calls a container, a service, and a name that it was given.
    for host in ["consumer:9464", "ingest.shop.svc:9464", "node.example:9464"] {
        assert_eq!(asked(metrics, "/metrics", &format!("Host: {host}\r\n")), Some(200), "{host}");
        assert_eq!(asked(pages, "/", &format!("Host: {host}\r\n")), Some(403), "{host}");
    }
    ingester.drains();
    dashboard.drains();
}

#[test]
fn questions_beyond_a_few_wait_and_are_refused_in_bounded_time() {
    let env = TestEnv::bare();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (now.clone(), most.clone());
    // A ClickHouse that reads its questions and never answers.
    let silent = Listener::open(move |mut client| {
        counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
        while !matches!(client.read(&mut [0; 4_096]), Ok(0) | Err(_)) {}
        counts.0.fetch_sub(1, SeqCst);
    });
    let address = free_address();
    let url = format!("http://{}", silent.address);
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string(), "--clickhouse-url", &url]);
    eventually(WAIT_TIMEOUT, "it listens", || is(TcpStream::connect(address).is_ok(), ()));
    let panel = "/api/dashboards/clickstream/panels/1?from=0&to=1000&width=100";
    let ask = |_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(format!("GET {panel} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("it reads");
        stream
    };
    // Some clients leave after their request, as a page may make its browser do: their queries still count.
    let leaving: Vec<_> = (0..10).map(ask).collect();
    eventually(WAIT_TIMEOUT, "queries run", || is(now.load(SeqCst) == 4, now.load(SeqCst)));
    drop(leaving);
    let asking: Vec<_> = (0..20).map(|_| std::thread::spawn(move || get(address, panel))).collect();
    let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().expect("an answer")).collect();
    let busy = |answer: &Vec<u8>| String::from_utf8_lossy(answer).contains("\"kind\":\"busy\"");
    assert!(answers.iter().all(|answer| status(answer) == Some(503)), "each has an answer");
    assert!(answers.iter().any(busy), "some are told that others ask too much");
    let most = most.load(SeqCst);
    assert!((1..=4).contains(&most), "{most} queries at a time");
    assert_eq!(status(&get(address, "/")), Some(200));
    dashboard.drains();
}
