//! A running pipeline, seen from outside: its status line, its metrics, whether it is ready, and HTTP to ask for them.

mod endpoints;
pub mod http;
pub mod line;
mod live;
mod prometheus;
mod rate;
mod ready;
mod rejections;
mod service_manager;
pub mod status;
mod summary;

pub use endpoints::Observed;
pub use live::Live;
pub use rate::RateMeter;
pub use ready::Ready;
pub use rejections::share;
pub use summary::summary;
