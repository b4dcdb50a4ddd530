//! The producer's manifest, read back: the acknowledged messages, and the deliberate faults in them.

use serde::Deserialize;
use std::path::Path;

/// One acknowledged message.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    pub event_id: String,
    pub event_type: String,
    pub price: f64,
    pub user_id: String,
    pub timestamp_ms: i64,
    pub partition: i32,
    pub offset: i64,
    pub fault: Option<String>,
}

impl Line {
    /// The reason for which it must be rejected, if it must.
    pub fn bad(&self) -> Option<&str> {
        self.fault.as_deref().and_then(|fault| fault.strip_prefix("bad:"))
    }

    pub fn cents(&self) -> i64 {
        (self.price * 100.0).round() as i64
    }
}

/// All lines of a manifest.
pub fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the manifest's {line}"));
    text.lines().map(parse).collect()
}
