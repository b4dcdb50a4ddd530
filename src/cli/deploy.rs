//! Options of the commands that a deployment is made of.

use super::values::{address, switch};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct SecretsArgs {
    /// Where: in it come owner/password, writer/password, eraser/password, reader/password and clickhouse/users.xml
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Who may read the files, as for chmod: 600 is nobody else, 444 everybody who can reach them
    #[arg(long, env = "CLICKSTREAM_SECRETS_MODE", default_value = "600", value_parser = mode, value_name = "MODE")]
    pub mode: u32,
}

#[derive(Args, Debug)]
pub struct HealthArgs {
    /// The HOST:PORT that `produce` or `ingest` was given; where that is every address, this machine is asked
    #[arg(long, env = "CLICKSTREAM_METRICS", value_name = "HOST:PORT", value_parser = address)]
    pub metrics: String,

    /// Ask whether it does its work (/readyz), not only whether it lives (/healthz)
    #[arg(long, env = "CLICKSTREAM_READY", value_parser = switch)]
    pub ready: bool,
}

/// Files that their owner can read, and that nobody can execute.
fn mode(text: &str) -> Result<u32, &'static str> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o666 == 0 && mode & 0o400 != 0 => Ok(mode),
        _ => Err("expected three octal digits like 600, 640 or 444"),
    }
}
