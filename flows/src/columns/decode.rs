//! Messages into rows of a table: the row, or a reject with the reason.

use super::fill::{Fault, Misfit};
use super::{Columns, Evolution, NoRow, append_headers};
use crate::{Consumed, Decode, Payload, Reason, Reject, Row, diagnosis, now};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// With more names than this, further ones are only counted.
const NAMES: usize = 100;

/// The longest name of a field that is told.
const NAME_BYTES: usize = 100;

/// Decodes messages of one topic for one table.
#[derive(Debug)]
pub struct TableDecoder {
    columns: Columns,
    topic: String,
    unknown: AtomicU64,
    names: Mutex<Names>,
    evolution: Option<Arc<Evolution>>,
}

#[derive(Debug, Default)]
struct Names {
    known: BTreeSet<String>,
    untold: Vec<String>,
}

impl TableDecoder {
    /// For messages of the topic with this name.
    pub fn new(columns: Columns, topic: &str) -> Self {
        Self { columns, topic: topic.to_owned(), unknown: AtomicU64::new(0), names: Mutex::default(), evolution: None }
    }

    /// Has fields that the table does not name looked at, for columns that could take them.
    #[must_use]
    pub fn evolving(self, evolution: Option<Arc<Evolution>>) -> Self {
        Self { evolution, ..self }
    }

    /// The columns.
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Their names, each of them once.
    pub fn take_unknown_names(&self) -> Vec<String> {
        std::mem::take(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner).untold)
    }

    fn note_unknown(&self, name: &str) {
        self.unknown.fetch_add(1, Relaxed);
        // Names are never taken out, so a panic cannot leave one half-done.
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.known.len() < NAMES && name.len() <= NAME_BYTES && !names.known.contains(name) {
            names.known.insert(name.to_owned());
            names.untold.push(name.to_owned());
        }
    }

    fn row(&self, message: &Consumed<'_>, payload: &[u8]) -> Result<Row, (Reason, Option<String>, String)> {
        thread_local! {
            /// The row under way: its memory is used again for the next one.
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let key = message.key.unwrap_or_default();
        if !payload.trim_ascii_start().starts_with(b"{") {
            let why = diagnosis::no_object(key, payload);
            return Err((why.reason, None, why.detail));
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            let mut wanted = Vec::new();
            let mut unknown = |name: &str| {
                self.note_unknown(name);
                wanted.extend(self.evolution.as_ref().filter(|all| all.wants(name)).map(|_| name.to_owned()));
            };
            let filled = self.columns.fill(&self.topic, message, payload, &mut unknown, buffer);
            let filled = filled.map_err(|why| why.told())?;
            if let Some(evolution) = self.evolution.as_ref().filter(|_| !wanted.is_empty()) {
                evolution.note(payload, &wanted);
            }
            let event_ms = filled.time_ms.or(message.timestamp_ms).unwrap_or_else(|| now() / 1_000_000);
            let row_bytes = buffer.len();
            append_headers(message.headers, buffer);
            let (row, headers) = buffer.split_at(row_bytes);
            Ok(Row::new(event_ms, row, headers, message))
        })
    }
}

impl Decode for TableDecoder {
    fn decode(&self, message: &Consumed<'_>) -> Payload {
        let reject = |reason, field: Option<String>, detail| {
            let field = field.map(Into::into);
            Payload::Rejected(Box::new(Reject::new(message.key, message.payload, reason, field, detail)))
        };
        let Some(payload) = message.payload else {
            let why = diagnosis::no_payload();
            return reject(why.reason, None, why.detail);
        };
        match self.row(message, payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload)) {
            Ok(row) => Payload::Row(row),
            Err((reason, field, detail)) => reject(reason, field, detail),
        }
    }

    fn take_unknown_fields(&self) -> u64 {
        self.unknown.swap(0, Relaxed)
    }

    /// A row that ClickHouse refuses becomes a reject with its message's headers.
    fn reads_headers(&self) -> bool {
        true
    }
}

impl NoRow {
    /// The reason, the column that is to blame, and a sentence. The sentence has no value of the message, which may be personal.
    fn told(self) -> (Reason, Option<String>, String) {
        match self {
            Self::NotJson(why) => (Reason::NotJson, None, format!("the JSON object is broken: {why}")),
            Self::Twice(column) => {
                let detail = format!("{column}: stands twice in the object");
                (Reason::WrongType, Some(column), detail)
            }
            Self::Missing(column, expected) => {
                let detail = format!("{column}: is missing, expected {expected}; the column has no DEFAULT");
                (Reason::MissingField, Some(column), detail)
            }
            Self::Misfit(column, misfit) => {
                let reason = match misfit.fault {
                    Fault::Missing => Reason::MissingField,
                    Fault::Range => Reason::OutOfRange,
                    _ => Reason::WrongType,
                };
                let detail = format!("{}: {misfit}", misfit.path(&column));
                (reason, Some(column), detail)
            }
        }
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (found, expected) = (self.found, &self.expected);
        match self.fault {
            Fault::Missing => write!(f, "is missing, expected {expected}"),
            Fault::Twice => f.write_str("stands twice in the object"),
            Fault::Null => write!(f, "found null, expected {expected}"),
            Fault::Type => write!(f, "found {found}, expected {expected}"),
            Fault::Range if found == "a string" => {
                write!(f, "found a string that is too long or names no value, expected {expected}")
            }
            Fault::Range => write!(f, "found {found} out of range, expected {expected}"),
            Fault::Unreadable => write!(f, "found a string with half of a surrogate pair, expected {expected}"),
            Fault::NoZone => {
                write!(
                    f,
                    "found a time without a zone, expected {expected}; a type such as DateTime('UTC') gives a zone"
                )
            }
            Fault::NoUnit => write!(
                f,
                "found a number whose size does not say whether it counts seconds, milli-, micro- or nanoseconds, expected {expected}"
            ),
        }
    }
}
