//! The demo's ClickHouse: started, waited for, started again when it dies, and ended with the demo.

use super::home::Home;
use super::program::Program;
use crate::private;
use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::Instant;

/// How long it may take to answer; a library that has to be read from the disk takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often one that does not answer is asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// What it gets to end in after the demo.
const FAREWELL: Duration = Duration::from_secs(5);
/// A start that fails is tried so often: a port may still be held by the one that was killed.
const TRIES: usize = 10;

/// A running ClickHouse.
pub struct Server<'a> {
    program: &'a Program,
    home: &'a Home,
    guard: Child,
    /// The other end of its standard input. Not left in `guard`: waiting for a child closes that.
    hold: Option<ChildStdin>,
}

impl<'a> Server<'a> {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead, or is silent for a minute; says where its log is.
    pub async fn start(program: &'a Program, home: &'a Home) -> Result<Self> {
        let (guard, hold) = spawn(program, home)?;
        let mut server = Self { program, home, guard, hold };
        server.answers().await?;
        Ok(server)
    }

    async fn answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if ping(self.home.http_port).await {
                return Ok(());
            }
            let log = self.home.file("clickhouse.log");
            if let Some(status) = self.guard.try_wait()? {
                bail!(
                    "ClickHouse did not start ({status}): {}",
                    reason(&log).unwrap_or_else(|| log.display().to_string())
                );
            }
            if Instant::now() > deadline {
                bail!("ClickHouse does not answer after {} s: its log is {}", PATIENCE.as_secs(), log.display());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Starts it again whenever it ends, and tells `note` what is going on. Returns only when it cannot be started any more.
    ///
    /// # Errors
    /// When it cannot be started any more.
    pub async fn keep(&mut self, note: impl Fn(Option<&str>)) -> Result<()> {
        loop {
            let _ = self.guard.wait().await;
            note(Some("ClickHouse ended and is being started again"));
            tracing::warn!("ClickHouse ended: starting it again");
            for left in (0..TRIES).rev() {
                (self.guard, self.hold) = spawn(self.program, self.home)?;
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

    /// Ends it; its guard removes the directory, unless that is kept.
    pub async fn end(mut self) {
        drop(self.hold.take());
        if tokio::time::timeout(FAREWELL, self.guard.wait()).await.is_err() {
            let _ = self.guard.kill().await;
        }
    }
}

fn spawn(program: &Program, home: &Home) -> Result<(Child, Option<ChildStdin>)> {
    let log = private::file().create(true).append(true).open(home.file("clickhouse.log"))?;
    let mut guard = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    guard.arg("guard");
    if !home.kept {
        guard.arg("--remove").arg(&home.path);
    }
    guard
        .arg("--")
        .args(program.command(&home.file("clickhouse.xml"), &home.file("clickhouse.sql"))?)
        .env("CLICKHOUSE_WATCHDOG_ENABLE", "0") // nobody but the guard starts or ends it
        .current_dir(&home.path)
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

/// What ClickHouse says of its end.
fn reason(log: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rfind(|line| line.contains("Exception")).map(str::to_owned)
}
