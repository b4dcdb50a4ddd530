//! `clickstream secrets`: the passwords of an installation, made once.

use crate::cli::SecretsArgs;
use crate::clickhouse::users::{Default, From};
use crate::output;
use crate::secrets::{Passwords, Secrets};
use anyhow::Result;

/// Makes the passwords and ClickHouse's users file, or keeps those that are there. Says which, and never a password.
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
