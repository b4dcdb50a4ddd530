//! Serving HTTP: `/metrics` beside a pipeline, and the dashboard.

use crate::stop::Stop;
use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;

/// Listens at `address`, HOST:PORT.
///
/// # Errors
/// When the port is taken or the address is not of this machine; `option` is the flag that changes it.
pub async fn listen(address: &str, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}: see {option}"))
}

/// Serves until the stop is requested.
pub async fn serve(listener: TcpListener, router: Router, stop: Stop) -> Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.requested().await })
        .await
        .context("the HTTP server failed")
}
