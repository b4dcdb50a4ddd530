//! The ClickHouse adapter: connecting, applying and checking the schema, inserting, and asking what is stored.

mod answer;
mod bounded;
mod clock;
mod condition;
mod endpoint;
mod erase;
mod failure;
mod http;
mod insert;
mod insert_id;
mod other_sources;
mod password;
mod pins;
mod questions;
mod reader;
mod rejects;
mod rows;
mod schema;
mod settings;
mod shelf;
mod tables;
mod ttl;
mod types;
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
use flows::{Class, Failure};
use insert::Inserter;
use settings::Settings;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

/// How long an answer to a question may take before the question is asked again.
const ANSWER: Duration = Duration::from_secs(10);

/// How often the server's clock and the tables are looked at, and how soon again where they could not be.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The password out of its file; empty where there is none.
fn password(args: &ClickHouseArgs) -> Result<String> {
    args.clickhouse_password_file.as_deref().map_or_else(|| Ok(String::new()), password::read)
}

/// A ClickHouse server and a database in it.
pub struct ClickHouse {
    /// Without settings: they come with each statement.
    client: clickhouse::Client,
    settings: Arc<Settings>,
    inserter: Inserter,
    endpoint: Endpoint,
    database: String,
    clock: Arc<Clock>,
    misfit: Mutex<Option<Failure>>,
    warned_of_replicas: Once,
}

impl ClickHouse {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn new(args: &ClickHouseArgs) -> Result<Self> {
        let endpoint = Endpoint::new(args)?;
        let settings = Arc::new(Settings::new(&args.clickhouse_user));
        Ok(Self {
            client: endpoint.client(),
            inserter: Inserter::new(endpoint.clone(), settings.clone()),
            settings,
            endpoint,
            database: args.database.clone(),
            clock: Arc::default(),
            misfit: Mutex::default(),
            warned_of_replicas: Once::new(),
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

    /// Makes sure of what the promises stand on: that our settings count, that the tables keep what they are given, and that we see
    /// all of it.
    ///
    /// # Errors
    /// The first thing that does not fit, and what to do.
    pub async fn check(&self) -> Result<(), Failure> {
        self.learn_settings().await?;
        self.check_tables().await?;
        self.check_row_policies().await
    }

    /// The server's clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Looks at what may change under an ingester, as long as this is polled: the server's clock, which drifts and is set, and
    /// the tables, which somebody may alter. Once they no longer keep what they are given, nothing more is sent.
    pub async fn keep_watch(self: Arc<Self>) {
        loop {
            let wait = if self.greet().await.is_ok() { LOOK_AGAIN } else { TRY_AGAIN };
            match self.check().await {
                Ok(()) => *self.misfit() = None,
                Err(failure) if failure.class == Class::Permanent => *self.misfit() = Some(failure),
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Why nothing may be sent, if the last look at the tables has found a reason.
    fn misfit(&self) -> MutexGuard<'_, Option<Failure>> {
        // One value that is replaced in one step.
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it takes until an insert that may begin until `until_ms`, by the server's clock, no longer can.
    pub fn outwait(&self, until_ms: i64) -> Duration {
        let left_ms = until_ms.saturating_sub(self.clock.now_ms()).saturating_add(1);
        Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)).min(LIFETIME)
    }
}
