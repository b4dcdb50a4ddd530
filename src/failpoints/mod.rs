//! Failpoints: steps of the work at which a test can make this program die, stall or fail.
//!
//! They exist only in builds with the feature `failpoints`. In all other builds a step does nothing, and the
//! environment variable is not read. `CLICKSTREAM_FAILPOINTS` names steps and their faults, such as
//! `after_insert=die@3,before_commit=fail%50`:
//!
//! - `die`: SIGKILL; `stall:7s`: the step takes that long; `fail`: as if the step itself had failed;
//! - `@3`: the third time only; `%50`: in half of all cases, at random; neither: each time.

#[cfg(not(feature = "failpoints"))]
mod absent;
#[cfg(feature = "failpoints")]
mod armed;

#[cfg(not(feature = "failpoints"))]
pub use absent::{InsertBody, body, check, reach, reach_blocking};
#[cfg(feature = "failpoints")]
pub use armed::{InsertBody, body, check, reach, reach_blocking};

/// A step at which something can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "failpoints"), allow(dead_code, reason = "only its name is of use"))]
pub enum Step {
    /// An insert is about to be sent. To fail here is not to reach the server.
    BeforeInsert,
    /// Half of an insert's body is sent. To fail here is to cut the connection.
    InInsert,
    /// An insert was answered with OK. To fail here is to lose the answer.
    AfterInsert,
    /// Marks are about to be committed. To fail here is not to reach the coordinator.
    BeforeCommit,
    /// Marks were committed. To fail here is to lose the answer.
    AfterCommit,
    /// The group takes partitions away. This step cannot fail.
    OnRevoke,
    /// The group has given partitions. This step cannot fail.
    OnAssign,
}

/// The error of a step that has to fail.
#[derive(Debug)]
pub struct Injected;

/// The text of an injected failure.
pub const MESSAGE: &str = "a failpoint";
