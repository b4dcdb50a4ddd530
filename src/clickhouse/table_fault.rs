//! The reason why a table does not fit, and the action.

use flows::{ErrorKind, Failure};
use std::fmt::{self, Display};

/// A table that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The finding, and what it means for the data.
    pub why: String,
    /// The action: words, or a statement as it may be run.
    pub remedy: String,
}

impl Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.remedy)
    }
}

/// The finding of a look at a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// The table does not fit.
    Unfit(Unfit),
    /// The table could not be asked, or ClickHouse itself says what is wrong.
    Failure(Failure),
}

impl From<Failure> for TableFault {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<TableFault> for Failure {
    fn from(fault: TableFault) -> Self {
        match fault {
            TableFault::Unfit(unfit) => Self { kind: ErrorKind::Permanent, ended: true, message: unfit.to_string() },
            TableFault::Failure(failure) => failure,
        }
    }
}

/// A table that does not fit.
pub fn unfit(why: String, remedy: impl Into<String>) -> TableFault {
    TableFault::Unfit(Unfit { why, remedy: remedy.into() })
}
