//! Recovers a client that has forgotten all its brokers.
//!
//! A broker that shuts down may answer with a topic and no brokers (librdkafka's issue 5301). librdkafka then forgets
//! every broker that it knows, also those of `bootstrap.servers`. Without any broker it sends no more requests, and
//! would stall silently, without end. Or it keeps one broker that it has given up and cannot free yet, and waits for a
//! connection that this one will never make. Its statistics show both cases, and adding the bootstrap addresses again
//! ends them.

use super::native;
use super::statistics::{Broker, Statistics};
use rdkafka::client::NativeClient;
use std::time::Duration;

/// A broker that librdkafka has given up stays in its first state, in which it connects to nothing. One that is only away leaves
/// that state again for another try, after `reconnect.backoff.max.ms`, 2 s, at the latest; one that is not needed stays in it,
/// too, but then another one is connected.
const GIVEN_UP: Duration = Duration::from_secs(4);

impl Broker {
    fn is_coordinator_up(&self) -> bool {
        self.source == "logical" && self.is_up()
    }

    fn is_given_up(&self) -> bool {
        self.state == "INIT" && u128::try_from(self.stateage).is_ok_and(|age| age > GIVEN_UP.as_micros())
    }
}

/// Whether a client has no broker left.
pub fn has_no_brokers(Statistics { brokers, .. }: &Statistics) -> bool {
    let mut real = brokers.values().filter(|broker| broker.is_real()).peekable();
    real.peek().is_none() || real.all(Broker::is_given_up) && !brokers.values().any(Broker::is_coordinator_up)
}

/// Gives a client the addresses of `bootstrap.servers` again.
pub fn readd_bootstrap(client: &NativeClient, brokers: &str) {
    tracing::warn!("the Kafka client has lost all its brokers: going back to {brokers}");
    native::add_brokers(client, brokers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, Producer};

    #[test]
    fn a_client_is_lost_when_only_what_points_to_brokers_is_left() {
        let statistics = |brokers: &[(&str, &str, i64)]| {
            let broker = |(nth, (source, state, seconds)): (usize, &(&str, &str, i64))| {
                format!(r#""{nth}":{{"source":"{source}","state":"{state}","stateage":{seconds}000000}}"#)
            };
            let brokers: Vec<_> = brokers.iter().enumerate().map(broker).collect();
            let json = format!(r#"{{"brokers":{{{}}},"topics":{{}}}}"#, brokers.join(","));
            Statistics::read(json.as_bytes()).unwrap()
        };
        let coordinator = ("logical", "UP", 60);
        for alive in [
            &[("configured", "UP", 60)][..],
            &[("learned", "UP", 60), coordinator],
            &[("learned", "INIT", 60), ("learned", "UP", 60)],
            &[("configured", "INIT", 2)],
            &[("configured", "TRY_CONNECT", 60)],
            &[("learned", "INIT", 60), coordinator],
        ] {
            assert!(!has_no_brokers(&statistics(alive)), "{alive:?}");
        }
        for lost in [
            &[][..],
            &[coordinator, ("internal", "UP", 60)],
            &[("learned", "INIT", 60), ("logical", "TRY_CONNECT", 60)],
            &[("configured", "INIT", 5), ("learned", "INIT", 60)],
        ] {
            assert!(has_no_brokers(&statistics(lost)), "{lost:?}");
        }
    }

    #[test]
    fn a_client_without_a_broker_goes_on_with_the_one_it_is_given() {
        let cluster = MockCluster::new(1).unwrap();
        // Nobody listens there.
        let client: BaseProducer = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
        let asks = |patience| client.client().fetch_metadata(None, Duration::from_millis(patience));
        assert!(asks(200).is_err());
        readd_bootstrap(client.client().native_client(), &cluster.bootstrap_servers());
        assert_eq!(asks(20_000).unwrap().brokers().len(), 1);
    }
}
