//! `clickstream secrets`: the passwords of an installation, made once.

use crate::clickhouse::users::{Default, From};
use crate::output;
use crate::secrets::{Passwords, Secrets};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct SecretsArgs {
    /// The directory for owner/password, writer/password, eraser/password, reader/password and clickhouse/users.xml
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// The mode of the files, as for chmod: 600 is for their owner only, 444 for every user who can reach them
    #[arg(long, env = "CLICKSTREAM_SECRETS_MODE", default_value = "600", value_parser = mode, value_name = "MODE")]
    pub mode: u32,
}

/// Creates the passwords and ClickHouse's users file, or keeps existing ones. Prints which, and never a password.
///
/// # Errors
/// When the directory cannot be read or written.
pub fn run(args: &SecretsArgs) -> Result<()> {
    let secrets = Secrets::new(&args.dir, args.mode);
    let word = match secrets.provide(From::Anywhere, Default::Administrator)? {
        Passwords::Kept => "kept",
        Passwords::Made => "made",
    };
    output::line(format_args!("passwords {word}: {}", args.dir.display()))
}

/// Parses a mode: the owner can read, and nobody can execute.
fn mode(text: &str) -> Result<u32, &'static str> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !0o666 == 0 && mode & 0o400 != 0 => Ok(mode),
        _ => Err("expected three octal digits like 600, 640 or 444"),
    }
}
