//! A running `clickstream demo`, with a directory and a port of its own.

use super::clickhouse::ClickHouse;
use super::process::Program;
use super::{WAIT_TIMEOUT, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use ureq::Agent;
use ureq::http::HeaderMap;

/// A running demo. Dropping it ends it, and removes its files if the test passed.
pub struct Demo {
    pub program: Program,
    pub url: String,
    pub dir: PathBuf,
    agent: Agent,
}

/// A directory for one test's demos.
pub fn directory() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{:08x}", rand::random::<u32>()));
    std::fs::create_dir_all(&dir).expect("the target directory can be written");
    dir
}

impl Demo {
    /// Starts one that keeps its data in `dir/data`, and waits until it serves its page.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(directory(), args)
    }

    /// Starts a demo in this directory.
    pub fn start_in(dir: PathBuf, args: &[&str]) -> Self {
        let data = dir.join("data");
        Self::run_in(dir, &[&["--data-dir", data.to_str().expect("plain names")], args].concat())
    }

    /// Starts a demo with these arguments alone; its temporary files are in `dir`.
    pub fn run_in(dir: PathBuf, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clickstream"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLICKSTREAM_")) {
            command.env_remove(name);
        }
        for (name, value) in std::env::vars_os().filter(|(name, _)| name == "CLICKSTREAM_CACHE") {
            command.env(name, value);
        }
        command.arg("demo").args(args).env("TMPDIR", &dir).current_dir(&dir);
        let mut program = Program::start(&mut command, &dir.join(format!("demo-{:08x}", rand::random::<u32>())));
        let url = eventually(WAIT_TIMEOUT, "the demo serves its page", || {
            assert!(program.is_running(), "the demo ended before it served its page");
            place(&program, "dashboard").ok_or("not yet")
        });
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).build();
        Self { program, url, dir, agent: config.into() }
    }

    /// A client of its ClickHouse, as its read-only user.
    pub fn clickhouse(&self) -> ClickHouse {
        self.clickhouse_as("reader")
    }

    /// A client of its ClickHouse.
    pub fn clickhouse_as(&self, user: &str) -> ClickHouse {
        let password =
            std::fs::read_to_string(self.dir.join(format!("data/secrets/{user}/password"))).expect("a file of it");
        ClickHouse::new(&format!("{}/?user={user}&password={password}", self.clickhouse_url()))
    }

    /// Where its ClickHouse is.
    pub fn clickhouse_url(&self) -> String {
        place(&self.program, "ClickHouse").expect("it said so before it served its page")
    }

    /// The page's answer: the status and the text.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call().expect("the demo serves");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }

    /// The page's answer to a browser that uses this host name.
    #[track_caller]
    pub fn get_as(&self, host: &str, path: &str) -> (u16, HeaderMap) {
        let answer =
            self.agent.get(format!("{}{path}", self.url)).header("Host", host).call().expect("the demo serves");
        (answer.status().as_u16(), answer.headers().clone())
    }

    /// The page's answer, which has to be JSON.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The path of a panel's answer for the last `seconds`.
    pub fn panel(board: &str, id: u64, seconds: u64) -> String {
        let to = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let from = to - u128::from(seconds) * 1_000;
        format!("/api/dashboards/{board}/panels/{id}?from={from}&to={to}&width=800")
    }

    /// SIGKILL for its ClickHouse.
    pub fn kill_clickhouse(&self) {
        eventually(WAIT_TIMEOUT, "ClickHouse runs", || super::is(self.signal_clickhouse(Signal::KILL), "it does not"));
    }

    /// SIGSTOP for its ClickHouse; false where none runs.
    pub fn freeze_clickhouse(&self) -> bool {
        self.signal_clickhouse(Signal::STOP)
    }

    /// SIGCONT for its ClickHouse.
    pub fn thaw_clickhouse(&self) -> bool {
        self.signal_clickhouse(Signal::CONT)
    }

    fn signal_clickhouse(&self, signal: Signal) -> bool {
        let pid = self.clickhouse_pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// The process of its ClickHouse, if one runs.
    pub fn clickhouse_pid(&self) -> Option<u32> {
        let line = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let serves = |line: Vec<u8>| matches!(line.split(|&byte| byte == 0).nth(1), Some(b"libchdb" | b"server"));
        Self::processes(&self.dir).into_iter().find(|pid| serves(line(pid)))
    }

    /// The temporary directories of demos in there.
    pub fn temporary(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("a directory of the test").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with("clickstream-demo")).collect()
    }

    /// The process ids whose command line names this demo's directory: its own, its guard's, its ClickHouse's.
    pub fn processes(dir: &Path) -> Vec<u32> {
        let name = dir.to_str().expect("plain names").as_bytes();
        let entries = std::fs::read_dir("/proc").expect("processes are counted on Linux").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(name.len()).any(|part| part == name)
        })
        .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Ends before its directory goes: its guard may still be at work in there.
        self.program.end();
        let left = || Self::processes(&self.dir);
        if !std::thread::panicking() {
            eventually(WAIT_TIMEOUT, "what the demo started has ended", || super::is(left().is_empty(), left()));
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The address at the end of the line that begins so, if the demo has said it.
fn place(program: &Program, what: &str) -> Option<String> {
    let said = program.stdout();
    let lines = said.lines().filter(|line| line.starts_with(what));
    let words = lines.filter_map(|line| line.split(' ').next_back());
    words.filter(|word| word.starts_with("http://")).map(str::to_owned).next()
}
