//! The log, on standard error.

use crate::output::Stderr;
use crate::printable::{LINE_BYTES, bounded, printable};
use clap::error::ErrorKind;
use std::fmt::{self, Debug};
use std::io::IsTerminal;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Says how much is logged.
const VARIABLE: &str = "CLICKSTREAM_LOG";

/// Logs from now on: what the variable asks for, `level` without it.
///
/// # Errors
/// When the variable is none that can be followed.
pub fn begin(level: &str) -> Result<(), clap::Error> {
    let asked = std::env::var_os(VARIABLE).filter(|text| !text.is_empty());
    let filter = match asked.as_ref().map(|text| text.to_str().and_then(filter)) {
        None => EnvFilter::new(level),
        Some(Some(filter)) => filter,
        Some(None) => {
            let why =
                format!("{VARIABLE}: expected a level like debug, or one for each part like info,librdkafka=debug\n");
            return Err(clap::Error::raw(ErrorKind::ValueValidation, why));
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .log_internal_errors(false) // it would panic where standard error is closed
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(debug_fn(field).delimited(" "))
        .init();
    Ok(())
}

/// A part of a log line of unknown origin: ClickHouse, a broker, a proxy, a message.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = bounded(&value, LINE_BYTES);
    let value = printable(&value);
    if field.name() == "message" { write!(writer, "{value}") } else { write!(writer, "{field}={value}") }
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
