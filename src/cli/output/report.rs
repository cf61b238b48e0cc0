//! Results that are there all at once.

use super::console::Console;
use crate::cli::context::Global;
use crate::cli::exit::Exit;

/// Writes results; the exit code tells whether they were taken.
pub fn report(text: &str, global: &Global) -> Exit {
    let mut console = Console::new(global.color);
    console.out(text);
    if console.has_failed() { Exit::Unavailable } else { Exit::Success }
}
