//! The helper's binary: argv in, exit code out. Linked without a packet, config or command-line parser.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    portsentry::helper::start::main()
}
