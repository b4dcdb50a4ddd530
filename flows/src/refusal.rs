//! When a refusal is taken for the fault of the rows: a rule about behaviour, because the list of errors is never complete.
//!
//! An expression of the table can fail on a row with any code, and a server can fail for everybody with any code. The two are told
//! apart by trying again, and by trying less: a fault of the server passes or concerns all rows, a fault of a row stays with it.

use crate::{Class, Table};

/// How often the same rows are refused, for a reason that is in no list, before they are taken apart.
const WHOLE: u32 = 3;

/// How often one row alone is refused, for a reason that is in no list, before it is a culprit: with the pauses between, some two
/// seconds.
pub(crate) const ALONE: u32 = 6;

/// How many refusals of the same rows it takes until they are halved, or one row is condemned; none to try again without end.
///
/// `rows` is their number, and `is_part` whether they were split off a group that was refused already.
pub(crate) fn limit(table: Table, class: Class, rows: usize, is_part: bool) -> Option<u32> {
    match (class, table) {
        (Class::Data, Table::Events) => Some(1),
        (Class::TooLarge, _) if rows > 1 => Some(WHOLE),
        (Class::Unexplained, Table::Events) if rows == 1 => Some(ALONE),
        (Class::Unexplained, Table::Events) if is_part => Some(1),
        (Class::Unexplained, Table::Events) => Some(WHOLE),
        // A row of `rejected` is only bytes: there is nothing in it that could be to blame. A single row that does not fit into
        // the server's memory waits for the server.
        _ => None,
    }
}
