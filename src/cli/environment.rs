//! Options out of the environment, as far as clap leaves it open.
//!
//! A variable that is empty is not set: Compose and CI systems have no other way to leave one out. A value that is refused is
//! refused by the variable's name, because the flag was never typed. And no value of a variable is shown by `--help`.

use super::{Cli, version};
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

/// The part of the help that is not about one command.
const AFTER_HELP: &str = "A variable that is empty is not set.";

/// Reads the command line, and the environment for options that are not on it.
///
/// # Errors
/// The fault of the command line; or the help, or the version.
pub fn parse() -> Result<Cli, clap::Error> {
    let args: Vec<_> = std::env::args_os().collect();
    read(&args, None).map_err(|error| if error.use_stderr() { explain(&args, error) } else { error })
}

/// Reads the command line as if one variable were not set.
fn read(args: &[OsString], ignored: Option<&OsStr>) -> Result<Cli, clap::Error> {
    let mut command = command(ignored);
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn command(ignored: Option<&OsStr>) -> clap::Command {
    Cli::command()
        .long_version(version::of_all_parts())
        .mut_args(|arg| environment(arg, ignored))
        .mut_subcommands(|command| with_help(command.mut_args(|arg| environment(arg, ignored))))
        .after_help(AFTER_HELP)
}

/// The text after a command's own help.
fn with_help(command: clap::Command) -> clap::Command {
    let own = command.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
    command.after_help(own + AFTER_HELP)
}

fn environment(arg: Arg, ignored: Option<&OsStr>) -> Arg {
    let arg = arg.hide_env_values(true);
    let Some(name) = arg.get_env().map(OsStr::to_owned) else { return arg };
    if is_set(&name) && ignored != Some(&name) {
        return arg;
    }
    // Without its variable, its help would no longer name it.
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.env(Resettable::Reset).help(format!("{help} [env: {}]", name.display()))
}

fn is_set(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Names the faulty variable, if there is one: without it, the error disappears.
fn explain(args: &[OsString], error: clap::Error) -> clap::Error {
    let why = reason(&error);
    let is_at_fault = |name: &OsString| match read(args, Some(name)) {
        Ok(_) => true,
        Err(other) => reason(&other) != why,
    };
    match variables().into_iter().find(is_at_fault) {
        Some(name) => clap::Error::raw(error.kind(), format!("{}: {}\n", name.display(), why.trim_end())),
        None => discreet(error),
    }
}

/// The error without the usage, which depends on the set variables.
fn reason(error: &clap::Error) -> String {
    error.to_string().trim_start_matches("error: ").split("\n\n").next().unwrap_or_default().to_owned()
}

/// The set variables that some command knows.
fn variables() -> BTreeSet<OsString> {
    let command = Cli::command();
    let args = command.get_subcommands().flat_map(clap::Command::get_arguments).chain(command.get_arguments());
    args.filter_map(Arg::get_env).filter(|name| is_set(name)).map(OsStr::to_owned).collect()
}

/// A word without an option may be half of a password that was typed without quotes, so it is not repeated.
fn discreet(error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') => {
            let why = "a word belongs to no option (it is not repeated here): put quotes around a value with spaces\n";
            clap::Error::raw(ErrorKind::UnknownArgument, why)
        }
        _ => error,
    }
}
