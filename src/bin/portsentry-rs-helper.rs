//! The helper's binary: argv in, exit code out. Linked without a packet, config or command-line parser.
fn main() {}
