//! The sensor's binary, which is also the command line: argv in, exit code out.
fn main() {}
