//! The ClickHouse adapter: connecting, applying and checking the schema, inserting, and asking which offsets are
//! stored.

mod alive;
mod answer;
mod block;
mod bounded;
mod condition;
mod config;
mod endpoint;
mod erase;
mod evolve;
mod failure;
mod http;
mod insert;
mod insert_id;
mod lease_table;
mod leases;
#[cfg(test)]
mod mock;
mod other_sources;
mod own_table;
mod password;
mod patiently;
mod pins;
mod profile;
mod questions;
mod reader;
mod rejects;
mod rights;
mod rows;
mod schema;
mod scratch;
mod script;
mod settings;
mod sink;
mod sorting_key;
mod store;
mod table_fault;
mod tables;
mod ttl;
mod types;
mod unanswered;
pub(crate) mod users;

pub(crate) use condition::Condition;
pub use config::ClickHouseConfig;
pub(crate) use endpoint::Endpoint;
pub(crate) use erase::{Erasure, Rows};
pub(crate) use failure::describe;
pub(crate) use leases::{LeaseHolder, Role};
pub(crate) use own_table::backquoted;
pub(crate) use patiently::patiently;
pub(crate) use questions::{Census, WINDOW, quoted};
pub(crate) use reader::{Columns, NoAnswer, Reader};
pub(crate) use rejects::{Choice, Count, Foreign, Place, Row};
pub use rows::encode as encode_rows;
pub(crate) use schema::Tables;
pub(crate) use scratch::Counters;
pub(crate) use script::statements;
pub(crate) use settings::OLDEST_VERSION;
pub(crate) use sink::{ClickHouseSink, Writer};
pub use store::ClickHouseStore;
pub(crate) use table_fault::{TableFault, Unfit};
pub(crate) use tables::{LEASES, TABLES};
pub(crate) use ttl::Expiry;

use anyhow::Result;
use bytes::Bytes;
use evolve::Evolve;
use flows::{Decode, ErrorKind, Failure, Shop, Table};
use http_body_util::Empty;
use insert::Inserter;
use own_table::OwnTable;
use settings::Settings;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest time until the answer to a question, before it is repeated.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer to a ping: a word, or the page of a proxy.
const PONG_BYTES: usize = 64 * 1024;

/// How often the tables are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The password out of its file; empty where there is none.
fn password(config: &ClickHouseConfig) -> Result<String> {
    config.password_file.as_deref().map_or_else(|| Ok(String::new()), password::read)
}

/// A ClickHouse server and a database in it.
pub(crate) struct ClickHouse {
    /// Without settings: they come with each statement.
    client: clickhouse::Client,
    settings: Arc<Settings>,
    inserter: Inserter,
    pings: http::Client<Empty<Bytes>>,
    endpoint: Endpoint,
    database: String,
    /// The name of the table of good rows.
    events: String,
    /// Its columns, if it is one of the user's own, as they were last read.
    own_table: Mutex<Option<Arc<OwnTable>>>,
    evolve: Evolve,
    misfit: Mutex<Option<Failure>>,
}

impl ClickHouse {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn new(config: &ClickHouseConfig) -> Result<Self> {
        let endpoint = Endpoint::new(config)?;
        let settings = Arc::new(Settings::new(&config.user));
        Ok(Self {
            client: endpoint.client(),
            inserter: Inserter::new(endpoint.clone(), settings.clone()),
            pings: http::client(PONG_BYTES),
            settings,
            endpoint,
            database: config.database.clone(),
            events: config.table.clone().unwrap_or_else(|| Table::Events.name().to_owned()),
            own_table: Mutex::default(),
            evolve: Evolve::new(config.evolve),
            misfit: Mutex::default(),
        })
    }

    /// Where it is, without anything that could be a secret.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// `database.table`, quoted.
    fn table(&self, name: &str) -> String {
        format!("`{}`.`{}`", self.database, self.name_of(name))
    }

    /// The name of one of our tables; `events` may be another one, of the user's own.
    fn name_of<'n>(&'n self, name: &'n str) -> &'n str {
        if name == Table::Events.name() { &self.events } else { name }
    }

    /// `database.table`, for people.
    pub fn shown(&self, name: &str) -> String {
        format!("{}.{}", self.database, self.name_of(name))
    }

    /// Whether it is a table of the user's own.
    fn is_own(&self, name: &str) -> bool {
        self.name_of(name) != name
    }

    /// The decoder for the table of good rows.
    pub fn decoder(&self) -> Arc<dyn Decode> {
        self.own_table().map_or_else(|| Arc::new(Shop) as Arc<dyn Decode>, |table| table.decoder.clone())
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

    /// Makes sure of all that, and of the leases without which no row may be written.
    ///
    /// # Errors
    /// The first thing that does not fit, and what to do.
    pub async fn check_to_write(&self) -> Result<(), Failure> {
        self.check().await?;
        self.check_leases().await?;
        self.check_lease_policy().await
    }

    /// Checks the tables, which somebody may alter under an ingester, while this is polled; and adds columns, if it is asked to.
    pub async fn keep_watch(self: Arc<Self>) {
        tokio::join!(self.watch_tables(), self.keep_evolving());
    }

    /// Once the tables no longer keep every value, the sink sends nothing more.
    async fn watch_tables(&self) {
        loop {
            match self.check_to_write().await {
                Ok(()) => {
                    *self.misfit() = None;
                    self.tell_unknown_fields();
                }
                Err(failure) if failure.kind == ErrorKind::Permanent => *self.misfit() = Some(failure),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Tells of fields of messages that the user's own table does not name, each once.
    pub fn tell_unknown_fields(&self) {
        let names = self.own_table().map(|table| table.decoder.take_unknown_names()).unwrap_or_default();
        if !names.is_empty() {
            tracing::warn!(
                "table {}.{} names no column for these fields, which are ignored: {} (a column _unknown of type JSON would take them)",
                self.database,
                self.events,
                names.join(", ")
            );
        }
    }

    /// Why nothing may be sent, if the last look at the tables has found a reason.
    fn misfit(&self) -> MutexGuard<'_, Option<Failure>> {
        // One value that is replaced in one step.
        self.misfit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
