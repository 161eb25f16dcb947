//! Text for people and pipes. Whoever reads it may stop reading: that is no failure of ours.

use std::io::Write;

/// Prints a text and a line end to standard output, at once.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// Prints a text and a line end to standard error.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
