//! The options of `rejects`.

use super::values::instant;
use super::{ClickHouseArgs, Format, KafkaArgs};
use clap::Args;
use flows::Reason;

#[derive(Args, Debug)]
pub struct RejectsArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Only those with this reason; may be repeated
    #[arg(long, value_parser = reason, value_name = "REASON")]
    pub reason: Vec<Reason>,

    /// Only the one at this position; may be repeated
    #[arg(long, value_parser = position, value_name = "PARTITION:OFFSET")]
    pub at: Vec<(i32, i64)>,

    /// Only those ingested since then: a time like 2026-01-31T14:00:00Z, or so long ago, like 2h
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<i64>,

    /// Only those ingested before then
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub until: Option<i64>,

    /// Show so many of each reason, the newest first
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub limit: u32,

    /// How to print them; `json` has whole payloads, one reject a line
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,

    /// Send them to the topic again, each once; without --yes only says which ones that would be
    #[arg(long)]
    pub replay: bool,

    /// Do send them
    #[arg(long, requires = "replay")]
    pub yes: bool,
}

fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(|| format!("expected one of {}", known()))
}

fn position(text: &str) -> Result<(i32, i64), &'static str> {
    const EXPECTED: &str = "expected PARTITION:OFFSET, like 0:1234";
    let (partition, offset) = text.split_once(':').ok_or(EXPECTED)?;
    match (partition.parse(), offset.parse()) {
        (Ok(partition @ 0..), Ok(offset @ 0..)) => Ok((partition, offset)),
        _ => Err(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_reasons_are_read_and_nonsense_is_not() {
        assert_eq!(position("0:1234"), Ok((0, 1_234)));
        for bad in ["", "0", ":", "0:", "-1:4", "0:-4", "0:1:2", "x:1"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert_eq!(reason("bad_price"), Ok(Reason::BadPrice));
        assert!(reason("ugly").unwrap_err().contains("null_payload, not_json"));
    }
}
