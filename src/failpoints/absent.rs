//! No failpoints: what users run.

use super::{Injected, Step};
use bytes::Bytes;
use http_body_util::Full;

/// A variable that is not read cannot be wrong.
pub const fn check() -> anyhow::Result<()> {
    Ok(())
}

/// Goes on.
pub async fn reach(_: Step) -> Result<(), Injected> {
    Ok(())
}

/// Goes on.
pub const fn reach_blocking(_: Step) -> Result<(), Injected> {
    Ok(())
}

/// The body of an insert.
pub type InsertBody = Full<Bytes>;

/// The whole of it.
pub fn body(whole: Bytes) -> InsertBody {
    Full::new(whole)
}
