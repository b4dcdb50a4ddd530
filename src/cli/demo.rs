//! The command line of what is looked at in a browser: `demo` and `dashboard`.

use super::values::{address, demo_rate, some_time, switch};
use super::{ClickHouseArgs, HostArgs};
use clap::Args;
use flows::Rate;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Events per second, up to 10,000
    #[arg(long, env = "CLICKSTREAM_RATE", default_value = "100", value_parser = demo_rate)]
    pub rate: Rate,

    /// How many shoppers there are
    #[arg(long, env = "CLICKSTREAM_USERS", default_value = "500")]
    pub users: NonZeroUsize,

    /// Stop after this time
    #[arg(long = "for", env = "CLICKSTREAM_FOR", value_parser = some_time, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// The dashboard's port; where it is taken, the next free one
    #[arg(long, env = "CLICKSTREAM_PORT", default_value_t = 3000)]
    pub port: u16,

    /// Keep ClickHouse's data in this directory [default: a temporary one, removed in the end]
    #[arg(long, env = "CLICKSTREAM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Open the dashboard in the browser
    #[arg(long, env = "CLICKSTREAM_OPEN", value_parser = switch)]
    pub open: bool,

    /// The time within which an event can be queried (`ingest` has 5s)
    #[arg(long, env = "CLICKSTREAM_BATCH_TIMEOUT", default_value = "1s", value_parser = some_time, value_name = "TIME")]
    pub batch_timeout: Duration,
}

#[derive(Args, Debug)]
pub struct DashboardArgs {
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Where to serve
    #[arg(long, env = "CLICKSTREAM_LISTEN", default_value = "127.0.0.1:3000", value_name = "HOST:PORT", value_parser = address)]
    pub listen: String,

    #[command(flatten)]
    pub hosts: HostArgs,
}
