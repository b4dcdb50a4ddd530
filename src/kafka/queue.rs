//! How much the client library holds: out of the statistics that librdkafka gives from time to time.

use serde::Deserialize;
use std::collections::HashMap;

/// The part of librdkafka's statistics that is looked at (its STATISTICS.md documents all of them).
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    msg_size: u64,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    #[serde(default)]
    fetchq_size: u64,
}

/// Bytes of messages that wait to be sent, or that were fetched ahead.
pub fn bytes(statistics: &[u8]) -> u64 {
    let Ok(Statistics { msg_size, topics }) = serde_json::from_slice(statistics) else { return 0 };
    let fetched = topics.values().flat_map(|topic| topic.partitions.values()).map(|partition| partition.fetchq_size);
    msg_size + fetched.sum::<u64>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_waits_is_added_up() {
        let statistics =
            br#"{"msg_size":7,"x":[],"topics":{"t":{"partitions":{"0":{"fetchq_size":30},"-1":{"fetchq_size":5}}}}}"#;
        assert_eq!((super::bytes(statistics), super::bytes(b"no")), (42, 0));
    }
}
