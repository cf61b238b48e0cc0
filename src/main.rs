//! The command line: composes the parts, hands over, exits.

fn main() {}
