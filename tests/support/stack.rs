//! The services: the ones that all tests share, and those of a test's own, which it may kill.

use super::clickhouse::ClickHouse;
use super::wire::Wire;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

/// The address of a shared service out of the environment.
fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./ci/test"))
}

pub fn brokers() -> String {
    address("CLICKSTREAM_TEST_BROKERS")
}

pub fn clickhouse_url() -> String {
    address("CLICKSTREAM_TEST_CLICKHOUSE")
}

/// Services of a test's own. Dropping it ends them and removes their data.
struct Stack {
    name: String,
    data: PathBuf,
    ports: Vec<String>,
    /// Variables of the environment that `ci/stack` reads.
    environment: Vec<(&'static str, String)>,
}

impl Stack {
    fn new(ports: &[(&str, u16)], more: &[&str]) -> Self {
        let name = format!("it-{:08x}", rand::random::<u32>());
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let ports = ports.iter().flat_map(|(option, port)| [option.to_string(), port.to_string()]);
        Self {
            name,
            data,
            ports: ports.chain(more.iter().map(|part| part.to_string())).collect(),
            environment: Vec::new(),
        }
    }

    /// Starts a service on its old data, and waits until it answers. An embedded ClickHouse can die while it starts right
    /// after a kill, which is no fault of the program under test: each gets three tries.
    fn up(&self, service: &str) {
        let mut args = vec!["up", service];
        args.extend(self.ports.iter().map(String::as_str));
        let started = (0..2).any(|_| self.run(&args).is_ok());
        if !started {
            self.run(&args).unwrap_or_else(|said| panic!("ci/stack {args:?}: {said}"));
        }
    }

    fn signal(&self, service: &str, signal: Signal) {
        let pid = std::fs::read_to_string(self.data.join(format!("{service}.pid"))).expect("it was started");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    fn run(&self, args: &[&str]) -> Result<(), String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/stack");
        let output = Command::new(script)
            .args(args)
            .args(["--name", &self.name])
            .arg("--data")
            .arg(&self.data)
            .env("STACK_KAFKA_HEAP", "-Xmx256m -Xms128m")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output();
        let output = output.expect("ci/stack can be run");
        if output.status.success() {
            return Ok(());
        }
        Err([output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // A frozen process handles its SIGTERM only after it is woken; `clean` wakes it.
        let cleaned = self.run(&["clean"]);
        if let Err(said) = cleaned
            && !std::thread::panicking()
        {
            panic!("{} is left behind: {said}", self.data.display());
        }
    }
}

/// A ClickHouse that a test may kill.
pub struct OwnClickHouse {
    stack: Stack,
    port: u16,
    clock: Option<Clock>,
}

/// A file that says by how many seconds a server's clock is ahead. It stands beside the server's data.
struct Clock(PathBuf);

impl Clock {
    fn set(&self, ahead: i64) {
        // Not truncated: the server has it mapped into its memory.
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.0);
        file.and_then(|mut file| file.write_all(&ahead.to_ne_bytes())).expect("a file of ours");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl OwnClickHouse {
    pub fn start() -> Self {
        let own = Self::new();
        own.up();
        own
    }

    /// One with a clock that can be set. Only the library lets that be done, not a `clickhouse` of the machine.
    pub fn start_with_clock() -> Self {
        let mut own = Self::new();
        let clock = Clock(own.stack.data.with_extension("clock"));
        clock.set(0);
        let path = clock.0.to_str().expect("plain names").to_owned();
        own.stack.environment =
            vec![("STACK_CLICKHOUSE_CLOCK", path), ("CLICKSTREAM_CLICKHOUSE", "embedded".to_owned())];
        own.clock = Some(clock);
        own.up();
        own
    }

    fn new() -> Self {
        let port = free_port();
        let stack = Stack::new(&[("--clickhouse-port", port), ("--clickhouse-tcp-port", free_port())], &[]);
        Self { stack, port, clock: None }
    }

    /// Sets its clock this many seconds before the time of this machine.
    pub fn set_clock_back(&self, seconds: i64) {
        self.clock.as_ref().expect("it was started with a clock").set(-seconds);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> ClickHouse {
        ClickHouse::new(&self.url())
    }

    /// Starts it again, with the users of this file besides its own.
    pub fn restart_with_users(&self, users: &str) {
        self.stack.run(&["down", "clickhouse"]).unwrap_or_else(|said| panic!("ci/stack down: {said}"));
        let beside = self.stack.data.join("clickhouse.d");
        std::fs::create_dir_all(&beside).expect("a directory of ours");
        std::fs::write(beside.join("users.xml"), users).expect("a directory of ours");
        self.up();
    }

    /// Starts it on its old data, and waits until it answers.
    pub fn up(&self) {
        self.stack.up("clickhouse");
    }

    /// SIGKILL
    pub fn kill(&self) {
        self.stack.signal("clickhouse", Signal::KILL);
    }

    /// SIGSTOP
    pub fn freeze(&self) {
        self.stack.signal("clickhouse", Signal::STOP);
    }

    /// SIGCONT
    pub fn wake(&self) {
        self.stack.signal("clickhouse", Signal::CONT);
    }
}

/// One broker or three that a test may kill. Their nodes are numbered from 1.
pub struct OwnKafka {
    stack: Stack,
    port: u16,
    nodes: u16,
}

/// From the ports of one broker to those of the next.
const STRIDE: u16 = 10;

impl OwnKafka {
    pub fn start(nodes: u16) -> Self {
        let all_free =
            |port: &u16| (0..nodes).all(|node| is_free(port + STRIDE * node) && is_free(port + STRIDE * node + 1));
        let port = std::iter::repeat_with(free_port).find(all_free).expect("the numbers do not end");
        let ports = [("--kafka-port", port), ("--controller-port", port + 1)];
        let own = Self { stack: Stack::new(&ports, &["--brokers", &nodes.to_string()]), port, nodes };
        own.stack.up("kafka");
        own
    }

    /// One broker, to be reached through a wire only: that is the address that it gives to clients.
    pub fn start_behind_a_wire() -> (Self, Wire) {
        let port = free_port();
        let wire = Wire::start(format!("127.0.0.1:{port}"));
        (Self::start_with(port, free_port(), vec![("STACK_KAFKA_ADVERTISED", wire.address())]), wire)
    }

    /// One broker at these ports, with this environment of `ci/stack`.
    pub fn start_with(port: u16, controller: u16, environment: Vec<(&'static str, String)>) -> Self {
        let mut stack = Stack::new(&[("--kafka-port", port), ("--controller-port", controller)], &[]);
        stack.environment = environment;
        stack.up("kafka");
        Self { stack, port, nodes: 1 }
    }

    pub fn brokers(&self) -> String {
        let address = |node| format!("127.0.0.1:{}", self.port + STRIDE * node);
        (0..self.nodes).map(address).collect::<Vec<_>>().join(",")
    }

    fn service(&self, node: i32) -> String {
        if self.nodes == 1 { "kafka".into() } else { format!("kafka-{node}") }
    }

    /// Starts a node that was killed, and waits until it answers.
    pub fn up(&self, node: i32) {
        self.stack.up(&self.service(node));
    }

    /// SIGKILL
    pub fn kill(&self, node: i32) {
        self.stack.signal(&self.service(node), Signal::KILL);
    }

    /// SIGSTOP
    pub fn freeze(&self, node: i32) {
        self.stack.signal(&self.service(node), Signal::STOP);
    }

    /// SIGCONT
    pub fn wake(&self, node: i32) {
        self.stack.signal(&self.service(node), Signal::CONT);
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A free port below those that the kernel gives to outgoing connections, so that it is still free when a server
/// restarts.
pub fn free_port() -> u16 {
    std::iter::repeat_with(|| rand::random_range(20_000..31_900))
        .find(|port| is_free(*port))
        .expect("the numbers do not end")
}
