//! The program `clickstream`: all of it is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    clickstream::cli::main()
}
