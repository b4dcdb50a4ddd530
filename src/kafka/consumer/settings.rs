//! librdkafka's settings of the consumer: those that the promises need, and the user's.

use crate::kafka::refused::{self, Refused};
use crate::kafka::{self, KafkaConfig};
use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use std::time::Duration;

/// Settings of the consumer, unless `--kafka` says otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"), // only the ledger commits
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "6000"), // a dead member's partitions move after that: as short as brokers allow
    ("heartbeat.interval.ms", "1000"),
    // Read in batches, librdkafka takes the end of a partition for a message that was consumed, and leaves one out later.
    ("enable.partition.eof", "false"),
    ("fetch.queue.backoff.ms", "10"), // the default of 1 s leaves a fast consumer waiting
    ("fetch.wait.max.ms", "100"),
    ("statistics.interval.ms", "500"), // says what is queued, and that brokers are away
    ("queued.min.messages", "50000"),
];

/// Bounds of the memory of a backlog: what the clients of a process may hold together, and the least that each one needs.
const SHARED: [(&str, u64, u64); 2] =
    [("queued.max.messages.kbytes", 16_384, 1_024), ("fetch.max.bytes", 8_388_608, 1_048_576)];

/// Settings that the promises hang on, and what would become of them.
const FIXED: Refused = &[
    ("enable.auto.commit", "offsets would be committed before their rows are stored"),
    ("auto.commit.enable", "offsets would be committed before their rows are stored"),
    ("enable.auto.offset.store", "offsets would be committed before their rows are stored"),
    ("offset.store.method", "offsets are kept by the group alone"),
    ("group.id", "the group is given with --group"),
    ("group.instance.id", "the name is given with --instance-id"),
    ("group.protocol.type", "other members of the group would not know this one"),
    ("enable.partition.eof", "the client's batches would leave messages out"),
];

/// The values of `auto.offset.reset` with which a group without committed offsets begins at the end of the topic.
const AT_THE_END: [&str; 3] = ["latest", "largest", "end"];

/// The time that a rebalance may take besides the drain: for the last commits, and for waiting on dropped inserts.
const BESIDE_THE_DRAIN: Duration = Duration::from_secs(30);
/// `max.poll.interval.ms`: what librdkafka has without a setting, and the most that it takes.
const USUAL_POLL_MS: u128 = 300_000;
const LONGEST_POLL_MS: u128 = 86_400_000;

/// The settings of the consumer: ours, and the user's over them. It is one of `clients` in this process, which share the memory.
///
/// # Errors
/// When a setting is refused, or does not fit the others.
pub fn client_config(
    kafka: &KafkaConfig,
    group: &str,
    drain_timeout: Duration,
    until_end: bool,
    clients: u64,
) -> Result<ClientConfig> {
    refused::check(&kafka.settings, FIXED)?;
    let name = |key| kafka.settings.name(key);
    let shares = SHARED.map(|(key, all, least)| (key, (all / clients).max(least).to_string()));
    let shares = shares.iter().map(|(key, share)| (*key, share.as_str()));
    let mut client = kafka::client_config(kafka, &DEFAULTS.iter().copied().chain(shares).collect::<Vec<_>>())?;
    client.set("group.id", group);
    let refresh = client.get("topic.metadata.refresh.interval.ms").and_then(|ms| ms.parse::<i64>().ok());
    if refresh.is_some_and(|ms| ms < 1) {
        bail!("{}: must be 1 or more: new partitions would not be found", name("topic.metadata.refresh.interval.ms"));
    }
    match client.get("auto.offset.reset") {
        Some("error") => bail!(
            "{}: `error` is not supported: where to begin is asked of the group, and what it has lost is said",
            name("auto.offset.reset")
        ),
        Some(reset) if until_end && AT_THE_END.contains(&reset) => bail!(
            "{}: cannot be combined with --until-end: a new group would begin at the end, and store nothing",
            name("auto.offset.reset")
        ),
        _ => {}
    }
    // A draining consumer does not poll. Kafka evicts a member that has not polled for this long, so a drain must be
    // shorter.
    let (drain, poll) = (drain_timeout, client.get("max.poll.interval.ms").and_then(|ms| ms.parse::<u128>().ok()));
    let shortest = (drain + BESIDE_THE_DRAIN).as_millis();
    if poll.is_some_and(|poll| poll < shortest) {
        bail!("{}: must be {shortest} or more: --drain-timeout is {drain:?}", name("max.poll.interval.ms"));
    }
    if shortest > LONGEST_POLL_MS {
        bail!(
            "--drain-timeout {drain:?}: must be half a minute less than a day at most: Kafka waits no longer for a member"
        );
    }
    if client.get("max.poll.interval.ms").is_none() {
        client.set("max.poll.interval.ms", shortest.max(USUAL_POLL_MS).to_string());
    }
    // In the new protocol the broker sets the session, and revokes without asking.
    if client.get("group.protocol").is_some_and(|protocol| !protocol.eq_ignore_ascii_case("classic")) {
        bail!("{}: only `classic` is supported", name("group.protocol"));
    }
    Ok(client)
}
