//! What a report says, without how it is shown: sections of tables with named columns and typed
//! cells. A renderer takes the cells as they are (raw) or as [`quantity::shown`] writes them.
//!
//! [`quantity::shown`]: super::quantity::shown

use std::borrow::Cow;

use aifb_schema::figure::{Better, Unit};

/// A part of the report under one title.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// Its title; the first section of a report has none.
    pub(super) title: String,
    /// Its tables, in their order.
    pub(super) tables: Vec<Table>,
}

/// Rows of cells under named columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    /// What it is about; empty where its section's title says it.
    pub(super) name: Cow<'static, str>,
    /// How a reader is to see it.
    pub(super) layout: Layout,
    /// Its columns.
    pub(super) columns: Vec<Column>,
    /// Its rows; each has a cell for every column.
    pub(super) rows: Vec<Vec<Cell>>,
}

/// How a table is meant to be seen by a person. Formats for programs do not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A head and aligned columns.
    Grid,
    /// A line for each row, after the table's name: `requests  10 sent = 9 ok + …`.
    Line,
}

/// What a column has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    /// Its name, in the plural where it counts.
    pub(super) name: Cow<'static, str>,
    /// The name beside a count of one, where it differs.
    pub(super) singular: Option<&'static str>,
    /// Unit of its cells.
    pub(super) unit: Unit,
    /// Which way is better.
    pub(super) better: Better,
    /// What stands before its cell in a line that has begun.
    pub(super) joint: &'static str,
    /// Where its name stands in a line.
    pub(super) place: Place,
}

/// Where the name of a column stands in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// After the value: `10 sent`.
    After,
    /// Before it: `throughput 40.0/s`.
    Before,
    /// Nowhere: the value says it itself.
    Nowhere,
}

/// A value, in the base unit of its column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Seconds.
    Seconds(f64),
    /// Bytes.
    Bytes(u64),
    /// Things.
    Count(u64),
    /// A number per second, or of what the column's name says.
    Rate(f64),
    /// A share, 0 to 1.
    Share(f64),
    /// Words.
    Text(String),
    /// It was not measured, or does not apply.
    Absent,
}

impl Cell {
    /// A value that may be absent.
    pub(super) fn of<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Absent, cell)
    }

    /// Words.
    pub(super) fn text(words: impl Into<String>) -> Self {
        Self::Text(words.into())
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Text(words) => words.is_empty(),
            _ => false,
        }
    }
}

impl Column {
    /// A column of numbers, joined by a comma in a line.
    pub(super) fn new(name: impl Into<Cow<'static, str>>, unit: Unit, better: Better) -> Self {
        let (singular, joint, place) = (None, ", ", Place::After);
        Self { name: name.into(), singular, unit, better, joint, place }
    }

    /// A column of words that say themselves what they are.
    pub(super) fn text(name: impl Into<Cow<'static, str>>) -> Self {
        let place = Place::Nowhere;
        Self { place, ..Self::new(name, Unit::Text, Better::Neither) }
    }

    /// A column of counts of which none is better.
    pub(super) fn count(name: &'static str) -> Self {
        Self::new(name, Unit::Count, Better::Neither)
    }

    /// With these words before its cell.
    pub(super) fn joined(self, joint: &'static str) -> Self {
        Self { joint, ..self }
    }

    /// With this name beside a count of one.
    pub(super) fn singular(self, name: &'static str) -> Self {
        Self { singular: Some(name), ..self }
    }

    /// With its name before the value.
    pub(super) fn name_first(self) -> Self {
        Self { place: Place::Before, ..self }
    }
}

impl Table {
    /// A table with a head.
    pub(super) fn grid(name: impl Into<Cow<'static, str>>, columns: Vec<Column>) -> Self {
        Self { name: name.into(), layout: Layout::Grid, columns, rows: Vec::new() }
    }

    /// A table of lines.
    pub(super) fn line(name: impl Into<Cow<'static, str>>, columns: Vec<Column>) -> Self {
        Self { name: name.into(), layout: Layout::Line, columns, rows: Vec::new() }
    }

    /// A single line of words.
    pub(super) fn words(name: impl Into<Cow<'static, str>>, words: impl Into<String>) -> Self {
        Self::line(name, vec![Column::text("text")]).row(vec![Cell::text(words)])
    }

    /// With one more row.
    pub(super) fn row(mut self, cells: Vec<Cell>) -> Self {
        self.rows.push(cells);
        self
    }

    /// Without the columns, after the first, in which no row says anything.
    pub(super) fn without_empty_columns(mut self) -> Self {
        let kept: Vec<bool> = (0..self.columns.len())
            .map(|column| {
                column == 0
                    || self
                        .rows
                        .iter()
                        .any(|row| row.get(column).is_some_and(|cell| !cell.is_empty()))
            })
            .collect();
        retain(&mut self.columns, &kept);
        self.rows.iter_mut().for_each(|row| retain(row, &kept));
        self
    }
}

fn retain<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().is_none_or(|kept| *kept));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_say_nothing_go() {
        let columns = vec![
            Column::text(""),
            Column::new("a", Unit::Seconds, Better::Lower),
            Column::count("b"),
            Column::text("c"),
        ];
        let table = Table::grid("", columns)
            .row(vec![Cell::Absent, Cell::Absent, Cell::Count(0), Cell::text("")])
            .row(vec![Cell::Absent, Cell::Absent, Cell::Absent, Cell::text("")])
            .without_empty_columns();
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_ref()).collect();
        assert_eq!(names, ["", "b"], "a measured 0 is not absent");
        assert_eq!(table.rows, [[Cell::Absent, Cell::Count(0)], [Cell::Absent, Cell::Absent]]);
        assert_eq!(table.columns[1].better, Better::Neither);
    }
}
