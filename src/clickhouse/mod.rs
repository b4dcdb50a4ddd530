//! The ClickHouse adapter: connecting, applying and checking the schema, inserting, and asking what is stored.

mod failure;
mod http;
mod insert;
mod questions;
mod reader;
mod rejects;
mod rows;
mod schema;
mod shelf;
pub mod users;

pub use failure::describe;
pub use questions::WINDOW;
pub use reader::{Columns, NoAnswer, Reader};
pub use rejects::{Choice, Count, Place, Row};
pub use schema::Tables;
pub use shelf::{LIFETIME, Shelf};

use crate::cli::ClickHouseArgs;
use anyhow::{Context, Result};
use insert::Inserter;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;
use url::Url;

/// How long an answer to a question may take before the question is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// An answer that took longer says little about the server's clock.
const PROMPT_MS: i64 = 1_000;
/// No clock has been seen yet.
const UNSEEN: i64 = i64::MIN;

/// The password out of its file; empty where there is none.
fn password(args: &ClickHouseArgs) -> Result<String> {
    let Some(path) = &args.clickhouse_password_file else { return Ok(String::new()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read --clickhouse-password-file {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A ClickHouse server and a database in it.
pub struct ClickHouse {
    client: clickhouse::Client,
    inserter: Inserter,
    url: Url,
    database: String,
    /// The server's clock less ours, in milliseconds, or less than that; [`UNSEEN`] before its first answer.
    clock_ahead_ms: AtomicI64,
}

impl ClickHouse {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the URL is not one of http or https, the database's name is no plain identifier, or the password's file
    /// cannot be read.
    pub fn new(args: &ClickHouseArgs) -> Result<Self> {
        let password = password(args)?;
        let client = clickhouse::Client::default()
            .with_url(args.clickhouse_url.as_str())
            .with_user(&args.clickhouse_user)
            .with_password(&password)
            .with_setting("max_execution_time", ANSWER.as_secs().to_string())
            .with_validation(true);
        Ok(Self {
            client,
            inserter: Inserter::new(args.clickhouse_url.clone(), &args.clickhouse_user, &password)?,
            url: args.clickhouse_url.clone(),
            database: args.database.clone(),
            clock_ahead_ms: AtomicI64::new(UNSEEN),
        })
    }

    /// Where it is, without a password.
    pub fn address(&self) -> String {
        let mut url = self.url.clone();
        // Both fail only for URLs that cannot have a user, where there is nothing to hide.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.to_string().trim_end_matches('/').to_owned()
    }

    /// `database.table`, quoted.
    fn table(&self, name: &str) -> String {
        format!("`{}`.`{name}`", self.database)
    }

    /// The server's clock: milliseconds since the Unix epoch, or up to [`PROMPT_MS`] less, but never more: what expires by it
    /// must not live too long.
    fn server_now_ms(&self) -> i64 {
        let ahead = self.clock_ahead_ms.load(Relaxed);
        flows::now() / 1_000_000 + if ahead == UNSEEN { 0 } else { ahead }
    }

    /// How long it takes until an insert that may begin until `until_ms`, by the server's clock, no longer can.
    pub fn outwait(&self, until_ms: i64) -> Duration {
        let left_ms = until_ms.saturating_sub(self.server_now_ms()).saturating_add(1);
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(LIFETIME)
    }

    /// Takes the server's clock from an answer to a question that was asked `asked_ms` by ours.
    fn set_clock(&self, server_ms: i64, asked_ms: i64) {
        let now_ms = flows::now() / 1_000_000;
        if now_ms - asked_ms <= PROMPT_MS || self.clock_ahead_ms.load(Relaxed) == UNSEEN {
            self.clock_ahead_ms.store(server_ms - now_ms, Relaxed);
        }
    }
}
