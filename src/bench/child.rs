//! A step's process, from the side of its parent.

use super::step::{Done, GO, READY, Reply, Step};
use anyhow::{Context, Result, anyhow, bail};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{self, ChildStdin, ChildStdout, Command};

/// The command that a child runs.
const COMMAND: &str = "bench-step";
/// The one variable that a child gets of ours; its log has warnings only, unless the user wants more.
const LOG: &str = "CLICKSTREAM_LOG";

/// A child that has prepared its step. Dropping it kills it.
pub struct Child {
    process: process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a child, and waits until it has prepared the step.
    ///
    /// # Errors
    /// Its own error, in its own words.
    pub async fn prepare(step: &Step) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program itself")?);
        let variables = std::env::vars_os().map(|(name, _)| name);
        let ours = variables.filter(|name| name.to_string_lossy().starts_with("CLICKSTREAM_") && name != LOG);
        for name in ours {
            command.env_remove(name);
        }
        if std::env::var_os(LOG).is_none_or(|level| level.is_empty()) {
            command.env(LOG, "warn");
        }
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("cannot start a process for a step of the benchmark")?;
        let input = process.stdin.take().context("the child has a standard input")?;
        let output = process.stdout.take().context("the child has a standard output")?;
        let mut child = Self { process, input, output: BufReader::new(output).lines() };
        child.say(&serde_json::to_string(step)?).await?;
        match child.line().await? {
            line if line == READY => Ok(child),
            line => Err(failed(&line)),
        }
    }

    /// Starts the clock, and waits for the child's end.
    ///
    /// # Errors
    /// Its own error, in its own words.
    pub async fn go(mut self) -> Result<Done> {
        self.say(GO).await?;
        let line = self.line().await?;
        self.process.wait().await?;
        match serde_json::from_str(&line) {
            Ok(Reply::Done(done)) => Ok(done),
            _ => Err(failed(&line)),
        }
    }

    async fn say(&mut self, line: &str) -> Result<()> {
        let written = self.input.write_all(format!("{line}\n").as_bytes()).await;
        written.and(self.input.flush().await).context("a step of the benchmark has ended early")
    }

    async fn line(&mut self) -> Result<String> {
        match self.output.next_line().await? {
            Some(line) => Ok(line),
            None => bail!("a step of the benchmark has ended without an answer ({})", self.process.wait().await?),
        }
    }
}

fn failed(line: &str) -> anyhow::Error {
    match serde_json::from_str(line) {
        Ok(Reply::Failed(why)) => anyhow!(why),
        _ => anyhow!("a step of the benchmark gave an answer that is not one"),
    }
}
