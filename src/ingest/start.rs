//! The checks, and the waiting for services, before a member joins its group.

use super::IngestConfig;
use crate::clickhouse::{ClickHouse, Role};
use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::consumer::belongs_to;
use crate::kafka::{self, Naming};
use crate::numbers::grouped;
use anyhow::{Result, bail};
use flows::{Claim, Newest};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest time until a broker names the offsets behind an open transaction.
const TRANSACTIONS: Duration = Duration::from_secs(5);

/// Waits for both services and checks what has to be there.
pub async fn start(config: &IngestConfig, claim: &Claim) -> Result<(Arc<ClickHouse>, Option<BTreeMap<i32, i64>>)> {
    let patience = config.connect_timeout;
    let mut group = kafka::client_config(&config.kafka, &[])?;
    group.set("group.id", &config.group);
    let client = Arc::new(admin::client(&group)?);
    let clickhouse = Arc::new(ClickHouse::new(&config.clickhouse)?);
    let topic = &config.kafka.topic;
    let Found::Partitions(partitions) = connect::kafka(&client, topic, patience).await? else {
        bail!("topic {topic} is missing at {}: create it with `clickstream setup`", config.kafka.brokers);
    };
    let ends = connect::leaders(&client, topic, &partitions, patience).await?;
    if config.until_end {
        warn_of_open_transactions(&client, group, topic, &partitions).await?;
    }
    connect::group(&client, "READ", topic, &partitions, patience).await?;
    connect::clickhouse(&clickhouse, patience).await?;
    let time = config.time.as_deref();
    connect::checked(&clickhouse, patience, async || clickhouse.learn_table(topic, time).await).await?;
    connect::checked(&clickhouse, patience, async || clickhouse.may_insert().await).await?;
    connect::checked(&clickhouse, patience, async || clickhouse.check_to_write().await).await?;
    let source = match config.naming {
        Naming::ById => tokio::task::block_in_place(|| admin::source(&client, topic))?,
        Naming::ByName => topic.clone(),
    };
    let asked = async || clickhouse.leases(&source, Role::Ingest, &partitions).await;
    let leases = connect::checked(&clickhouse, patience, asked).await?;
    if let Some(why) = refused(topic, claim, &leases.newest) {
        bail!(why);
    }
    let until = ends.into_iter().map(|(partition, (_, high))| (partition, high)).collect();
    Ok((clickhouse, config.until_end.then_some(until)))
}

/// Why the rows of this topic are not to be written, if another group, or another table, has their leases.
pub fn refused(topic: &str, claim: &Claim, newest: &BTreeMap<i32, Newest>) -> Option<String> {
    newest.values().find_map(|lease| claim.is_refused(lease)).map(|owner| belongs_to(topic, owner))
}

/// Warns of messages that `--until-end` leaves out because a transaction before them is open: no consumer reads them
/// before it ends.
async fn warn_of_open_transactions(
    client: &Arc<Client>,
    mut config: ClientConfig,
    topic: &str,
    partitions: &[i32],
) -> Result<()> {
    config.set("isolation.level", "read_uncommitted");
    let (client, all, topic, partitions) =
        (client.clone(), admin::client(&config)?, topic.to_owned(), partitions.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        // In this order: messages that come in between are no sign of a transaction.
        let all = admin::ends(&all, &topic, &partitions, TRANSACTIONS)?;
        admin::ends(&client, &topic, &partitions, TRANSACTIONS).map(|stable| (all, stable))
    });
    let (all, stable) = match asked.await? {
        Ok(ends) => ends,
        Err(error) => {
            tracing::info!("cannot ask for open transactions: {error}");
            return Ok(());
        }
    };
    for (partition, (_, all)) in all {
        let stable = stable.get(&partition).map_or(all, |(_, stable)| *stable);
        if all > stable {
            tracing::warn!(
                "partition {partition}: {} messages from offset {stable} on are not read: a transaction is open there, and \
                 --until-end does not wait for its end; `kafka-transactions.sh find-hanging` says whose it is",
                grouped((all - stable).unsigned_abs())
            );
        }
    }
    Ok(())
}
