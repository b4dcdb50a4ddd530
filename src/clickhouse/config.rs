//! Where ClickHouse is: as plain values.

use std::path::PathBuf;
use url::Url;

/// Where ClickHouse is, as which user to come, and the database.
#[derive(Clone, Debug)]
pub struct ClickHouseConfig {
    /// The address of its HTTP interface, `http://` or `https://`. Its query goes along with each request.
    pub url: Url,
    /// The user there.
    pub user: String,
    /// A file with the user's password, in one line; none for a user without a password.
    pub password_file: Option<PathBuf>,
    /// The database with the tables.
    pub database: String,
    /// The user's own table in it; none for the shop's `events`.
    pub table: Option<String>,
    /// Whether `ingest` adds columns to that table, for fields that it does not name.
    pub evolve: bool,
}
