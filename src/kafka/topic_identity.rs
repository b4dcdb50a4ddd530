//! The ids by which a topic is told from others of its name.

use super::native;
use flows::{TopicIdentity, cluster_id};
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode;
use std::time::Duration;

/// Requests the ids of a topic and of its cluster; without `has_id`, only the cluster's.
///
/// # Errors
/// The broker's error about the topic, or that it has not answered: see [`native::topic_id`].
pub fn ask(
    client: &NativeClient,
    name: &str,
    has_id: bool,
    timeout: Duration,
) -> Result<TopicIdentity, RDKafkaErrorCode> {
    let id = if has_id { native::topic_id(client, name, timeout)? } else { None };
    Ok(TopicIdentity { name: name.to_owned(), id, cluster: cluster(client, timeout) })
}

/// The id of the cluster, in the form in which it is committed.
pub fn cluster(client: &NativeClient, timeout: Duration) -> Option<String> {
    native::cluster_id(client, timeout).and_then(|id| cluster_id(&id))
}
