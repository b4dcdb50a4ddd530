//! The metadata of a commit: the topic's identity, and notes for an audit about earlier offsets.

use crate::OffsetRange;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// The ranges of lost messages that are kept: Kafka takes 4 KB of metadata.
const KEPT: usize = 16;

/// The beginning of our metadata, before the number of its version.
const MARK: &str = "clickstream/";
const VERSION: u32 = 1;
/// Characters of a cluster's id that are kept: Kafka's have 22.
const CLUSTER: usize = 128;

/// How long an insert of a member of that time may wait before it begins, by ClickHouse's clock.
pub const UNMARKED_LIFETIME: Duration = Duration::from_secs(4);

/// The metadata of one partition's committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Written by this program.
    Ours(Ours),
    /// Another client's, or none: it says nothing, and the offset counts as for any consumer.
    Foreign,
}

/// Our metadata: `clickstream/1;cluster=ID;topic=ID`, and where they apply `;from=OFFSET`, `;read=OFFSET`, `;gaps`, and
/// `;lost=COUNT,FIRST-LAST+FIRST-LAST,TIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// None where the brokers have no id for it, and in the form before the first marked one.
    pub cluster: Option<String>,
    /// The topic's id, or its name where the broker has no ids.
    pub topic: String,
    /// The notes about the partition.
    pub notes: Notes,
}

/// Notes about a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The group has taken this partition over from another cluster here: what lies before was read there.
    pub from: Option<i64>,
    /// From the committed offset up to this one the topic has no message, only transaction markers, for example. So
    /// none is lost when they are deleted.
    pub read: Option<i64>,
    /// Offsets were passed that held no message, though nothing was deleted there: transactions, or compaction.
    pub has_gaps: bool,
    /// Messages that were deleted before they were read.
    pub lost: Option<LostMessages>,
}

/// Messages of a partition that were deleted before the group had read them. It stays with the group's offset, so that an audit
/// can tell afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostMessages {
    /// How many, in all.
    pub messages: u64,
    /// Their offsets, the last ones of many.
    #[serde(serialize_with = "inclusive")]
    pub ranges: Vec<OffsetRange>,
    /// When the last ones were found to be.
    pub at: DateTime<Utc>,
}

impl LostMessages {
    /// Adds messages that were found to be deleted now.
    pub fn add(before: Option<Self>, offsets: OffsetRange) -> Self {
        let (messages, mut ranges) = before.map_or((0, Vec::new()), |before| (before.messages, before.ranges));
        ranges.push(offsets);
        ranges.drain(..ranges.len().saturating_sub(KEPT));
        Self { messages: messages + offsets.len(), ranges, at: Utc::now() }
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ',');
        let messages = parts.next()?.parse().ok()?;
        let range = |range: &str| {
            let (first, last) = range.split_once('-')?;
            Some(OffsetRange::new(first.parse().ok()?, last.parse::<i64>().ok()?.checked_add(1)?))
        };
        let ranges = parts.next()?.split('+').map(range).collect::<Option<_>>()?;
        let at = DateTime::parse_from_rfc3339(parts.next()?).ok()?.to_utc();
        Some(Self { messages, ranges, at })
    }
}

impl Notes {
    /// Messages were found to be deleted before they were read.
    pub(super) fn note_lost(&mut self, offsets: OffsetRange) {
        self.lost = Some(LostMessages::add(self.lost.take(), offsets));
    }

    /// Up to where all was read, if this offset is committed with them.
    pub fn read_up_to(&self, mark: i64) -> i64 {
        self.read.map_or(mark, |read| read.max(mark))
    }

    /// Takes in one part of a text; false if it is none of these notes.
    fn take(&mut self, part: &str) -> bool {
        match part.split_once('=').unwrap_or((part, "")) {
            ("from", offset) => self.from = offset.parse().ok(),
            ("read", offset) => self.read = offset.parse().ok(),
            ("gaps", _) => self.has_gaps = true,
            ("lost", lost) => self.lost = LostMessages::read(lost),
            _ => return false,
        }
        true
    }
}

impl Metadata {
    /// Reads what any client may have written.
    pub fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let head = parts.next().unwrap_or_default();
        if is_topic_id(head) {
            return Self::unmarked(head, parts);
        }
        let is_marked = head.strip_prefix(MARK).is_some_and(|version| version.parse::<u32>().is_ok());
        let (mut cluster, mut topic, mut notes) = (None, None, Notes::default());
        for part in parts {
            match part.split_once('=').filter(|(_, value)| !value.is_empty()) {
                Some(("cluster", id)) => cluster = Some(id.to_owned()),
                Some(("topic", id)) => topic = Some(id.to_owned()),
                // A later version may add fields; existing fields keep their meaning in all versions.
                _ => _ = notes.take(part),
            }
        }
        match topic.filter(|_| is_marked) {
            Some(topic) => Self::Ours(Ours { cluster, topic, notes }),
            None => Self::Foreign,
        }
    }

    /// Whether a member has written this that knew no leases: its last inserts may begin for [`UNMARKED_LIFETIME`] after it is gone.
    pub fn is_unmarked(text: &str) -> bool {
        is_topic_id(text.split(';').next().unwrap_or_default())
    }

    /// The form before the first marked one: the topic's id alone, and then the notes.
    fn unmarked<'t>(topic: &str, mut parts: impl Iterator<Item = &'t str>) -> Self {
        let mut notes = Notes::default();
        if parts.all(|part| notes.take(part)) {
            Self::Ours(Ours { cluster: None, topic: topic.to_owned(), notes })
        } else {
            Self::Foreign
        }
    }
}

/// Whether this is 16 bytes in base64, as ids of topics are: the last of the 22 characters stands for two bits. librdkafka writes
/// `+` and `/` where Kafka's own tools write `-` and `_`.
fn is_topic_id(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    text.len() == 22 && text.bytes().all(is_digit) && text.ends_with(['A', 'Q', 'g', 'w'])
}

/// A cluster's id in a form that fits between the separators. Brokers choose it: Kafka's ids look like those of topics,
/// other brokers' may differ.
pub fn cluster_id(id: &str) -> Option<String> {
    let plain: String = id.chars().filter(|c| c.is_ascii_graphic() && *c != ';').take(CLUSTER).collect();
    Some(plain).filter(|id| !id.is_empty())
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, topic, notes: Notes { from, read, has_gaps, lost } } = self;
        write!(f, "{MARK}{VERSION}")?;
        if let Some(cluster) = cluster {
            write!(f, ";cluster={cluster}")?;
        }
        write!(f, ";topic={topic}")?;
        if let Some(from) = from {
            write!(f, ";from={from}")?;
        }
        if let Some(read) = read {
            write!(f, ";read={read}")?;
        }
        if *has_gaps {
            f.write_str(";gaps")?;
        }
        if let Some(LostMessages { messages, ranges, at }) = lost {
            let ranges: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.first, range.next - 1)).collect();
            let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
            write!(f, ";lost={messages},{},{at}", ranges.join("+"))?;
        }
        Ok(())
    }
}

fn inclusive<S: Serializer>(ranges: &[OffsetRange], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ranges.iter().map(|range| (range.first, range.next - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "Xz9hvwy5QoOjQVYvwoGRQw";

    fn notes() -> Notes {
        let at = DateTime::from_timestamp(1_705_329_000, 0).unwrap();
        let lost = LostMessages { messages: 70, ranges: vec![OffsetRange::new(7, 27), OffsetRange::new(100, 150)], at };
        Notes { from: Some(5), read: Some(201), has_gaps: true, lost: Some(lost) }
    }

    fn ours(cluster: Option<&str>, topic: &str, notes: Notes) -> Ours {
        Ours { cluster: cluster.map(str::to_owned), topic: topic.to_owned(), notes }
    }

    #[test]
    fn written_metadata_is_read_back() {
        let all = ours(Some("5L6g3nShT-eMCtK--X86sw"), TOPIC, notes());
        let text = "clickstream/1;cluster=5L6g3nShT-eMCtK--X86sw;topic=Xz9hvwy5QoOjQVYvwoGRQw;from=5;read=201;gaps;\
                    lost=70,7-26+100-149,2024-01-15T14:30:00Z";
        assert_eq!(all.to_string(), text);
        for written in [all, ours(Some("c"), TOPIC, Notes::default()), ours(None, "clicks", notes())] {
            assert_eq!(Metadata::read(&written.to_string()), Metadata::Ours(written));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_says_the_same() {
        for text in ["clickstream/2;new;cluster=c;newer=3;topic=t;read=7", "clickstream/10;topic=t;read=7;cluster=c;;"]
        {
            let expected = ours(Some("c"), "t", Notes { read: Some(7), ..Notes::default() });
            assert_eq!(Metadata::read(text), Metadata::Ours(expected), "{text}");
        }
        // A note that cannot be read is left out.
        for part in ["lost=x,1-2,now", "lost=1,1", "read=", "read=x", "from=1e3"] {
            let expected = ours(None, "t", Notes::default());
            assert_eq!(Metadata::read(&format!("clickstream/1;topic=t;{part}")), Metadata::Ours(expected), "{part}");
        }
    }

    #[test]
    fn the_form_without_a_mark_is_ours_of_an_unknown_cluster() {
        let text = format!("{TOPIC};read=201;gaps;lost=70,7-26+100-149,2024-01-15T14:30:00Z");
        let expected = ours(None, TOPIC, Notes { from: None, ..notes() });
        assert_eq!(Metadata::read(&text), Metadata::Ours(expected));
        for id in [TOPIC, "tnNLUncLQ560lK6C6d/aDA", "tnNLUncLQ560+K6C6d_aDA", "-_AAAAAAAAAAAAAAAAAAAg"] {
            assert_eq!(Metadata::read(id), Metadata::Ours(ours(None, id, Notes::default())), "{id}");
        }
    }

    #[test]
    fn metadata_of_other_clients_is_not_ours() {
        for other in [
            "",
            ";",
            ";;;",
            "x;y",
            "null",
            "{\"host\":\"a\"}",
            "AgAAAZOqAAAA",                         // Kafka Streams
            "c2f9a6f0-6f3e-4b0e-9a53-4c1a1c3a6d0e", // a UUID
            "Xz9hvwy5QoOjQVYvwoGRQ",                // too short for an id
            "Xz9hvwy5QoOjQVYvwoGRQx",               // no 16 bytes
            "Xz9hvwy5QoOj=VYvwoGRQw",               // no base64
            "Xz9hvwy5QoOjQVYvwoGRQw;somebody=else",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "clickstream",
            "clickstream/",
            "clickstream/x;topic=t",
            "clickstream/1",
            "clickstream/1;topic=",
            "clickstream/1;cluster=c",
            "Clickstream/1;topic=t",
            " clickstream/1;topic=t",
        ] {
            assert_eq!(Metadata::read(other), Metadata::Foreign, "{other}");
        }
    }

    #[test]
    fn an_id_of_any_cluster_fits_between_the_separators() {
        let odd = format!("a;topic=b c\n\u{e9}{}", "x".repeat(500));
        let cluster = cluster_id(&odd);
        assert_eq!(cluster.as_deref().map(|id| (&id[..10], id.len())), Some(("atopic=bcx", CLUSTER)));
        let written = Ours { cluster, ..ours(None, TOPIC, Notes::default()) };
        assert_eq!(Metadata::read(&written.to_string()), Metadata::Ours(written));
        assert_eq!((cluster_id(""), cluster_id(" ;")), (None, None));
    }

    #[test]
    fn later_losses_are_added_to_earlier_ones_and_the_text_stays_short() {
        let ranges: Vec<_> = (0..100).map(|nth| OffsetRange::new(nth * 10, nth * 10 + 3)).collect();
        let lost = ranges.iter().fold(None, |lost, range| Some(LostMessages::add(lost, *range))).unwrap();
        assert_eq!((lost.messages, &lost.ranges[..]), (300, &ranges[100 - KEPT..]));
        let ranges = vec![OffsetRange::new(i64::MAX - 2, i64::MAX); KEPT];
        let lost = Some(LostMessages { messages: u64::MAX, ranges, ..lost });
        let (from, read) = (Some(i64::MAX), Some(i64::MAX));
        let longest = Ours {
            cluster: cluster_id(&"c".repeat(1_000)),
            topic: "x".repeat(249),
            notes: Notes { from, read, has_gaps: true, lost },
        };
        assert!(longest.to_string().len() < 1_280, "{}", longest.to_string().len());
    }
}
