//! The demo's broker: librdkafka's mock cluster, which speaks the protocol on a port of its own.

use crate::kafka::native;
use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use std::time::Duration;

/// The broker's wait for more members before it assigns partitions: there is one member, so it does not wait.
const NOBODY_ELSE: Duration = Duration::from_millis(100);

/// A broker in this process. Dropping it ends it.
pub struct Broker {
    /// The client that the cluster hangs on; it sends nothing itself.
    client: BaseProducer,
}

impl Broker {
    /// Starts it, with an empty topic.
    ///
    /// # Errors
    /// When it finds no port on the loopback address.
    pub fn start(topic: &str, partitions: i32) -> Result<Self> {
        let client: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()
            .context("cannot start the in-process broker")?;
        native::first_rebalance_after(client.client().native_client(), NOBODY_ELSE);
        let broker = Self { client };
        broker.cluster()?.create_topic(topic, partitions, 1).context("cannot create the topic")?;
        Ok(broker)
    }

    /// Where it listens, HOST:PORT.
    ///
    /// # Errors
    /// Never, once it has started.
    pub fn address(&self) -> Result<String> {
        Ok(self.cluster()?.bootstrap_servers())
    }

    fn cluster(&self) -> Result<MockCluster<'_, DefaultProducerContext>> {
        self.client.client().mock_cluster().context("the in-process broker is gone")
    }
}
