//! `clickstream dashboard`: the dashboards of `dashboards/` as live web pages.

use crate::cli::DashboardArgs;
use crate::clickhouse::Reader;
use crate::dashboard::{self, Health};
use crate::http::{self, Origins};
use crate::output;
use crate::shutdown::Shutdown;
use anyhow::Result;

/// Serves until a stop is requested, also while ClickHouse is away.
///
/// # Errors
/// When the address cannot be listened at, or the password's file cannot be read.
pub async fn run(args: DashboardArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let reader = Reader::new(&args.clickhouse.config())?;
    let listener = http::listen(&args.listen, "--listen").await?;
    output::line(format_args!("dashboard at http://{}", listener.local_addr()?))?;
    let router = dashboard::router(reader, Health::default());
    http::serve(listener, router, Origins::of_pages(args.hosts.names()), shutdown).await;
    Ok(())
}
