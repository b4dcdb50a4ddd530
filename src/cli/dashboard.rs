//! `clickstream dashboard`: the dashboards of `dashboards/` as live web pages.

use super::values::address;
use super::{ClickHouseArgs, HostArgs, TableArgs, TimeArgs};
use crate::clickhouse::Reader;
use crate::dashboard::{self, Health, Names};
use crate::output;
use crate::shutdown::Shutdown;
use crate::telemetry::http::{self, Origins};
use anyhow::Result;
use clap::Args;

#[derive(Args, Debug)]
pub struct DashboardArgs {
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub time: TimeArgs,

    /// Where to serve
    #[arg(long, env = "CLICKSTREAM_LISTEN", default_value = "127.0.0.1:3000", value_name = "HOST:PORT", value_parser = address)]
    pub listen: String,

    #[command(flatten)]
    pub hosts: HostArgs,
}

/// Serves until a shutdown is requested, also while ClickHouse is away.
///
/// # Errors
/// When it cannot listen at the address, or read the password's file.
pub async fn run(args: DashboardArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let config = args.table.config(&args.clickhouse);
    let reader = Reader::new(&config)?;
    let listener = http::listen(&args.listen, "--listen").await?;
    output::line(format_args!("dashboard at http://{}", listener.local_addr()?))?;
    let router = dashboard::router(reader, Names::new(&config, args.time.time), Health::default());
    http::serve(listener, router, Origins::of_pages(args.hosts.names()), shutdown).await;
    Ok(())
}
