//! The ClickHouse adapter: connecting, applying and checking the schema, inserting, and asking what is stored.

mod clock;
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

pub use clock::{Clock, Moment};
pub use failure::describe;
pub use questions::WINDOW;
pub use reader::{Columns, NoAnswer, Reader};
pub use rejects::{Choice, Count, Place, Row};
pub use schema::Tables;
pub use shelf::{LIFETIME, Shelf};

use crate::cli::ClickHouseArgs;
use anyhow::{Context, Result};
use insert::Inserter;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long an answer to a question may take before the question is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the server's clock is read, and how soon again where it could not be.
const READ_CLOCK: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    clock: Arc<Clock>,
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
            clock: Arc::default(),
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

    /// The server's clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Reads the server's clock now and then, as long as this is polled: clocks drift apart, and are set.
    pub async fn keep_time(self: Arc<Self>) {
        loop {
            let wait = if self.greet().await.is_ok() { READ_CLOCK } else { TRY_AGAIN };
            tokio::time::sleep(wait).await;
        }
    }

    /// How long it takes until an insert that may begin until `until_ms`, by the server's clock, no longer can.
    pub fn outwait(&self, until_ms: i64) -> Duration {
        let left_ms = until_ms.saturating_sub(self.clock.now_ms()).saturating_add(1);
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(LIFETIME)
    }
}
