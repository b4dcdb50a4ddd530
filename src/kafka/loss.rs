//! Messages that the topic no longer has, though the group has not read them: said once, when that is certain, and counted.

use flows::{Cause, Loss, Metrics};

/// Logs and counts a loss. Call this once, when the member resumes after it.
pub fn report(loss: &Loss, metrics: &Metrics) {
    let Loss { partition, cause, offsets, from, to } = loss;
    let lost = offsets.len();
    let counter = match cause {
        Cause::Expired => {
            tracing::error!(
                "partition {partition}: {lost} messages were deleted from the topic before they were read, \
                 {offsets}: they are lost; going on at {to}. Let retention last longer than the longest outage"
            );
            &metrics.expired
        }
        Cause::CutBack => {
            tracing::error!(
                "partition {partition}: the topic ends {lost} offsets before the committed one, {from}: it was made \
                 again, or cut back. Messages that come to stand at {offsets} are taken for those that are stored there; \
                 going on at {to}"
            );
            &metrics.reset
        }
        Cause::MadeAgain => {
            let unread = match lost {
                0 => String::new(),
                lost => format!("; at least {lost} messages of the old one were not read, and are lost"),
            };
            tracing::warn!(
                "partition {partition}: the topic was deleted, and made again under the same name{unread}; going on at \
                 offset {to} of the new one"
            );
            &metrics.reset
        }
    };
    Metrics::count(counter, lost);
    if *cause != Cause::Expired {
        Metrics::count(&metrics.resets, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flows::OffsetRange;

    #[test]
    fn messages_are_counted_by_what_became_of_them() {
        let metrics = Metrics::default();
        for (loss, offsets) in [
            (Loss::out_of_range(0, 100, 150, 200), OffsetRange::new(100, 150)),
            (Loss::out_of_range(0, 300, 0, 200), OffsetRange::new(200, 300)),
            (Loss::made_again(0, 100, 130, 0), OffsetRange::new(100, 130)),
            (Loss::made_again(0, 100, 0, 0), OffsetRange::new(100, 100)),
        ] {
            assert_eq!(loss.offsets, offsets);
            report(&loss, &metrics);
        }
        let counted = [&metrics.expired, &metrics.reset, &metrics.resets].map(Metrics::read);
        assert_eq!(counted, [50, 130, 3]);
    }
}
