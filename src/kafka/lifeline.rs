//! Brings back a client that has forgotten all its brokers.
//!
//! A broker that is going down may answer with a topic and no brokers; librdkafka (its issue 5301) then forgets every broker that
//! it knows, those of `bootstrap.servers` too, and with none left it asks nobody any more: it would stand still for ever, without
//! a word. Its statistics show that, and the cure is to give it the addresses again.

use super::native;
use rdkafka::client::NativeClient;
use serde::Deserialize;
use std::collections::HashMap;

/// The part of librdkafka's statistics that is looked at.
#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    source: String,
}

/// Whether a client has no broker left, by its statistics. A group's coordinator, which is listed too, is a pointer to one.
pub fn is_lost(statistics: &[u8]) -> bool {
    let real = |broker: &Broker| matches!(broker.source.as_str(), "configured" | "learned");
    serde_json::from_slice::<Statistics>(statistics).is_ok_and(|found| !found.brokers.values().any(real))
}

/// Gives a client the addresses of `bootstrap.servers` again.
pub fn throw(client: &NativeClient, brokers: &str) {
    tracing::warn!("the Kafka client has lost all its brokers: going back to {brokers}");
    native::add_brokers(client, brokers);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, Producer};
    use std::time::Duration;

    #[test]
    fn a_client_is_lost_when_only_what_points_to_brokers_is_left() {
        let statistics = |sources: &[&str]| {
            let broker = |(nth, source)| format!(r#""{nth}":{{"source":"{source}","state":"UP"}}"#);
            let brokers: Vec<_> = sources.iter().enumerate().map(broker).collect();
            format!(r#"{{"brokers":{{{}}},"topics":{{}}}}"#, brokers.join(","))
        };
        for alive in [&["configured"][..], &["learned", "logical"]] {
            assert!(!is_lost(statistics(alive).as_bytes()), "{alive:?}");
        }
        for lost in [&[][..], &["logical", "internal"]] {
            assert!(is_lost(statistics(lost).as_bytes()), "{lost:?}");
        }
        assert!(!is_lost(b"no statistics"));
    }

    #[test]
    fn a_client_without_a_broker_goes_on_with_the_one_it_is_given() {
        let cluster = MockCluster::new(1).unwrap();
        // Nobody listens there.
        let client: BaseProducer = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
        let asks = |patience| client.client().fetch_metadata(None, Duration::from_millis(patience));
        assert!(asks(200).is_err());
        throw(client.client().native_client(), &cluster.bootstrap_servers());
        assert_eq!(asks(20_000).unwrap().brokers().len(), 1);
    }
}
