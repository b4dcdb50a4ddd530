//! The version of a Kafka broker, for the conditions of a latency log.
//!
//! A broker does not tell its version. It tells which levels of `metadata.version` it supports, in the answer to the request
//! `ApiVersions`, and each release of Kafka since 3.3 has levels of its own. librdkafka does not pass that on, so the request is sent here, on a
//! connection of its own. Where brokers want TLS or SASL, the version stays unknown.

use super::KafkaConfig;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time for one broker to connect and to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer has less than a kilobyte. Something else than a broker may answer anything.
const LONGEST_ANSWER: usize = 64 << 10;
/// `ApiVersions`, version 3: the first one whose answer has the broker's features.
const API_VERSIONS: i16 = 18;
const VERSION: i16 = 3;
/// The tag of the features that the broker supports.
const SUPPORTED: u64 = 0;
const FEATURE: &[u8] = b"metadata.version";

/// The last level of each release, as in `MetadataVersion.java`.
const RELEASES: [(i16, &str); 11] = [
    (7, "3.3"),
    (8, "3.4"),
    (11, "3.5"),
    (14, "3.6"),
    (19, "3.7"),
    (20, "3.8"),
    (21, "3.9"),
    (25, "4.0"),
    (27, "4.1"),
    (29, "4.2"),
    (30, "4.3"),
];

/// The release of the first broker that answers; none if that cannot be known.
pub async fn of_broker(kafka: &KafkaConfig) -> Option<String> {
    let protocol = kafka.settings.iter().filter(|setting| setting.key == "security.protocol").last();
    if protocol.is_some_and(|setting| !setting.value.eq_ignore_ascii_case("plaintext")) {
        return None;
    }
    for broker in kafka.brokers.split(',') {
        let address = broker.trim().trim_start_matches("PLAINTEXT://");
        if let Ok(Ok(answer)) = tokio::time::timeout(TIMEOUT, ask(address)).await {
            return release(level(&answer)?);
        }
    }
    None
}

async fn ask(address: &str) -> std::io::Result<Vec<u8>> {
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:9092") };
    let mut broker = TcpStream::connect(address).await?;
    broker.write_all(&request()).await?;
    let length = usize::try_from(broker.read_i32().await?).unwrap_or(0).min(LONGEST_ANSWER);
    let mut answer = vec![0; length];
    broker.read_exact(&mut answer).await?;
    Ok(answer)
}

fn request() -> Vec<u8> {
    const NAME: &[u8] = b"clickstream";
    let mut body = Vec::new();
    body.extend(API_VERSIONS.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(1_i32.to_be_bytes()); // the request's number
    body.extend((NAME.len() as i16).to_be_bytes());
    body.extend(NAME);
    body.push(0); // no tagged fields
    for text in [NAME, env!("CARGO_PKG_VERSION").as_bytes()] {
        body.push(text.len() as u8 + 1);
        body.extend(text);
    }
    body.push(0); // no tagged fields
    [&(body.len() as i32).to_be_bytes()[..], &body].concat()
}

/// The highest supported level of `metadata.version` in an answer.
fn level(answer: &[u8]) -> Option<i16> {
    let mut rest = Reader(answer);
    rest.take(4)?; // the request's number
    if rest.take(2)? != [0, 0] {
        return None;
    }
    for _ in 1..rest.number()? {
        rest.take(6)?; // an API and its versions
        rest.skip_tagged()?;
    }
    rest.take(4)?; // a throttle
    for _ in 0..rest.number()? {
        let (tag, size) = (rest.number()?, rest.number()?);
        let mut field = Reader(rest.take(size.try_into().ok()?)?);
        if tag == SUPPORTED {
            return field.level();
        }
    }
    None
}

/// The bytes that are not read yet.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, bytes: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn skip_tagged(&mut self) -> Option<()> {
        for _ in 0..self.number()? {
            self.number()?;
            let size = self.number()?;
            self.take(size.try_into().ok()?)?;
        }
        Some(())
    }

    /// The highest level in a list of features.
    fn level(&mut self) -> Option<i16> {
        for _ in 1..self.number()? {
            let length = self.number()?.checked_sub(1)?;
            let name = self.take(length.try_into().ok()?)?;
            self.take(2)?; // the lowest level
            let highest = i16::from_be_bytes(self.take(2)?.try_into().ok()?);
            self.skip_tagged()?;
            if name == FEATURE {
                return Some(highest);
            }
        }
        None
    }
}

fn release(level: i16) -> Option<String> {
    let (newest, name) = RELEASES[RELEASES.len() - 1];
    if level > newest {
        return Some(format!("newer than {name} (metadata.version {level})"));
    }
    RELEASES.iter().find(|(last, _)| level <= *last).map(|(_, release)| (*release).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The answer of a broker of Kafka 4.3 with two APIs.
    fn answer(features: &[(&str, i16, i16)]) -> Vec<u8> {
        let mut list = vec![features.len() as u8 + 1];
        for (name, lowest, highest) in features {
            list.push(name.len() as u8 + 1);
            list.extend(name.as_bytes());
            list.extend([lowest.to_be_bytes(), highest.to_be_bytes()].concat());
            list.push(0);
        }
        let mut answer = vec![0, 0, 0, 1, 0, 0, 3];
        answer.extend([0, 0, 0, 0, 0, 13, 0, 0, 1, 0, 4, 0, 18, 0]);
        answer.extend([0, 0, 0, 0, 1, 0, list.len() as u8]);
        [answer, list].concat()
    }

    #[test]
    fn the_highest_level_of_a_broker_is_its_release() {
        let answered = answer(&[("group.version", 0, 1), ("metadata.version", 7, 30)]);
        assert_eq!(level(&answered).and_then(release).as_deref(), Some("4.3"));
        assert_eq!(level(&answer(&[("group.version", 0, 1)])), None);
        let names = [8, 9, 25, 26, 31].map(|level| release(level).unwrap());
        assert_eq!(names, ["3.4", "3.5", "4.0", "4.1", "newer than 4.3 (metadata.version 31)"]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes: Vec<u8>, cut in 0_usize..60) {
            let _ = level(&bytes);
            let whole = answer(&[("metadata.version", 7, 30)]);
            let _ = level(&whole[..cut.min(whole.len())]);
        }
    }
}
