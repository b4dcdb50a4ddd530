//! When a refusal is taken for the fault of the rows: a rule about behaviour, because the list of errors is never complete.
//!
//! An expression of the table can fail on a row with any code, and a server can fail for everybody with any code. The two are told
//! apart by trying again, and by trying less: a fault of the server passes or concerns all rows, a fault of a row stays with it.
//! Once that has shown an error to be a row's fault, other rows of the batch with the same error need less: each is refused
//! alone, others go in, and it is refused again.

use crate::{ErrorKind, Failure, Table};

/// How often the same rows are refused, for a reason that is in no list, before they are taken apart.
const WHOLE: u32 = 3;

/// How often one row alone is refused, for a reason that is in no list, before it is a culprit: with the pauses between, some two
/// seconds.
pub(crate) const ALONE: u32 = 6;

/// Errors that were the fault of a row, by the beginnings of their messages, such as `Code: 395`.
#[derive(Default)]
pub(crate) struct Known(Vec<String>);

impl Known {
    /// One more; those whose kind says all are left out.
    pub fn learn(&mut self, failure: &Failure) {
        if failure.kind == ErrorKind::Unexplained && !self.is(failure) {
            self.0.push(beginning(failure).to_owned());
        }
    }

    /// Whether it is always the same.
    pub const fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether it is known to be the fault of rows: because it says so, or because it was before.
    pub fn is(&self, failure: &Failure) -> bool {
        failure.kind == ErrorKind::Data || self.is_learned(failure)
    }

    /// Whether a row was rejected for this error, which does not itself say that the row is bad.
    pub fn is_learned(&self, failure: &Failure) -> bool {
        failure.kind == ErrorKind::Unexplained && self.0.iter().any(|known| known == beginning(failure))
    }
}

/// The code of an error of ClickHouse, with what stands before it.
fn beginning(failure: &Failure) -> &str {
    failure.message.split_once('.').map_or(&failure.message, |(beginning, _)| beginning)
}

/// The number of refusals of the same rows until they are halved, or until one row is suspected; none to try again
/// without end.
///
/// `rows` is their number, `is_part` whether they are a part of a refused group, and `is_known` whether the error is
/// known to be the fault of rows.
pub(crate) fn limit(table: Table, kind: ErrorKind, rows: usize, is_part: bool, is_known: bool) -> Option<u32> {
    match (kind, table) {
        (ErrorKind::Data | ErrorKind::Unexplained, Table::Events) if is_known => Some(1),
        (ErrorKind::TooLarge, _) if rows > 1 => Some(WHOLE),
        (ErrorKind::Unexplained, Table::Events) if rows == 1 => Some(ALONE),
        (ErrorKind::Unexplained, Table::Events) if is_part => Some(1),
        (ErrorKind::Unexplained, Table::Events) => Some(WHOLE),
        // A row of `rejected` is only bytes: there is nothing in it that could be to blame. A single row that does not fit into
        // the server's memory waits for the server.
        _ => None,
    }
}
