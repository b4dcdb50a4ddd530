//! The newest messages: they are decoded as an ingester decodes them, and nothing is stored.

use super::CheckConfig;
use super::kafka::Topic;
use super::report::{Answer, Verdict};
use crate::kafka::newest;
use crate::kafka::ranges::Ranges;
use crate::numbers::grouped;
use crate::printable::name;
use crate::telemetry::share;
use anyhow::Result;
use flows::{Decode, OffsetRange, Payload, Record, RejectKind, Rejects, TableDecoder, now};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Kinds of rejects, and unknown fields, that are named.
const NAMED: usize = 5;

/// A record whose timestamp is further ahead than this shows a wrong clock.
const AHEAD_MS: i64 = 1_000;

/// The way to decode messages: the table's own decoder, or that of the shop's events.
pub struct Decoder {
    pub decode: Arc<dyn Decode>,
    /// The decoder of a table of the user's own, which tells the fields that it does not know.
    pub own: Option<Arc<TableDecoder>>,
}

/// The messages that were read.
#[derive(Default)]
pub struct Sample {
    messages: u64,
    kinds: Vec<RejectKind>,
    rejects: u64,
    unknown: Vec<String>,
    /// Kafka's newest timestamp.
    newest_ms: Option<i64>,
}

/// Decodes the newest messages.
pub async fn decode(config: &CheckConfig, (topic, decoder): (&Topic, &Decoder)) -> Answer<Sample> {
    let sample = tokio::task::block_in_place(|| read(config, topic, decoder)).map_err(|error| {
        let text = format!("{error:#}: an ingester would read nothing, and messages wait in Kafka");
        Verdict::fail(text, "if a right is missing, grant READ on the topic; else look at the brokers")
    })?;
    Ok((judge(&sample, decoder), sample))
}

fn read(config: &CheckConfig, topic: &Topic, decoder: &Decoder) -> Result<Sample> {
    let mut ranges = Ranges::new(&topic.reader, &config.kafka.topic)?;
    let (mut sample, rejects) = (Sample::default(), Rejects::default());
    newest::read(&mut ranges, &topic.ends, config.sample, |partition, record| {
        let payload = record.decode(&*decoder.decode);
        sample.messages += 1;
        sample.newest_ms = sample.newest_ms.max(record.timestamp_ms);
        if matches!(payload, Payload::Rejected(_)) {
            let at = OffsetRange::new(record.offset, record.offset + 1);
            rejects.count([&Record::new(partition, at, 0, payload)]);
        }
    })?;
    // An empty topic is read at its end, since that needs the same right.
    if sample.messages == 0
        && let Some((&partition, &(_, high))) = topic.ends.first_key_value()
    {
        ranges.read(partition, OffsetRange::new(high, high + 1), |_| ControlFlow::Break(()))?;
    }
    (sample.rejects, sample.kinds) = (rejects.total(), rejects.take_kinds());
    sample.unknown = decoder.own.as_ref().map(|own| own.take_unknown_names()).unwrap_or_default();
    Ok(sample)
}

fn judge(sample: &Sample, decoder: &Decoder) -> Verdict {
    let Sample { messages, rejects, kinds, unknown, .. } = sample;
    if *messages == 0 {
        return Verdict::ok("the topic is empty, and may be read");
    }
    let mut text = format!("the newest {} messages were decoded", grouped(*messages));
    if *rejects > 0 {
        text += &format!(": {} of them ({}) would be rejected", grouped(*rejects), share(*rejects, *messages));
        let told: Vec<_> = kinds.iter().take(NAMED).map(of_kind).collect();
        text += &format!(": {}", told.join("; "));
        text += &and_more(kinds.len(), "kinds");
    } else {
        text += ": each becomes a row";
    }
    let keeps_unknown =
        decoder.own.as_ref().is_some_and(|own| own.columns().layout().any(|(name, _)| name == "_unknown"));
    let mut remedies = Vec::new();
    if *rejects > 0 {
        remedies.push(
            "rejects are kept, with their bytes, in the table rejected, and not as rows: correct the producer, or the columns that they name",
        );
    }
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.iter().take(NAMED).map(|field| name(field)).collect();
        let kept = if keeps_unknown { "kept in _unknown" } else { "left out" };
        text +=
            &format!("; fields without a column are {kept}: {}{}", names.join(", "), and_more(unknown.len(), "fields"));
        if !keeps_unknown {
            remedies.push(
                "add a column for a field that is to be stored, or a column _unknown of the type JSON for all of them",
            );
        }
    }
    match (*rejects * 2 >= *messages, remedies.is_empty()) {
        (_, true) => Verdict::ok(text),
        (true, false) => Verdict::fail(text, remedies.join("\n")),
        (false, false) => Verdict::warn(text, remedies.join("\n")),
    }
}

fn of_kind(RejectKind { reason, count, position: (partition, offset), detail, .. }: &RejectKind) -> String {
    format!("{} as {}, like partition {partition}, offset {offset}: {detail}", grouped(*count), reason.as_str())
}

fn and_more(all: usize, what: &str) -> String {
    if all > NAMED { format!(", and {} more {what}", all - NAMED) } else { String::new() }
}

/// Compares Kafka's timestamps with this host's clock.
pub fn times(sample: &Sample) -> Answer<()> {
    let Some(newest) = sample.newest_ms else {
        return Ok((Verdict::ok("no message has a timestamp of Kafka's yet"), ()));
    };
    let ahead = newest - now() / 1_000_000;
    let verdict = if ahead > AHEAD_MS {
        Verdict::warn(
            format!(
                "the newest message is {} ms ahead of this host's clock: latencies would be too short, and ages wrong; no row is lost or doubled \
                 by that",
                grouped(ahead.unsigned_abs())
            ),
            "correct the clock of this host, or of the host that sets the timestamps: the producer's, or the broker's with message.timestamp.type=LogAppendTime",
        )
    } else {
        let age = std::time::Duration::from_secs((-ahead).max(0).unsigned_abs() / 1_000);
        Verdict::ok(format!("the newest message is {} old by Kafka's timestamp", humantime::format_duration(age)))
    };
    Ok((verdict, ()))
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use flows::{Reason, Shop};

    fn judged(messages: u64, rejects: u64) -> Verdict {
        let kind = RejectKind {
            reason: Reason::WrongType,
            field: Some("price".into()),
            count: rejects,
            position: (2, 17),
            detail: "price: found null, expected a number".into(),
        };
        let kinds = if rejects > 0 { vec![kind] } else { vec![] };
        let sample = Sample { messages, rejects, kinds, ..Sample::default() };
        judge(&sample, &Decoder { decode: Arc::new(Shop), own: None })
    }

    #[test]
    fn a_few_rejects_are_a_warning_and_as_many_as_rows_a_fault() {
        for (messages, rejects, status) in
            [(0, 0, Status::Ok), (9, 0, Status::Ok), (9, 4, Status::Warn), (10, 5, Status::Fail), (1, 1, Status::Fail)]
        {
            assert_eq!(judged(messages, rejects).status, status, "{rejects} of {messages}");
        }
        let text = judged(1_000, 12).text;
        let expected = "the newest 1,000 messages were decoded: 12 of them (1 %) would be rejected: 12 as wrong_type, like partition 2, offset 17: \
                        price: found null, expected a number";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_timestamp_that_is_ahead_is_a_warning() {
        let status = |ahead_ms: i64| {
            let newest_ms = Some(now() / 1_000_000 + ahead_ms);
            times(&Sample { newest_ms, ..Sample::default() }).unwrap().0.status
        };
        assert_eq!([status(-5_000), status(500), status(60_000)], [Status::Ok, Status::Ok, Status::Warn]);
    }
}
