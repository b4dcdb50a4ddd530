//! Waiting for services at the start.

use crate::clickhouse::ClickHouse;
use crate::kafka::Reason;
use crate::kafka::admin::{self, Client, Found};
use anyhow::{Result, anyhow, bail};
use flows::{Backoff, ErrorKind, Failure};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the first question to Kafka may take before what stands in the way is looked at; each next one may take twice as
/// long, for brokers that are slow.
const ATTEMPT: Duration = Duration::from_secs(1);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(8);
/// The pause before another attempt after an immediate failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until Kafka answers; returns its description of the topic.
///
/// # Errors
/// When `patience` is over, or at once if waiting cannot help. Both have the reason and the action.
pub async fn kafka(client: &Arc<Client>, topic: &str, patience: Duration) -> Result<Found> {
    let name = topic.to_owned();
    answer(client, "DESCRIBE", topic, patience, move |client, left| admin::find(client, &name, left)).await
}

/// Waits until Kafka answers, whether or not there is the topic; returns the number of its brokers.
///
/// # Errors
/// As [`kafka`].
pub async fn brokers(client: &Arc<Client>, topic: &str, patience: Duration) -> Result<usize> {
    let name = topic.to_owned();
    let brokers =
        move |client: &Client, left| client.fetch_metadata(Some(&name), left).map(|metadata| metadata.brokers().len());
    answer(client, "DESCRIBE", topic, patience, brokers).await
}

/// Waits until the leaders of these partitions answer; returns the topic's ends. A broker that sends its clients to an address
/// that they cannot reach answers before that.
///
/// # Errors
/// As [`kafka`].
pub async fn leaders(
    client: &Arc<Client>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> Result<BTreeMap<i32, (i64, i64)>> {
    let (name, wanted) = (topic.to_owned(), partitions.to_vec());
    answer(client, "DESCRIBE", topic, patience, move |client, left| admin::ends(client, &name, &wanted, left)).await
}

/// Waits until the coordinator of the client's group answers; returns what the group has committed. This user needs the right to
/// `operation` on the group.
///
/// # Errors
/// As [`kafka`].
pub async fn group(
    client: &Arc<Client>,
    operation: &'static str,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> Result<BTreeMap<i32, Option<i64>>> {
    let (name, wanted) = (topic.to_owned(), partitions.to_vec());
    answer(client, operation, topic, patience, move |client, left| admin::committed(client, &name, &wanted, left)).await
}

/// Repeats the request until there is an answer.
async fn answer<T: Send + 'static>(
    client: &Arc<Client>,
    operation: &'static str,
    topic: &str,
    patience: Duration,
    question: impl Fn(&Client, Duration) -> KafkaResult<T> + Send + Sync + 'static,
) -> Result<T> {
    let (question, deadline) = (Arc::new(question), Instant::now() + patience);
    let (mut attempt, mut logged) = (ATTEMPT, None::<Reason>);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).clamp(PAUSE, attempt);
        attempt = (attempt * 2).min(LONGEST_ATTEMPT);
        let (asker, asks) = (client.clone(), question.clone());
        let error = match tokio::task::spawn_blocking(move || asks(&asker, left)).await? {
            Ok(answer) => {
                client.context().clear();
                if logged.is_some() {
                    tracing::info!("Kafka answers");
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        let reason = admin::explain(client, operation, topic, &error);
        if reason.is_final() {
            bail!("Kafka: {reason}");
        }
        if Instant::now() >= deadline {
            let patience = humantime::format_duration(patience);
            bail!("no answer from Kafka within --connect-timeout {patience}: {reason}");
        }
        if logged.as_ref().is_none_or(|logged| !logged.is_like(&reason)) {
            tracing::info!("waiting for Kafka: {reason}");
            logged = Some(reason);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until ClickHouse answers and lets us in.
///
/// # Errors
/// When `patience` is over, or at once when it refuses us; with the reason, and what to do about it.
pub async fn clickhouse(clickhouse: &ClickHouse, patience: Duration) -> Result<()> {
    let refused = |failure: Failure| anyhow!("ClickHouse at {} refuses: {failure}", clickhouse.address());
    asked(clickhouse, patience, refused, async || clickhouse.ping().await).await
}

/// Waits until ClickHouse has answered a question of the start: it may be busy, or a proxy may fail, at any of them.
///
/// # Errors
/// As [`clickhouse()`]; a failure that will not pass by itself is returned unchanged.
pub async fn checked<A>(
    clickhouse: &ClickHouse,
    patience: Duration,
    question: impl AsyncFn() -> Result<A, Failure>,
) -> Result<A> {
    asked(clickhouse, patience, |failure| anyhow!("{failure}"), question).await
}

async fn asked<A>(
    clickhouse: &ClickHouse,
    patience: Duration,
    refused: impl Fn(Failure) -> anyhow::Error,
    question: impl AsyncFn() -> Result<A, Failure>,
) -> Result<A> {
    let deadline = Instant::now() + patience;
    let (mut backoff, mut said) = (Backoff::default(), String::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left.max(Duration::from_millis(100)), question()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) if failure.kind == ErrorKind::Permanent => return Err(refused(failure)),
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

/// The action for a connection that fails, or an answer that is not ClickHouse's: by the words of rustls, hyper and the
/// operating system.
fn remedy(failure: &str) -> &'static str {
    const REMEDIES: &[(&[&str], &str)] = &[
        (&["dns error", "failed to lookup address"], "the name does not resolve on this machine"),
        (
            &["Connection refused"],
            "nothing listens there: start ClickHouse, or correct the port (HTTP is 8123 by default)",
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
            "the server does not speak TLS there: use http://, or the port for https",
        ),
        (
            &["connection closed before message completed", "HTTP request to an HTTPS", "Connection reset by peer"],
            "the server closes the connection: if that port needs TLS, use https://",
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
            ("client error (Connect): tcp connect error: Connection refused (os error 111)", "nothing listens"),
            ("client error (Connect): invalid peer certificate: UnknownIssuer", "trust"),
            ("client error (Connect): received corrupt message of type InvalidContentType", "http://"),
            ("client error (SendRequest): connection closed before message completed", "https://"),
            ("something odd", "log"),
        ] {
            assert!(remedy(failure).contains(said), "{failure}: {}", remedy(failure));
        }
    }
}
