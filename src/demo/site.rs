//! The demo's page: a free port, the server behind it, and a browser on request.

use crate::clickhouse::{ClickHouseConfig, Reader};
use crate::dashboard::{self, Health};
use crate::output;
use crate::shutdown::Shutdown;
use crate::telemetry::http::{self, Origins};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// How many ports are tried.
const PORTS: u16 = 50;

/// A page that is served. It ends when this is dropped.
pub struct Site {
    pub url: String,
    pub health: Health,
    _serving: AbortOnDropHandle<()>,
}

impl Site {
    /// Serves what ClickHouse answers to `reading`, at this port or the next free one, and says where.
    ///
    /// # Errors
    /// When there is none, or the password's file cannot be read.
    pub async fn open(port: u16, reading: &ClickHouseConfig) -> Result<Self> {
        let reader = Reader::new(reading)?;
        let (listener, url) = listen(port).await?;
        output::line(format_args!("dashboard   {url}"))?;
        let health = Health::default();
        let router = dashboard::router(reader, dashboard::Names::default(), health.clone());
        let serving = http::serve(listener, router, Origins::of_pages(Vec::new()), Shutdown::default());
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        Ok(Self { url, health, _serving: serving })
    }

    /// Opens the page in the user's browser.
    ///
    /// # Errors
    /// When no browser can be started.
    pub fn open_browser(&self) -> Result<()> {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let mut browser = Command::new(program);
        browser.arg(&self.url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match browser.spawn() {
            Ok(_) => Ok(()),
            Err(error) => output::line(format_args!(
                "dashboard   cannot open a browser ({program}: {error}): open {} yourself",
                self.url
            )),
        }
    }
}

async fn listen(port: u16) -> Result<(TcpListener, String)> {
    for candidate in port..=port.saturating_add(PORTS - 1) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate)).await {
            if candidate > port {
                output::line(format_args!("dashboard   port {port} is taken: using {candidate}"))?;
            }
            let url = format!("http://{}", listener.local_addr()?);
            return Ok((listener, url));
        }
    }
    bail!("no free port from {port} on for the dashboard: see --port")
}
