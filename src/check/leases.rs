//! The present right to write the topic's rows.

use super::CheckConfig;
use super::kafka::Topic;
use super::report::{Answer, Verdict};
use crate::clickhouse::{ClickHouse, LeaseHolder, Role};
use crate::ingest::{owner, start};
use crate::printable::name;
use flows::{Claim, Failure};
use std::sync::Arc;

/// Says who holds the leases of the topic's partitions; another group, or another table, is a fault.
pub async fn check(config: &CheckConfig, (topic, clickhouse): (&Topic, &Arc<ClickHouse>)) -> Answer<()> {
    let asked = |failure: Failure| {
        Verdict::fail(format!("the leases cannot be read: {failure}"), "see the table of leases, and run this again")
    };
    let partitions: Vec<_> = topic.ends.keys().copied().collect();
    let found = clickhouse.leases(&topic.source, Role::Ingest, &partitions).await.map_err(asked)?;
    let claim = Claim::Group { group: owner(&config.clickhouse, &config.group), take_over: None };
    if let Some(why) = start::refused(&config.kafka.topic, &claim, &found.newest) {
        let remedy = "use the --group and --table that it names, or `clickstream ingest --take-over` with that group";
        return Err(Verdict::fail(why, remedy));
    }
    let holders = clickhouse.lease_holders(&topic.source).await.map_err(asked)?;
    let held: Vec<_> = holders.iter().map(told).collect();
    let text = if held.is_empty() { "nobody has stored rows of this topic here yet".into() } else { held.join("; ") };
    Ok((Verdict::ok(text), ()))
}

fn told(LeaseHolder { role, group, owner, since, partitions }: &LeaseHolder) -> String {
    format!(
        "partitions {partitions:?}: group {}, host and process {}, for {} since {since} UTC",
        name(group),
        name(owner),
        name(role)
    )
}
