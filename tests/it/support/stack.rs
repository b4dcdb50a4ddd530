//! The services: the ones that all tests share, and a ClickHouse of a test's own.

use super::clickhouse::ClickHouse;
use rustix::process::{Pid, Signal, kill_process};
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

/// A ClickHouse that a test may kill. Dropping it removes it with its data.
pub struct OwnClickHouse {
    name: String,
    data: PathBuf,
    port: u16,
    tcp_port: u16,
}

impl OwnClickHouse {
    pub fn start() -> Self {
        let name = format!("it-{:08x}", rand::random::<u32>());
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let own = Self { name, data, port: free_port(), tcp_port: free_port() };
        own.up();
        own
    }

    pub fn client(&self) -> ClickHouse {
        ClickHouse::new(&format!("http://127.0.0.1:{}", self.port))
    }

    /// Starts it on its old data, and waits until it answers. An embedded ClickHouse can die while it starts right after a
    /// kill, which is no fault of the program under test: it gets three tries.
    pub fn up(&self) {
        let ports = [self.port.to_string(), self.tcp_port.to_string()];
        let args = ["up", "clickhouse", "--clickhouse-port", &ports[0], "--clickhouse-tcp-port", &ports[1]];
        let started = (0..2).any(|_| self.try_stack(&args).is_ok());
        if !started {
            self.stack(&args);
        }
    }

    /// Starts it again, with the users of this file besides its own.
    pub fn restart_with_users(&self, users: &str) {
        self.stack(&["down", "clickhouse"]);
        let beside = self.data.join("clickhouse.d");
        std::fs::create_dir_all(&beside).expect("a directory of ours");
        std::fs::write(beside.join("users.xml"), users).expect("a directory of ours");
        self.up();
    }

    /// SIGKILL
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = std::fs::read_to_string(self.data.join("clickhouse.pid")).expect("it was started");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    fn stack(&self, args: &[&str]) {
        self.try_stack(args).unwrap_or_else(|said| panic!("ci/stack {args:?}: {said}"));
    }

    fn try_stack(&self, args: &[&str]) -> Result<(), String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/stack");
        let output =
            Command::new(script).args(args).args(["--name", &self.name]).arg("--data").arg(&self.data).output();
        let output = output.expect("ci/stack can be run");
        if output.status.success() {
            return Ok(());
        }
        Err([output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
    }
}

impl Drop for OwnClickHouse {
    fn drop(&mut self) {
        // A frozen one would take its SIGTERM only when somebody wakes it; `clean` does.
        let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stack(&["clean"])));
        if clean.is_err() && !std::thread::panicking() {
            panic!("{} is left behind", self.data.display());
        }
    }
}

/// A port that nobody listens at, below those that the kernel gives to outgoing connections: a server that is restarted
/// must find it free again.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| rand::random_range(20_000..32_000)).find(free).expect("the numbers do not end")
}
