//! Where ClickHouse is: the options of every command that asks it.

use super::values::{HttpUrl, header_value, identifier};
use crate::clickhouse::ClickHouseConfig;
use clap::Args;
use std::path::PathBuf;
use url::Url;

/// The address of ClickHouse.
#[derive(Args, Clone, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_URL", default_value = "http://localhost:8123", value_parser = HttpUrl, hide_env_values = true)]
    pub clickhouse_url: Url,

    /// ClickHouse's user
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_USER", default_value = "default", value_parser = header_value)]
    pub clickhouse_user: String,

    /// A file with the user's password in one line
    #[arg(long, env = "CLICKSTREAM_CLICKHOUSE_PASSWORD_FILE", value_name = "FILE")]
    pub clickhouse_password_file: Option<PathBuf>,

    /// ClickHouse's database
    #[arg(long, env = "CLICKSTREAM_DATABASE", default_value = "clickstream", value_parser = identifier)]
    pub database: String,
}

impl ClickHouseArgs {
    /// The configuration of the adapter.
    pub fn config(&self) -> ClickHouseConfig {
        ClickHouseConfig {
            url: self.clickhouse_url.clone(),
            user: self.clickhouse_user.clone(),
            password_file: self.clickhouse_password_file.clone(),
            database: self.database.clone(),
            table: None,
            evolve: false,
        }
    }
}
