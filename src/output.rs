//! Writing to the terminal: results to standard output, all else to standard error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
    process,
};

use serde::Serialize;

/// One line of result. Ends the program quietly when the reader has closed the pipe (`aifb list |
/// head`).
pub(crate) fn out(line: impl Display) {
    finish(writeln!(io::stdout().lock(), "{line}"));
}

/// Text of a result as it is, without a line end of its own.
pub(crate) fn out_raw(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    finish(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// One JSON document of result.
pub(crate) fn out_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => out(text),
        Err(error) => note(format!("aifb: writing JSON: {error}")),
    }
}

/// One JSON document on one line, for outputs that go on.
pub(crate) fn out_json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => out(text),
        Err(error) => note(format!("aifb: writing JSON: {error}")),
    }
}

/// One line of progress or complaint. Failing to tell is no reason to fail.
pub(crate) fn note(line: impl Display) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

fn finish(written: io::Result<()>) {
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(0),
        Err(error) => {
            note(format!("aifb: writing standard output: {error}"));
            process::exit(1);
        }
    }
}

/// Columns padded to the widest cell, two spaces between them, no space at the end.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["éé".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), "a   b\néé  c\n");
    }
}
