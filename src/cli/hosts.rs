//! The names by which an HTTP server of ours may be called.

use super::values::{Names, host_name, host_names};
use clap::Args;

#[derive(Args, Clone, Debug, Default)]
pub struct HostArgs {
    /// A host name by which it may be called over HTTP, beside localhost and addresses; may be repeated, and adds to
    /// CLICKSTREAM_ALLOW_HOST, which has any number of them
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    allow_host: Vec<String>,

    /// For the variable: clap would drop it where there is a flag
    #[arg(long = "allow-hosts", env = "CLICKSTREAM_ALLOW_HOST", hide = true, value_parser = host_names)]
    allow_hosts: Option<Names>,
}

impl HostArgs {
    /// All of them.
    pub fn names(&self) -> Vec<String> {
        self.allow_hosts.iter().flat_map(|names| &names.0).chain(&self.allow_host).cloned().collect()
    }
}
