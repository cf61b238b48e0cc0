//! The command line: composes the parts, hands over, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    sshjob::cli::main()
}
