//! Kafka's side: its settings, the brokers, the topic, and the group.

use super::CheckConfig;
use super::report::{Answer, Outcome, Report, Verdict};
use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::consumer::{DRAIN_TIMEOUT, client_config};
use crate::kafka::native::Group;
use crate::kafka::{self, ranges, version};
use crate::numbers::grouped;
use crate::printable::name;
use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Partitions, and members, that are named.
const NAMED: usize = 10;

/// The longest time until a broker that has answered describes the topic.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings, and a client that joins no group.
pub struct Settings {
    client: Arc<Client>,
    /// Those of a consumer that reads ranges.
    reader: ClientConfig,
    /// How a member of the group would share its partitions with others.
    strategies: String,
    begins_at: &'static str,
}

/// The topic.
pub struct Topic {
    /// `_source` of its rows.
    pub source: String,
    /// The first offset and the one behind the last, for each partition.
    pub ends: BTreeMap<i32, (i64, i64)>,
    /// Settings of a consumer that reads it.
    pub reader: ClientConfig,
}

/// Checks Kafka's side, and returns the topic.
pub async fn checks(config: &CheckConfig) -> (Report, Outcome<Topic>) {
    let mut report = Report::default();
    let settings = report.check("kafka options", async { settings(config) }).await;
    let brokers =
        report.check_with("brokers", settings.found(), async |settings| brokers(config, settings).await).await;
    let topic =
        report.check_with("topic", settings.with(&brokers), async |(s, all)| topic(config, s, *all).await).await;
    report.check_with("group", settings.with(&topic), async |both| group(config, both).await).await;
    (report, topic)
}

/// Makes what `ingest` would make of the options.
fn settings(config: &CheckConfig) -> Answer<Settings> {
    let made = || -> Result<Settings> {
        let member = client_config(&config.kafka, &config.group, DRAIN_TIMEOUT, false, 1)?;
        let mut reader = kafka::client_config(&config.kafka, ranges::DEFAULTS)?;
        reader.set("group.id", &config.group);
        let setting = |key| member.get(key).unwrap_or_default();
        let begins_at = match setting("auto.offset.reset") {
            "latest" | "largest" | "end" => "end",
            _ => "beginning",
        };
        let strategies = setting("partition.assignment.strategy").to_owned();
        Ok(Settings { client: Arc::new(admin::client(&reader)?), reader, strategies, begins_at })
    };
    let made = made().map_err(|error| {
        Verdict::fail(format!("{error:#}: `ingest` would not start"), "correct that option: see docs/options.md")
    })?;
    let (brokers, topic, group) = (&config.kafka.brokers, &config.kafka.topic, name(&config.group));
    let set = config.kafka.settings.iter().count();
    let text = format!("brokers {brokers}, topic {topic}, group {group}, and {set} settings of librdkafka");
    Ok((Verdict::ok(text), made))
}

/// Returns their number.
async fn brokers(config: &CheckConfig, settings: &Settings) -> Answer<usize> {
    let asked = connect::brokers(&settings.client, &config.kafka.topic, config.connect_timeout).await;
    let brokers = asked.map_err(|error| {
        let remedy = "correct --brokers or the --kafka settings of the connection, or start Kafka";
        Verdict::fail(format!("{error:#}: nothing would be read or lost"), remedy)
    })?;
    let version = version::of_broker(&config.kafka).await;
    let version = version.map_or("of an unknown version".into(), |version| format!("of Kafka {version}"));
    Ok((Verdict::ok(format!("{} {version}", count(brokers, "broker"))), brokers))
}

async fn topic(config: &CheckConfig, settings: &Settings, brokers: usize) -> Answer<Topic> {
    let (client, topic, patience) = (&settings.client, &config.kafka.topic, config.connect_timeout);
    let failed = |error: anyhow::Error| {
        Verdict::fail(
            format!("{error:#}: nothing would be read, and messages wait in Kafka"),
            "correct --topic, or this user's rights",
        )
    };
    let Found::Partitions(partitions) = connect::kafka(client, topic, patience).await.map_err(failed)? else {
        let text = format!("topic {topic} is missing at {}: there is nothing to read", config.kafka.brokers);
        return Err(Verdict::fail(text, "`clickstream setup` creates it; or correct --topic"));
    };
    let ends = connect::leaders(client, topic, &partitions, patience).await.map_err(failed)?;
    let (asker, of) = (client.clone(), topic.clone());
    let asked =
        tokio::task::spawn_blocking(move || -> Result<_> { Ok((admin::source(&asker, &of)?, replicas(&asker, &of)?)) });
    let asked = asked.await.unwrap_or_else(|crash| Err(anyhow!("asking Kafka crashed: {crash}")));
    let (source, replicas) = asked.map_err(failed)?;
    let messages: u64 = ends.values().map(|(low, high)| high.saturating_sub(*low).max(0).unsigned_abs()).sum();
    let least = replicas.values().map(|(all, _)| *all).min().unwrap_or(0);
    let text = format!(
        "{topic} (id {source}): {}, {} offsets, {}",
        count(partitions.len(), "partition"),
        grouped(messages),
        count(least, "replica")
    );
    let behind: Vec<_> = replicas.iter().filter(|(_, (all, in_sync))| in_sync < all).map(|(at, _)| *at).collect();
    let verdict = if !behind.is_empty() {
        Verdict::warn(
            format!(
                "{text}; replicas of partitions {behind:?} are not in sync: a broker that dies now may take messages along, or stop the flow"
            ),
            format!("kafka-topics.sh --describe --topic {topic} --under-replicated-partitions"),
        )
    } else if least == 1 && brokers > 1 {
        Verdict::warn(
            format!(
                "{text}: a broker that dies stops the flow of its partitions, and a lost disk takes messages that are not stored yet"
            ),
            "give the topic more replicas (kafka-reassign-partitions.sh)",
        )
    } else {
        Verdict::ok(text)
    };
    Ok((verdict, Topic { source, ends, reader: settings.reader.clone() }))
}

/// For each partition the number of its replicas, and of those that are in sync.
fn replicas(client: &Client, topic: &str) -> Result<BTreeMap<i32, (usize, usize)>> {
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT);
    let metadata = metadata.map_err(|error| anyhow!("{}", admin::explain(client, "DESCRIBE", topic, &error)))?;
    let partitions =
        metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|found| found.partitions());
    Ok(partitions.map(|found| (found.id(), (found.replicas().len(), found.isr().len()))).collect())
}

/// Says how far the group is, and who is in it.
async fn group(config: &CheckConfig, (settings, topic): (&Settings, &Topic)) -> Answer<()> {
    let failed = |error: anyhow::Error| {
        Verdict::fail(
            format!("{error:#}: an ingester could not join the group, or not commit, so nothing would be stored"),
            "grant READ on the group, or use another --group",
        )
    };
    let (client, name) = (&settings.client, config.group.clone());
    let partitions: Vec<_> = topic.ends.keys().copied().collect();
    let asked = connect::group(client, "READ", &config.kafka.topic, &partitions, config.connect_timeout).await;
    let committed = asked.map_err(failed)?;
    let asker = client.clone();
    let asked = tokio::task::spawn_blocking(move || admin::group(&asker, &name)).await;
    let group = asked.unwrap_or_else(|crash| Err(anyhow!("asking Kafka crashed: {crash}"))).map_err(failed)?;
    let text = format!("{}; {}", progress(&committed, &topic.ends, settings.begins_at), members(&group));
    let strategies = &settings.strategies;
    let verdict = if !group.assignor.is_empty() && !strategies.split(',').any(|ours| ours.trim() == group.assignor) {
        Verdict::warn(
            format!(
                "{text}; they share the partitions by {}, and `ingest` by {strategies}: it could not join",
                group.assignor
            ),
            "end those members first (docs/your-events.md, \"Coming from another tool\"), or use another --group",
        )
    } else if let Some(odd) = out_of_range(&committed, &topic.ends) {
        Verdict::warn(
            format!("{text}; {odd}"),
            "see docs/operations.md: \"Messages were deleted before they were read\"",
        )
    } else {
        Verdict::ok(text)
    };
    Ok((verdict, ()))
}

type Committed = BTreeMap<i32, Option<i64>>;
type Ends = BTreeMap<i32, (i64, i64)>;

/// The lag, partition by partition.
fn progress(committed: &Committed, ends: &Ends, begins_at: &str) -> String {
    if committed.values().all(Option::is_none) {
        return format!("it has committed nothing, and begins at the topic's {begins_at}");
    }
    let lag = |(partition, (low, high)): (&i32, &(i64, i64))| {
        let mark = committed.get(partition).copied().flatten().unwrap_or(*low);
        (*partition, high.saturating_sub(mark).max(0).unsigned_abs())
    };
    let lags: Vec<_> = ends.iter().map(lag).collect();
    let all: u64 = lags.iter().map(|(_, lag)| lag).sum();
    let each = lags.iter().take(NAMED).map(|(partition, lag)| format!("partition {partition}: {}", grouped(*lag)));
    format!("lag {} ({}{})", grouped(all), each.collect::<Vec<_>>().join(", "), and_more(lags.len()))
}

fn members(Group { members, .. }: &Group) -> String {
    let each = members.iter().take(NAMED);
    let each = each.map(|(client, host, partitions)| {
        format!("{} at {} with {}", name(client), name(host), count(*partitions, "partition"))
    });
    match members.len() {
        0 => "no members".into(),
        all => format!("{}: {}{}", count(all, "member"), each.collect::<Vec<_>>().join(", "), and_more(all)),
    }
}

/// The first partition whose committed offset the topic does not have.
fn out_of_range(committed: &Committed, ends: &Ends) -> Option<String> {
    committed.iter().find_map(|(partition, mark)| {
        let (mark, &(low, high)) = ((*mark)?, ends.get(partition)?);
        if mark < low {
            let lost = grouped((low - mark).unsigned_abs());
            return Some(format!(
                "partition {partition}: {lost} messages from offset {mark} on were deleted before the group read them: they are lost"
            ));
        }
        (mark > high).then(|| {
            format!("partition {partition}: offset {mark} is committed, beyond the topic's end {high}: the topic was created again or truncated")
        })
    })
}

fn count(number: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(number as u64), if number == 1 { "" } else { "s" })
}

fn and_more(all: usize) -> String {
    if all > NAMED { format!(", and {} more", all - NAMED) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_counted_from_the_first_offset_where_nothing_is_committed() {
        let ends = [(0, (0, 10)), (1, (5, 25)), (2, (0, 0))].into();
        let none = [(0, None), (1, None), (2, None)].into();
        assert_eq!(progress(&none, &ends, "end"), "it has committed nothing, and begins at the topic's end");
        let some = [(0, Some(4)), (1, None), (2, Some(0))].into();
        assert_eq!(progress(&some, &ends, "end"), "lag 26 (partition 0: 6, partition 1: 20, partition 2: 0)");
        let many = (0..12).map(|partition| (partition, (0, 1))).collect();
        assert!(progress(&some, &many, "end").ends_with(", and 2 more)"));
    }

    #[test]
    fn a_committed_offset_that_the_topic_does_not_have_is_told() {
        let ends = [(0, (5, 10))].into();
        let told = |mark| out_of_range(&[(0, mark)].into(), &ends);
        assert_eq!([None, Some(5), Some(10)].map(told), [None, None, None]);
        assert!(told(Some(2)).is_some_and(|text| text.contains("3 messages from offset 2 on were deleted")));
        assert!(told(Some(11)).is_some_and(|text| text.contains("beyond the topic's end 10")));
    }

    #[test]
    fn members_are_named_by_where_they_run() {
        let of = |members: usize| {
            let member = ("clickstream".to_owned(), "/10.0.0.7".to_owned(), 2);
            Group { members: vec![member; members], ..Group::default() }
        };
        assert_eq!(members(&of(0)), "no members");
        assert_eq!(members(&of(1)), "1 member: clickstream at /10.0.0.7 with 2 partitions");
        assert!(members(&of(11)).ends_with(", and 1 more"));
    }
}
