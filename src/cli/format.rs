//! The form of an answer, of commands that people and programs read.

use clap::ValueEnum;

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}
