//! The ClickHouse adapter: connecting, applying and checking the schema, inserting, and asking what is stored.

mod clock;
mod condition;
mod endpoint;
mod erase;
mod failure;
mod http;
mod insert;
mod insert_id;
mod password;
mod questions;
mod reader;
mod rejects;
mod rows;
mod schema;
mod shelf;
mod ttl;
pub mod users;

pub use clock::{Clock, Moment};
pub use condition::Condition;
pub use endpoint::Endpoint;
pub use erase::{Erasure, Rows};
pub use failure::describe;
pub use insert_id::InsertId;
pub use questions::{Census, WINDOW};
pub use reader::{Columns, NoAnswer, Reader};
pub use rejects::{Choice, Count, Place, Row};
pub use schema::Tables;
pub use shelf::{LIFETIME, Shelf};
pub use ttl::Expiry;

use crate::cli::ClickHouseArgs;
use anyhow::Result;
use insert::Inserter;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer to a question may take before the question is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the server's clock is read, and how soon again where it could not be.
const READ_CLOCK: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The password out of its file; empty where there is none.
fn password(args: &ClickHouseArgs) -> Result<String> {
    args.clickhouse_password_file.as_deref().map_or_else(|| Ok(String::new()), password::read)
}

/// A ClickHouse server and a database in it.
pub struct ClickHouse {
    client: clickhouse::Client,
    inserter: Inserter,
    endpoint: Endpoint,
    database: String,
    clock: Arc<Clock>,
}

impl ClickHouse {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn new(args: &ClickHouseArgs) -> Result<Self> {
        let endpoint = Endpoint::new(args)?;
        Ok(Self {
            client: endpoint.client().with_setting("max_execution_time", ANSWER.as_secs().to_string()),
            inserter: Inserter::new(endpoint.clone()),
            endpoint,
            database: args.database.clone(),
            clock: Arc::default(),
        })
    }

    /// Where it is, without anything that could be a secret.
    pub fn address(&self) -> &str {
        self.endpoint.address()
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
