//! `clickstream health`: asks a running `produce` or `ingest` how it is, for health checks where there is no curl.

use super::values::{address, switch};
use crate::output;
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::time::Duration;

/// The longest time until the answer: `/readyz` itself waits a second for ClickHouse.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The read limit of an answer, which is one line.
const RESPONSE_BYTES: usize = 1_024;

#[derive(Args, Debug)]
pub struct HealthArgs {
    /// The HOST:PORT of --metrics in `produce` or `ingest`; for an address of all interfaces, the loopback one is used
    #[arg(long, env = "CLICKSTREAM_METRICS", value_name = "HOST:PORT", value_parser = address)]
    pub metrics: String,

    /// Ask whether it does its work (/readyz), not only whether it lives (/healthz)
    #[arg(long, env = "CLICKSTREAM_READY", value_parser = switch)]
    pub ready: bool,
}

/// Prints the answer, if it is a good one.
///
/// # Errors
/// When it is not, or there is none.
pub async fn run(args: HealthArgs) -> Result<()> {
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{}/{path}", reachable(&args.metrics));
    let answer = tokio::time::timeout(RESPONSE_TIMEOUT, ask(&url)).await;
    let (good, line) =
        answer.map_err(|_| anyhow!("{url} does not answer within {} s", RESPONSE_TIMEOUT.as_secs()))??;
    if !good {
        bail!("{line}");
    }
    output::line(line)
}

/// Whether the answer is a good one, and its line.
async fn ask(url: &str) -> Result<(bool, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = url.parse().with_context(|| format!("{url} is no address: see --metrics, HOST:PORT"))?;
    let response = client.get(uri).await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), RESPONSE_BYTES).collect().await;
    let body = body.map_err(|error| anyhow!("{url} answers {status} and then: {error}"))?.to_bytes();
    let line = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().trim().to_owned();
    Ok((status.is_success(), if line.is_empty() { format!("{url} answers {status}") } else { line }))
}

/// Maps an address that means all interfaces to the loopback one.
fn reachable(address: &str) -> String {
    match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(all)) if all.ip().is_unspecified() => format!("127.0.0.1:{}", all.port()),
        Ok(SocketAddr::V6(all)) if all.ip().is_unspecified() => format!("[::1]:{}", all.port()),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_at_the_loopback_one() {
        for (given, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.0.0.1:9464", "10.0.0.1:9464"),
            ("localhost:9464", "localhost:9464"),
        ] {
            assert_eq!(reachable(given), asked);
        }
    }
}
