//! `clickstream demo`: the broker, ClickHouse and the two pipelines in one go, on this machine, without Docker.

pub mod guard;
mod home;
mod panel;
mod program;
mod server;

pub use home::Home;
pub use panel::{Panel, Places};
pub use program::Program;
pub use server::Server;
