//! The program's output: one way to standard output and one to standard error, for every command.
//!
//! A reader that goes away (`| head`, a pager that was left, a closed terminal) is not a fault, and a full disk is one
//! line. Printing can never end a pipeline that still has events to store.

use crate::printable::printable_lines;
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The exit code of a command whose reader went away: 128 and the number of SIGPIPE, as a shell shows it of `git` or `cat`.
/// It is not 0, because an audit that was cut off has not proved anything.
const READER_GONE: u8 = 141;

/// The error of each write to a closed terminal. Linux and macOS have the same number.
const EIO: i32 = 5;

/// The reader of standard output went away.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output went away")]
pub struct ReaderGone;

/// Prints a text and ends its last line. Whatever could move the cursor of a terminal is escaped.
///
/// # Errors
/// [`ReaderGone`], which ends the command without a word; or why it cannot be written.
pub fn line(text: impl Display) -> Result<()> {
    bytes(printable_lines(&format!("{text}\n")).as_bytes())
}

/// Prints bytes as they are.
///
/// # Errors
/// See [`line()`].
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    judge(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Tells a reader that went away from a write that failed.
///
/// # Errors
/// See [`line()`].
pub fn judge(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if is_gone(&error) => Err(ReaderGone.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints the report of a pipeline that has ended. The pipeline's own outcome decides, because stored rows stay stored,
/// even if nobody reads the report.
///
/// # Errors
/// Those of the pipeline; if it has none, a report that cannot be written.
pub fn closing(report: impl Display, outcome: Result<()>) -> Result<()> {
    match line(report) {
        Err(error) if error.is::<ReaderGone>() => outcome,
        printed => outcome.and(printed),
    }
}

/// Says how the program ended, with the line that `last_line` makes of an error, and how it exits.
pub fn end(outcome: Result<()>, last_line: impl FnOnce(&str) -> String) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::from(READER_GONE),
        Err(error) => {
            // Formatted first: standard error is not buffered, and other processes may write to it, too.
            let line = last_line(&format!("{error:#}"));
            let _ = Stderr.write_all(line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Prints an error about the command line, which may come from a script and contain any characters.
pub fn usage(error: &clap::Error) {
    let _ = Stderr.write_all(printable_lines(&error.render().to_string()).as_bytes());
}

/// Whether standard error shows colours: a terminal does, unless `NO_COLOR` is set (<https://no-color.org>).
pub fn has_colors() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// The live line, which stays below whatever is written to standard error.
static LIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Keeps this live line below what is written to standard error from now on.
pub fn keep_below(line: Option<ProgressBar>) {
    *live() = line;
}

fn live() -> MutexGuard<'static, Option<ProgressBar>> {
    // One value that is replaced in one step.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error as a writer that never fails: a log without a reader must not end its pipeline.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write_all(bytes);
        let line = live().clone();
        let _ = line.map_or_else(write, |line| line.suspend(write));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => true,
        // A disk can return the same error, and then it is a fault.
        _ => error.raw_os_error() == Some(EIO) && is_device(),
    }
}

fn is_device() -> bool {
    let about = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|out| out.metadata());
    about.is_ok_and(|about| about.file_type().is_char_device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        let judged = |kind: ErrorKind| judge(Err(kind.into())).unwrap_err();
        assert!(judged(ErrorKind::BrokenPipe).is::<ReaderGone>());
        let full = judged(ErrorKind::StorageFull);
        assert!(!full.is::<ReaderGone>());
        assert!(format!("{full:#}").starts_with("cannot write to standard output: "), "{full:#}");
        assert!(judge(Ok(())).is_ok());
    }

    #[test]
    fn a_reader_that_went_away_is_known_under_any_context() {
        let error = Err::<(), _>(anyhow!(ReaderGone)).context("page 2 of the list").unwrap_err();
        assert!(error.is::<ReaderGone>());
    }
}
