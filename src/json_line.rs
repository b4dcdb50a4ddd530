//! A log line as one JSON object, for programs that collect logs.

use crate::printable::{LINE_BYTES, bounded, printable};
use serde_json::{Map, Value};
use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes each event as a line: its time, level, part of the program, message and fields.
pub struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        let mut fields = Fields(head(*about.level()));
        fields.0.insert("target".into(), about.target().into());
        // Only an ingester of several topics has spans: one named `topic`, for each.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let text = extensions.get::<FormattedFields<N>>().map_or("", |text| text.fields.as_str());
            fields.0.insert(span.name().into(), text.into());
        }
        event.record(&mut fields);
        writer.write_str(&line(fields.0))
    }
}

/// The line of the error that ends the program.
pub fn of_error(message: &str) -> String {
    let mut fields = head(Level::ERROR);
    fields.insert("message".into(), message.into());
    line(fields)
}

fn head(level: Level) -> Map<String, Value> {
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    [("timestamp", time), ("level", level.to_string())]
        .map(|(name, text)| (name.to_owned(), text.into()))
        .into_iter()
        .collect()
}

/// A terminal that shows the line obeys no text of others: what could move its cursor is escaped as JSON escapes it.
fn line(fields: Map<String, Value>) -> String {
    format!("{}\n", printable(&Value::from(fields).to_string()))
}

/// The fields of an event. Texts may be of unknown origin, so their length is bounded.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, field: &Field, text: &str) {
        self.0.insert(field.name().into(), bounded(text, LINE_BYTES).into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_json_without_control_characters() {
        let message = "disk\u{1b}[2J full\n\"243\" \u{202e}";
        let line = of_error(message);
        assert!(line.ends_with('\n') && line.lines().count() == 1);
        assert!(!line.trim_end().contains(char::is_control) && !line.contains('\u{202e}'), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["message"], &read["level"]), (&message.into(), &"ERROR".into()));
        assert!(read["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
