//! A running pipeline, seen from outside: its status line, its metrics, whether it is ready, and HTTP to ask for them.

mod endpoints;
pub mod http;
mod prometheus;
mod ready;
mod rejections;
pub mod status;
mod summary;

pub use endpoints::Observed;
pub use ready::Ready;
pub use summary::summary;
