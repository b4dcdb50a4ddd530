//! The program under test: started, signalled, waited for, and never left behind.

use super::{WAIT_TIMEOUT, eventually, is};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Lines of a program's output that are shown when a test fails.
const SHOWN: usize = 40;

/// A running `clickstream`. Dropping it kills it.
pub struct Program {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Program {
    /// Starts the program; its output goes to two files at `path`.
    pub fn start(command: &mut Command, path: &Path) -> Self {
        Self::start_into(command, path, None, None)
    }

    /// Starts the program, with other targets for its output.
    pub fn start_into(command: &mut Command, path: &Path, stdout: Option<Stdio>, stderr: Option<Stdio>) -> Self {
        let (out, err) = (path.with_extension("out"), path.with_extension("err"));
        let file = |path| Stdio::from(File::create(path).expect("a directory that was made for this"));
        command.stdout(stdout.unwrap_or_else(|| file(&out))).stderr(stderr.unwrap_or_else(|| file(&err)));
        let child = command.stdin(Stdio::null()).spawn();
        Self { child: child.expect("the program was built"), out, err }
    }

    /// Starts the program on a terminal, which gets its output.
    pub fn start_on(command: &mut Command, path: &Path, terminal: impl Fn() -> Stdio) -> Self {
        let child = command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn();
        let (out, err) = (path.with_extension("out"), path.with_extension("err"));
        Self { child: child.expect("the program was built"), out, err }
    }

    /// SIGTERM
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGKILL, and waits until it is dead.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child of ours");
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
        kill_process(Pid::from_child(&self.child), signal).expect("it has not been waited for yet");
    }

    /// Waits for its end; returns its exit code, none after a signal.
    #[track_caller]
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        let status = eventually(within, "the program has ended", || {
            self.child.try_wait().expect("a child of ours").ok_or("it runs")
        });
        status.code()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end, which has to be a good one.
    #[track_caller]
    pub fn succeeds(&mut self) {
        assert_eq!(self.exit_code(WAIT_TIMEOUT), Some(0), "exit code");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, if it runs.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end, which has to be a good one.
    #[track_caller]
    pub fn drains(&mut self) {
        self.term();
        self.succeeds();
    }

    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Waits until its log contains this text at least this many times.
    #[track_caller]
    pub fn says(&mut self, text: &str, times: usize) {
        eventually(WAIT_TIMEOUT, &format!("the log says {text:?} {times} times"), || {
            assert_eq!(self.child.try_wait().expect("a child of ours"), None, "it ended before it said {text:?}");
            is(self.said(text) >= times, "its log is below")
        });
    }

    /// The lines that it ended with: one that failed says why.
    pub fn last_words(&self) -> Vec<String> {
        self.stderr().lines().filter(|line| line.starts_with("clickstream: ")).map(str::to_owned).collect()
    }

    /// Waits until it gives up: with exit code 1, and one line that names this.
    #[track_caller]
    pub fn gives_up(&mut self, naming: &str) {
        assert_eq!(self.exit_code(WAIT_TIMEOUT), Some(1), "exit code");
        let words = self.last_words();
        assert!(words.len() == 1 && words[0].contains(naming), "one line that names {naming}: {words:?}");
    }

    /// How often its log has this text in it.
    pub fn said(&self, text: &str) -> usize {
        self.stderr().matches(text).count()
    }

    /// The most memory that it had so far, in MB.
    pub fn peak_memory_mb(&self) -> u64 {
        self.memory_mb().expect("laws of memory are checked on Linux, while the program runs")
    }

    /// Waits for its end; returns the most memory that it was seen to have.
    #[track_caller]
    pub fn peak_memory_mb_at_its_end(&mut self, within: Duration) -> u64 {
        let mut peak = 0;
        eventually(within, "the program has ended", || {
            peak = self.memory_mb().unwrap_or(0).max(peak);
            is(self.has_ended(), "it runs")
        });
        peak
    }

    /// None once it has ended.
    fn memory_mb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") / 1024)
    }

    /// How many files and sockets it has open.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("laws of descriptors are checked on Linux, while the program runs").count()
    }

    /// The counts of the line that `ingest` closes with.
    pub fn closing(&self) -> Closing {
        let stdout = self.stdout();
        let line = stdout.lines().last().filter(|line| line.contains(" rejects stored in ")).unwrap_or_default();
        let mut counts = line.split(' ').filter_map(|word| word.replace(',', "").parse().ok());
        let mut next = || counts.next().unwrap_or_else(|| panic!("no closing line in {stdout:?}"));
        let [events, rejects, batches, inserts, retries] = std::array::from_fn(|_| next());
        let before = if line.contains(" rows were stored before") { next() } else { 0 };
        Closing { events, rejects, batches, inserts, retries, before }
    }
}

/// The counts that an ingester reports at its end.
#[derive(Debug)]
#[allow(dead_code, reason = "shown where an assertion fails")]
pub struct Closing {
    pub events: u64,
    pub rejects: u64,
    pub batches: u64,
    pub inserts: u64,
    pub retries: u64,
    pub before: u64,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            for path in [&self.out, &self.err] {
                let text = read(path);
                let skipped = text.lines().count().saturating_sub(SHOWN);
                let tail: Vec<_> = text.lines().skip(skipped).collect();
                eprintln!("--- {} (the last {SHOWN} lines)\n{}", path.display(), tail.join("\n"));
            }
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
