//! Warns of rejected messages: their number, their share, the most frequent reason, and the command that shows them.
//!
//! If a producer changes its format, all of its messages are rejected, while lag, failures and latency look as usual.

use crate::log_throttle::LogThrottle;
use crate::numbers::grouped;
use flows::{Metrics, RejectKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The window in which rejects are counted before a warning.
const WINDOW: Duration = Duration::from_secs(10);
/// The shortest time between two warnings while most messages are good.
const FEW_AGAIN: Duration = Duration::from_secs(60);

/// Watches the rejects of one ingester.
pub struct Rejections {
    metrics: Arc<Metrics>,
    /// The topic, where the ingester has several.
    topic: Option<String>,
    since: Instant,
    /// Rows and rejects when the window began.
    before: (u64, u64),
    few: LogThrottle,
}

impl Rejections {
    pub fn new(metrics: Arc<Metrics>, topic: Option<String>) -> Self {
        Self { metrics, topic, since: Instant::now(), before: (0, 0), few: LogThrottle::every(FEW_AGAIN) }
    }

    /// Warns, if a window has passed and there were rejects in it.
    pub fn tick(&mut self) {
        if self.since.elapsed() >= WINDOW {
            self.say();
        }
    }

    /// Warns of the rejects since the last warning, if there were any.
    pub fn say(&mut self) {
        let rejects = self.metrics.rejects.total();
        let rows = Metrics::read(&self.metrics.events) + rejects;
        let (rows_before, rejects_before) = std::mem::replace(&mut self.before, (rows, rejects));
        let within = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        let (rows, rejects) = (rows - rows_before, rejects - rejects_before);
        let kind = self.metrics.rejects.take_most_frequent();
        let Some(kind) = kind.filter(|_| rejects > 0) else { return };
        if rejects * 2 >= rows || self.few.now() {
            let of = self.topic.as_ref().map(|topic| format!("topic {topic}: ")).unwrap_or_default();
            tracing::warn!("{of}{}", sentence(rows, rejects, within, &kind));
        }
    }
}

fn sentence(rows: u64, rejects: u64, within: Duration, kind: &RejectKind) -> String {
    let RejectKind { reason, count, position: (partition, offset), detail, .. } = kind;
    let reason = reason.as_str();
    format!(
        "{} of {} messages in the last {} s were rejected ({}), {} of them as {reason}: partition {partition}, offset {offset}: \
         {detail}. They are kept in the table rejected: clickstream rejects --reason {reason}",
        grouped(rejects),
        grouped(rows),
        within.as_secs().max(1),
        share(rejects, rows),
        grouped(*count),
    )
}

/// A share in percent, never rounded to all or to nothing.
pub fn share(part: u64, whole: u64) -> String {
    match part as f64 / whole.max(1) as f64 * 100.0 {
        percent if part > 0 && percent < 1.0 => "below 1 %".into(),
        percent if part < whole => format!("{:.0} %", percent.min(99.0)),
        percent => format!("{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::Reason;

    #[test]
    fn a_share_is_never_rounded_to_all_or_to_nothing() {
        for (part, whole, said) in [
            (0, 0, "0 %"),
            (0, 9, "0 %"),
            (1, 1_000, "below 1 %"),
            (1, 2, "50 %"),
            (999, 1_000, "99 %"),
            (7, 7, "100 %"),
        ] {
            assert_eq!(share(part, whole), said, "{part} of {whole}");
        }
    }

    #[test]
    fn the_most_frequent_reason_is_said_with_the_command_that_shows_more() {
        let detail = "price: found null, expected a number".to_owned();
        let kind = RejectKind {
            reason: Reason::WrongType,
            field: Some("price".into()),
            count: 999,
            position: (2, 17),
            detail,
        };
        assert_eq!(
            sentence(1_000, 1_000, WINDOW, &kind),
            "1,000 of 1,000 messages in the last 10 s were rejected (100 %), 999 of them as wrong_type: partition 2, offset 17: \
             price: found null, expected a number. They are kept in the table rejected: clickstream rejects --reason wrong_type"
        );
    }
}
