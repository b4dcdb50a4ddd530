//! What a commit says beside its offset: which topic it is of, and what an audit must know of the offsets before it.

use chrono::{DateTime, SecondsFormat, Utc};
use flows::Span;
use serde::{Serialize, Serializer};
use std::fmt;

/// The ranges of lost messages that are kept: Kafka takes 4 KB of metadata.
const KEPT: usize = 16;

/// The metadata of one partition's committed offset: the topic's id, and where they apply `;read=OFFSET`, `;gaps`, and
/// `;lost=COUNT,FIRST-LAST+FIRST-LAST,TIME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The topic's id, or its name where the broker has no ids.
    pub source: String,
    pub notes: Notes,
}

/// What is noted of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// From the committed offset up to this one, no message stands in the topic: markers of transactions, say. When all of it is
    /// deleted, none is lost.
    pub read: Option<i64>,
    /// Offsets were passed that held no message, though nothing was deleted there: transactions, or compaction.
    pub has_gaps: bool,
    pub lost: Option<Lost>,
}

/// Messages of a partition that were deleted before the group had read them. It stays with the group's offset, so that an audit
/// can tell afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many, in all.
    pub messages: u64,
    /// Their offsets, the last ones of many.
    #[serde(serialize_with = "inclusive")]
    pub ranges: Vec<Span>,
    /// When the last ones were found to be.
    pub at: DateTime<Utc>,
}

impl Lost {
    /// Adds messages that were found to be deleted now.
    pub fn add(before: Option<Self>, offsets: Span) -> Self {
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
            Some(Span::new(first.parse().ok()?, last.parse::<i64>().ok()?.checked_add(1)?))
        };
        let ranges = parts.next()?.split('+').map(range).collect::<Option<_>>()?;
        let at = DateTime::parse_from_rfc3339(parts.next()?).ok()?.to_utc();
        Some(Self { messages, ranges, at })
    }
}

impl Notes {
    /// Up to where all was read, if this offset is committed with them.
    pub fn read_up_to(&self, mark: i64) -> i64 {
        self.read.map_or(mark, |read| read.max(mark))
    }
}

impl Metadata {
    /// Reads it; what is not of this form is an id in whole.
    pub fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let mut metadata = Self { source: parts.next().unwrap_or_default().to_owned(), ..Self::default() };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("read", offset) => metadata.notes.read = offset.parse().ok(),
                ("gaps", _) => metadata.notes.has_gaps = true,
                ("lost", lost) => metadata.notes.lost = Lost::read(lost),
                // A later version may say more.
                _ => {}
            }
        }
        metadata
    }
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, notes: Notes { read, has_gaps, lost } } = self;
        f.write_str(source)?;
        if let Some(read) = read {
            write!(f, ";read={read}")?;
        }
        if *has_gaps {
            f.write_str(";gaps")?;
        }
        if let Some(Lost { messages, ranges, at }) = lost {
            let ranges: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.first, range.next - 1)).collect();
            let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
            write!(f, ";lost={messages},{},{at}", ranges.join("+"))?;
        }
        Ok(())
    }
}

fn inclusive<S: Serializer>(ranges: &[Span], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ranges.iter().map(|range| (range.first, range.next - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_others_write_is_an_id() {
        let source = "Xz9hvwy5QoOjQVYvwoGRQw".to_owned();
        let at = DateTime::from_timestamp(1_705_329_000, 0).unwrap();
        let lost = Lost { messages: 70, ranges: vec![Span::new(7, 27), Span::new(100, 150)], at };
        let notes = Notes { read: Some(201), has_gaps: true, lost: Some(lost) };
        let all = Metadata { source: source.clone(), notes };
        assert_eq!(all.to_string(), "Xz9hvwy5QoOjQVYvwoGRQw;read=201;gaps;lost=70,7-26+100-149,2024-01-15T14:30:00Z");
        assert_eq!(Metadata::read(&all.to_string()), all);
        let id = Metadata { source: source.clone(), ..Metadata::default() };
        assert_eq!((id.to_string(), Metadata::read(&source)), (source, id));
        for other in ["", "x;y", ";;;", "a;lost=x,1-2,now", "a;lost=1,1;read=", "a;read=x;more=3"] {
            assert_eq!(Metadata::read(other).notes, Notes::default(), "{other}");
        }
    }

    #[test]
    fn later_losses_are_added_to_earlier_ones_and_the_ranges_stay_few() {
        let ranges: Vec<_> = (0..100).map(|nth| Span::new(nth * 10, nth * 10 + 3)).collect();
        let lost = ranges.iter().fold(None, |lost, range| Some(Lost::add(lost, *range))).unwrap();
        assert_eq!((lost.messages, &lost.ranges[..]), (300, &ranges[100 - KEPT..]));
        let notes = Notes {
            lost: Some(Lost { ranges: vec![Span::new(i64::MAX - 2, i64::MAX); KEPT], ..lost }),
            ..Notes::default()
        };
        assert!(Metadata { source: "x".repeat(249), notes }.to_string().len() < 1_024);
    }
}
