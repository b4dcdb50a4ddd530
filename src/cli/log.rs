//! The log, on standard error.

use crate::json_line::{self, JsonLines};
use crate::output::{Stderr, has_colors};
use crate::printable::{LINE_BYTES, bounded, printable};
use clap::{Args, ValueEnum};
use std::fmt::{self, Debug};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// The options of the log, which every command has.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// How much is logged, to standard error: error, warn, info, debug, trace or off; or one level for each part, such as
    /// info,librdkafka=debug [default: info]
    #[arg(long, env = "CLICKSTREAM_LOG", value_name = "LEVELS", value_parser = levels, global = true, help_heading = "Log")]
    pub log: Option<String>,

    /// The form of a log line
    #[arg(
        long,
        env = "CLICKSTREAM_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Log"
    )]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl LogFormat {
    /// The line of the error that ends the program.
    pub fn last_line(self, error: &str) -> String {
        match self {
            Self::Text => format!("clickstream: {}\n", printable(&bounded(error, LINE_BYTES))),
            Self::Json => json_line::of_error(&bounded(error, LINE_BYTES)),
        }
    }
}

impl LogArgs {
    /// Logs from now on, `level` if no other one is asked for.
    pub fn begin(&self, level: &str) {
        let filter = self.log.as_deref().and_then(filter).unwrap_or_else(|| EnvFilter::new(level));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(|| Stderr)
            .log_internal_errors(false) // it would panic where standard error is closed
            .with_ansi(has_colors());
        match self.log_format {
            LogFormat::Text => log.with_target(false).fmt_fields(debug_fn(field).delimited(" ")).init(),
            LogFormat::Json => log.event_format(JsonLines).init(),
        }
    }
}

/// A part of a log line of unknown origin: ClickHouse, a broker, a proxy, a message.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = bounded(&value, LINE_BYTES);
    let value = printable(&value);
    if field.name() == "message" { write!(writer, "{value}") } else { write!(writer, "{field}={value}") }
}

fn levels(text: &str) -> Result<String, String> {
    let expected = || "expected a level like debug, or one for each part like info,librdkafka=debug".to_owned();
    filter(text).map(|_| text.to_owned()).ok_or_else(expected)
}

/// A word that is no level would be taken for a part of the program, and silence all the others.
fn filter(text: &str) -> Option<EnvFilter> {
    let known = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    if !text.split(',').map(str::trim).all(known) {
        return None;
    }
    EnvFilter::builder().parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn levels_are_taken_and_words_that_would_silence_the_log_are_not() {
        for good in ["debug", "off", "info,librdkafka=debug", "clickstream::kafka=trace, warn"] {
            assert!(filter(good).is_some(), "{good}");
        }
        for bad in ["verbose", "warning", "info,librdkafka", "a=b=c", "info;debug", "x=loud"] {
            assert!(filter(bad).is_none(), "{bad}");
        }
    }
}
