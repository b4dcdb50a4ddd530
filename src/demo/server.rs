//! The demo's ClickHouse: started, waited for, started again when it dies, and ended with the demo.

use super::guard;
use super::mark::TOKEN;
use super::program::Program;
use super::work_dir::WorkDir;
use crate::private;
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

/// The longest time until ClickHouse answers after its start; reading the library from the disk takes some seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The interval between pings while ClickHouse does not answer: short, since it delays the demo's start.
const START_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The interval between pings while ClickHouse answers.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// After this silence it counts as away, and after the other one it is killed and started again. A busy machine is silent for some
/// seconds now and then.
const AWAY: Duration = Duration::from_millis(1_500);
const SILENCE: Duration = Duration::from_secs(15);
/// The time for a shutdown of ClickHouse after the demo.
const FAREWELL: Duration = Duration::from_secs(5);
/// A start that fails is tried so often: a port may still be held by the one that was killed.
const TRIES: usize = 10;

/// A running ClickHouse.
pub struct Server<'a> {
    work_dir: &'a WorkDir,
    /// By which the guard knows that this demo has started it.
    token: String,
    guard: Child,
    /// The other end of its standard input. Not left in `guard`: waiting for a child closes that.
    hold: Option<ChildStdin>,
}

impl<'a> Server<'a> {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead, or is silent for a minute; says where its log is.
    pub async fn start(program: &Program, work_dir: &'a WorkDir) -> Result<Self> {
        let token = work_dir.furnish(program)?;
        let (guard, hold) = spawn(&token, work_dir)?;
        let mut server = Self { work_dir, token, guard, hold };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if ping(self.work_dir.http_port).await {
                return Ok(());
            }
            let log = self.work_dir.file("clickhouse.log");
            if let Some(status) = self.guard.try_wait()? {
                bail!(
                    "ClickHouse did not start ({status}): {}",
                    reason(&log).unwrap_or_else(|| log.display().to_string())
                );
            }
            if Instant::now() > deadline {
                bail!("ClickHouse does not answer after {} s: its log is {}", START_TIMEOUT.as_secs(), log.display());
            }
            tokio::time::sleep(START_POLL_INTERVAL).await;
        }
    }

    /// Restarts ClickHouse whenever it ends or does not answer, and reports its state to `note`. Returns only when it
    /// cannot be started any more.
    ///
    /// # Errors
    /// When it cannot be started any more.
    pub async fn keep(&mut self, note: impl Fn(Option<&str>)) -> Result<()> {
        loop {
            let why = self.failed(&note).await;
            note(Some(&format!("{why}, and is being restarted")));
            tracing::warn!("{why}: restarting it");
            for left in (0..TRIES).rev() {
                self.kill().await;
                (self.guard, self.hold) = spawn(&self.token, self.work_dir)?;
                match self.answers().await {
                    Ok(()) => break,
                    Err(error) if left == 0 => return Err(error),
                    Err(error) => tracing::debug!("{error:#}"),
                }
            }
            tracing::warn!("ClickHouse is back");
            note(None);
        }
    }

    /// Waits until it has ended, or has been silent for too long: that its process lives says little. Returns which of them it is.
    async fn failed(&mut self, note: impl Fn(Option<&str>)) -> String {
        let (mut answered, mut noted) = (Instant::now(), false);
        loop {
            let port = self.work_dir.http_port;
            let asked = async {
                tokio::time::sleep(PING_INTERVAL).await;
                ping(port).await
            };
            let answers = tokio::select! {
                answers = asked => answers,
                _ = self.guard.wait() => return "ClickHouse ended".into(),
            };
            match answered.elapsed() {
                _ if answers => {
                    answered = Instant::now();
                    if std::mem::take(&mut noted) {
                        note(None);
                    }
                }
                silence if silence > SILENCE => {
                    return format!("ClickHouse did not answer for {} s", SILENCE.as_secs());
                }
                silence if silence > AWAY && !noted => {
                    noted = true;
                    note(Some("ClickHouse does not answer"));
                }
                _ => {}
            }
        }
    }

    /// Ends it, in whatever state it is; the directory stays.
    async fn kill(&mut self) {
        if let Some(mut hold) = self.hold.take() {
            // A guard that has ended reads nothing.
            let _ = hold.write_all(&[guard::LEAVE]).await;
        }
        if tokio::time::timeout(FAREWELL, self.guard.wait()).await.is_err() {
            let _ = self.guard.kill().await;
        }
    }

    /// Ends it; its guard removes the directory, unless that is kept.
    pub async fn end(mut self) {
        drop(self.hold.take());
        if tokio::time::timeout(FAREWELL, self.guard.wait()).await.is_err() {
            let _ = self.guard.kill().await;
        }
    }
}

fn spawn(token: &str, work_dir: &WorkDir) -> Result<(Child, Option<ChildStdin>)> {
    let log = private::file().create(true).append(true).open(work_dir.file("clickhouse.log"))?;
    let mut guard = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    guard
        .arg("guard")
        .arg(&work_dir.path)
        .env(TOKEN, token)
        .current_dir(&work_dir.path)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0); // a Ctrl-C of the terminal is for the demo: it drains into this server first
    let mut guard = guard.spawn().context("cannot start ClickHouse")?;
    let hold = guard.stdin.take();
    Ok((guard, hold))
}

async fn ping(port: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.contains(" 200 "))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Some(true)))
}

/// ClickHouse's own words about its end.
fn reason(log: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let says =
        |line: &&str| line.contains("Exception") || (line.starts_with("clickstream: ") && !line.contains(" ended: "));
    text.lines().rfind(says).map(str::to_owned)
}
