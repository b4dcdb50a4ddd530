//! A Kafka of a test's own, which it may freeze.

use super::stack::free_port;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::Command;

/// Dropping it removes it with its data.
pub struct OwnKafka {
    name: String,
    data: PathBuf,
    port: u16,
    controller: u16,
}

impl OwnKafka {
    pub fn start() -> Self {
        let name = format!("it-{:08x}", rand::random::<u32>());
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let own = Self { name, data, port: free_port(), controller: free_port() };
        let ports = [own.port.to_string(), own.controller.to_string()];
        own.stack(&["up", "kafka", "--kafka-port", &ports[0], "--controller-port", &ports[1]]);
        own
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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
        let pid = std::fs::read_to_string(self.data.join("kafka.pid")).expect("it was started");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }

    fn stack(&self, args: &[&str]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ci/stack");
        let output =
            Command::new(script).args(args).args(["--name", &self.name]).arg("--data").arg(&self.data).output();
        let output = output.expect("ci/stack can be run");
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        assert!(output.status.success(), "ci/stack {args:?}: {said}");
    }
}

impl Drop for OwnKafka {
    fn drop(&mut self) {
        let clean = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stack(&["clean"])));
        if clean.is_err() && !std::thread::panicking() {
            panic!("{} is left behind", self.data.display());
        }
    }
}
