//! `clickstream man`: the manual pages, made of the help.

use super::Cli;
use crate::output;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ManArgs {
    /// The directory, which is made if it is missing. One page for each command, such as clickstream-ingest.1
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Writes a page for each command.
///
/// # Errors
/// When a page cannot be written.
pub fn run(args: &ManArgs) -> Result<()> {
    let directory = &args.directory;
    write(directory).with_context(|| format!("cannot write manual pages into {}", directory.display()))?;
    output::line(format_args!("manual pages: {}", directory.display()))
}

fn write(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    // The page of the words `help` and `help ingest` would say nothing.
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_the_help_lists_has_a_page_with_its_options() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(scratch.path().join(format!("{name}.1"))).unwrap();
        let (command, all) = (Cli::command(), page("clickstream"));
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(all.contains(&format!("clickstream\\-{name}(1)")), "{name}: {all}");
            let page = page(&format!("clickstream-{name}"));
            let options = command.get_arguments().filter(|option| !option.is_hide_set());
            for option in options.filter_map(clap::Arg::get_long) {
                assert!(page.contains(&option.replace('-', "\\-")), "{name} --{option}");
            }
        }
    }
}
