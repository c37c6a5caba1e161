//! Sections as text for a terminal: deterministic, so that two reports can be compared line by
//! line.

use std::fmt::Write as _;

use aifb_schema::figure::Unit;

use super::{
    model::{Cell, Column, Layout, Place, Section, Table},
    quantity::shown,
};
use crate::output::table;

/// The whole text, with a line end at its end.
pub(super) fn text(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        if !out.is_empty() {
            out.push('\n');
        }
        let indent = if section.title.is_empty() { "" } else { "  " };
        if !section.title.is_empty() {
            let _infallible = writeln!(out, "{}", section.title);
        }
        let alike = |a: &Table, b: &Table| a.layout == Layout::Line && b.layout == Layout::Line;
        for (index, tables) in section.tables.chunk_by(alike).enumerate() {
            if index > 0 {
                out.push('\n');
            }
            put(&mut out, tables, indent);
        }
    }
    out
}

/// Lines that belong together, or one table with a head.
fn put(out: &mut String, tables: &[Table], indent: &str) {
    let mut rows = Vec::new();
    for table in tables {
        match table.layout {
            Layout::Line => rows.extend(lines(table)),
            Layout::Grid => {
                if !table.name.is_empty() {
                    let _infallible = writeln!(out, "{indent}{}", table.name);
                }
                rows.push(table.columns.iter().map(head).collect());
                rows.extend(table.rows.iter().map(|row| row.iter().map(shown).collect()));
            }
        }
    }
    for line in table(&rows).lines() {
        let _infallible = writeln!(out, "{indent}{line}");
    }
}

fn head(column: &Column) -> String {
    match column.unit {
        Unit::PerSecond => format!("{}/s", column.name),
        _ => column.name.to_string(),
    }
}

/// The rows of a table as lines; its name stands before the first.
fn lines(table: &Table) -> impl Iterator<Item = Vec<String>> + '_ {
    table.rows.iter().enumerate().map(|(index, row)| {
        let name = if index == 0 { table.name.to_string() } else { String::new() };
        if table.name.is_empty() { vec![line(table, row)] } else { vec![name, line(table, row)] }
    })
}

/// The cells of a row one after another; those that are absent are left out, a row without any
/// says that all of it is absent.
fn line(table: &Table, row: &[Cell]) -> String {
    let mut text = String::new();
    for (column, cell) in table.columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
        if !text.is_empty() {
            text.push_str(column.joint);
        }
        text.push_str(&named(column, cell));
    }
    if text.is_empty() { shown(&Cell::Absent) } else { text }
}

/// A cell with the name of its column.
fn named(column: &Column, cell: &Cell) -> String {
    let (value, name) = (shown(cell), column.name.as_ref());
    let per_second = if column.unit == Unit::PerSecond { "/s" } else { "" };
    match column.place {
        Place::Nowhere => value,
        Place::Before => format!("{name} {value}{per_second}"),
        Place::After if name.is_empty() => format!("{value}{per_second}"),
        Place::After => match (cell, column.singular) {
            (Cell::Count(1), Some(name)) => format!("{value} {name}"),
            _ => format!("{value} {name}{per_second}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::figure::Better;

    use super::*;

    #[test]
    fn a_section_is_lines_and_tables() {
        let requests = Table::line(
            "requests",
            vec![
                Column::count("sent"),
                Column::count("ok").joined(" = "),
                Column::count("planned").joined("; "),
                Column::count("warm-up requests").singular("warm-up request"),
            ],
        );
        let requests = requests
            .row(vec![Cell::Count(2), Cell::Count(0), Cell::Absent, Cell::Count(1)])
            .row(vec![Cell::Absent, Cell::Absent, Cell::Absent, Cell::Absent]);
        let rates = Table::line(
            "rates",
            vec![
                Column::new("requests", Unit::PerSecond, Better::Higher),
                Column::new("throughput", Unit::PerSecond, Better::Higher).name_first(),
                Column::new("within the SLO", Unit::Share, Better::Higher),
            ],
        );
        let rates = rates.row(vec![Cell::Rate(2.0), Cell::Rate(3.0), Cell::Share(0.5)]);
        let times = Table::grid(
            "times",
            vec![Column::text(""), Column::new("p50", Unit::Seconds, Better::Lower)],
        );
        let times = times
            .row(vec![Cell::text("a"), Cell::Seconds(0.0)])
            .row(vec![Cell::text("b"), Cell::Absent]);
        let head = Section { title: String::new(), tables: vec![Table::words("run", "x")] };
        let load = Section { title: "load".into(), tables: vec![requests, rates, times] };
        assert_eq!(
            text(&[head, load]),
            "run  x\n\nload\n  requests  2 sent = 0 ok, 1 warm-up request\n            -\n  rates     \
             2.00 requests/s, throughput 3.00/s, 50.0 % within the SLO\n\n  times\n     p50\n  a  0 \
             s\n  b  -\n"
        );
    }
}
