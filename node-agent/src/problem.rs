//! What the commands print.

use aifb_schema::names::exit;

/// Name of this program in front of its messages.
pub(crate) const PROGRAM: &str = "aifb-agent";

/// Prints a line on standard output, the command's result.
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// Prints a message on standard error.
#[expect(clippy::print_stderr, reason = "messages of a command")]
pub(crate) fn complain(text: &str) {
    eprintln!("{text}");
}

/// Explains wrong usage; the exit code for it.
pub(crate) fn usage(what: &str, hint: &str) -> i32 {
    complain(&format!("{PROGRAM}: {what}\n  hint: {hint}"));
    exit::USAGE
}
