//! `clickstream demo`: the broker, ClickHouse and the two pipelines in one go, on this machine, without Docker.

mod broker;
pub mod guard;
mod home;
mod mark;
mod panel;
mod pipelines;
mod program;
mod server;
mod site;

pub use broker::Broker;
pub use home::Home;
pub use panel::{Panel, Places};
pub use pipelines::{DRAIN, Pipelines, clickhouse_as};
pub use program::Program;
pub use server::Server;
pub use site::Site;
