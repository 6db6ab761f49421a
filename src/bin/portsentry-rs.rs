//! The sensor's binary, which is also the command line: argv in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    portsentry::cli::main()
}
