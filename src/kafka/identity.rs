//! The identity of a topic: one that was deleted and created again has the same name, and begins at offset 0 once more.

use super::consumer::Client;
use super::{topic_id, topic_identity};
use flows::{LeaseLost, Origin, Proof, TopicIdentity};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// The longest time until the broker answers with the topic's id; librdkafka's mock cluster never does.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The identity of a topic, which differs from that of a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// The topic's id, which is requested.
    ById,
    /// Nothing but its name: the broker is known to have no ids, and would only be waited for.
    ByName,
}

/// A topic, as it was when a lease was opened.
#[derive(Clone)]
pub struct Identity {
    client: Arc<Client>,
    topic: TopicIdentity,
}

impl Identity {
    /// Requests the id.
    ///
    /// # Errors
    /// The broker's error, for example that the topic does not exist.
    pub fn ask(client: &Arc<Client>, topic: &str, naming: Naming) -> Result<Self, RDKafkaErrorCode> {
        let native = client.client().native_client();
        let topic = topic_identity::ask(native, topic, naming == Naming::ById, REQUEST_TIMEOUT)?;
        Ok(Self { client: client.clone(), topic })
    }

    /// The `_source` of the topic's rows: the id, or the name if the broker has no ids.
    pub fn source(&self) -> &str {
        self.topic.source()
    }

    /// The id of the cluster, if it has one.
    pub fn cluster(&self) -> Option<&str> {
        self.topic.cluster.as_deref()
    }

    /// Where an offset that was committed with this metadata comes from.
    pub fn origin(&self, metadata: &str) -> Origin {
        self.topic.origin(metadata)
    }

    /// Whether the topic is still this one.
    ///
    /// librdkafka goes on in the new topic at the old one's offset without a word, so what was received is known to be of this topic
    /// only if this is asked afterwards. Once is enough: an id never comes back. A topic that still has it when the broker answers had
    /// it when all earlier records were received, whatever becomes of it later. A broker that does not answer has not handed out
    /// anything of another topic either, but that proves nothing for later.
    ///
    /// # Errors
    /// [`LeaseLost`] when it is gone, or another one.
    pub async fn prove(&self) -> Result<Proof, LeaseLost> {
        if self.topic.id.is_none() {
            return Ok(Proof::Certain);
        }
        let mine = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            topic_id(mine.client.client().native_client(), &mine.topic.name, REQUEST_TIMEOUT)
        });
        match asked.await {
            Ok(Ok(Some(id))) if self.topic.id.as_ref() == Some(&id) => Ok(Proof::Certain),
            Ok(Ok(Some(_)) | Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                Err(LeaseLost)
            }
            _ => Ok(Proof::Unanswered),
        }
    }
}
