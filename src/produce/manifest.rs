//! The manifest: acknowledged messages, line by line, for checks of the pipeline against it.

use crate::private;
use anyhow::{Context, Result};
use flows::{EventType, Fault, Receipt};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// One acknowledged message. `fault` names its deliberate fault, if it has one: `dup`, `late`, or `bad:REASON`, with
/// the reason under which it must be rejected.
#[derive(Serialize)]
struct Line<'a> {
    event_id: Uuid,
    event_type: EventType,
    price: f64,
    user_id: &'a str,
    timestamp_ms: i64,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// A file with one JSON object for each acknowledged message.
pub struct Manifest {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Manifest {
    /// Begins a new manifest, and replaces an existing file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = private::replace(path).with_context(|| format!("cannot create --manifest {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned() })
    }

    /// Writes a line for a message that was acknowledged; others leave no trace.
    pub fn note(&mut self, receipt: &Receipt) -> Result<()> {
        let (Ok(acked), Some(event)) = (&receipt.acked, &receipt.event) else { return Ok(()) };
        let line = Line {
            event_id: event.id,
            event_type: event.kind,
            price: event.price(),
            user_id: &event.user,
            timestamp_ms: event.timestamp_ms,
            partition: acked.partition,
            offset: acked.offset,
            fault: receipt.fault.map(|fault| match fault {
                Fault::Bad(reason) => format!("bad:{}", reason.as_str()),
                Fault::Dup => "dup".into(),
                Fault::Late => "late".into(),
            }),
        };
        serde_json::to_writer(&mut self.file, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .with_context(|| format!("cannot write --manifest {}", self.path.display()))
    }

    /// Writes the buffered lines.
    pub fn close(mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("cannot write --manifest {}", self.path.display()))
    }
}
