//! `clickstream demo`: the broker, ClickHouse and the two pipelines in one go, on this machine, without Docker.

mod broker;
pub mod guard;
mod home;
mod panel;
mod program;
mod server;

pub use broker::Broker;
pub use home::Home;
pub use panel::{Panel, Places};
pub use program::Program;
pub use server::Server;
