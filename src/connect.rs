//! Waiting for services at the start.

use crate::clickhouse::ClickHouse;
use crate::kafka::admin::{self, Found};
use anyhow::{Result, bail};
use flows::{Backoff, Class};
use rdkafka::consumer::BaseConsumer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits until Kafka answers; returns what it says of the topic.
///
/// # Errors
/// When `patience` is over.
pub async fn kafka(client: &Arc<BaseConsumer>, brokers: &str, topic: &str, patience: Duration) -> Result<Found> {
    let deadline = Instant::now() + patience;
    let mut said = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let (client, name) = (client.clone(), topic.to_owned());
        let found =
            tokio::task::spawn_blocking(move || admin::find(&client, &name, left.min(Duration::from_secs(2)))).await?;
        match found {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                bail!(
                    "Kafka does not answer at {brokers} ({error}): is it running? see --brokers and --connect-timeout"
                )
            }
            Err(_) if !said => {
                tracing::info!("waiting for Kafka at {brokers}");
                said = true;
            }
            Err(_) => {}
        }
    }
}

/// Waits until ClickHouse answers and lets us in.
///
/// # Errors
/// When `patience` is over, or at once when it refuses us; with the reason, and what to do about it.
pub async fn clickhouse(clickhouse: &ClickHouse, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let (mut backoff, mut said) = (Backoff::default(), String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left.max(Duration::from_millis(100)), clickhouse.greet()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) if failure.class == Class::Permanent => {
                bail!("ClickHouse at {} refuses: {failure}", clickhouse.address())
            }
            Ok(Err(failure)) => failure.message,
            Err(_) => "no answer".into(),
        };
        let line = format!("{}: {failure}: {}", clickhouse.address(), remedy(&failure));
        if Instant::now() >= deadline {
            bail!("ClickHouse cannot be reached at {line} (see --clickhouse-url, --connect-timeout)");
        }
        if said != line {
            tracing::info!("waiting for ClickHouse at {line}");
            said = line;
        }
        backoff.wait().await;
    }
}

/// What to do about the reason why a connection fails, or an answer is not the one of ClickHouse: by the words that rustls,
/// hyper and the operating system have for it.
fn remedy(failure: &str) -> &'static str {
    const REMEDIES: &[(&[&str], &str)] = &[
        (&["dns error", "failed to lookup address"], "the name does not resolve on this machine"),
        (
            &["Connection refused"],
            "nobody listens there: start ClickHouse, or correct the port (HTTP is 8123 by default)",
        ),
        (
            &["UnknownIssuer", "CaUsedAsEndEntity"],
            "the certificate is self-signed, or signed by an authority that this program does not trust",
        ),
        (&["NotValidForName"], "the certificate is for another name: use the name that it was made for"),
        (&["Expired", "NotValidYet"], "the certificate is not valid now: renew it, or correct the clock"),
        (&["invalid peer certificate"], "the certificate is not accepted"),
        (
            &["InvalidContentType", "corrupt message", "InvalidMessage"],
            "no TLS is spoken there: use http://, or the port for https",
        ),
        (
            &["connection closed before message completed", "HTTP request to an HTTPS", "Connection reset by peer"],
            "the server hangs up: if TLS is spoken at that port, use https://",
        ),
        (
            &["something that is not ClickHouse"],
            "another server or a proxy answers there: correct the address, or ask its operator",
        ),
        (&["no answer", "timed out"], "nothing comes back: a firewall, a wrong address, or a server that is stalled"),
    ];
    let known = REMEDIES.iter().find(|(words, _)| words.iter().any(|word| failure.contains(word)));
    known.map_or("look at ClickHouse's log", |(_, remedy)| remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_remedy_of_its_own() {
        for (failure, said) in [
            (
                "client error (Connect): dns error: failed to lookup address information: Name or service not known",
                "resolve",
            ),
            ("client error (Connect): tcp connect error: Connection refused (os error 111)", "nobody listens"),
            ("client error (Connect): invalid peer certificate: UnknownIssuer", "trust"),
            ("client error (Connect): received corrupt message of type InvalidContentType", "http://"),
            ("client error (SendRequest): connection closed before message completed", "https://"),
            ("something odd", "log"),
        ] {
            assert!(remedy(failure).contains(said), "{failure}: {}", remedy(failure));
        }
    }
}
