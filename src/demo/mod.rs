//! `clickstream demo`: the broker, ClickHouse and the two pipelines in one go, on this machine, without Docker.

mod broker;
pub mod guard;
mod mark;
mod parent_death;
mod pipelines;
mod program;
mod server;
mod site;
mod terminal_view;
mod work_dir;

pub use broker::Broker;
pub use pipelines::{DRAIN, DemoConfig, Pipelines, clickhouse_as};
pub use program::Program;
pub use server::Server;
pub use site::Site;
pub use terminal_view::{Places, TerminalView};
pub use work_dir::WorkDir;
