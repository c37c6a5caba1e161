//! Columns of request rows, each declared once: [`COLUMNS`] makes the schema of a rows file, its
//! writer, its reader and docs/reference/rows.md.
//!
//! The type of a row's field decides how its column is stored ([`Cell`]). Columns are found by
//! name: a file may lack one whose cells may be absent, and may have others.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, ListArray, StringArray, UInt16Array, UInt32Array,
    UInt64Array,
    builder::{ListBuilder, StringBuilder, UInt64Builder},
    cast::AsArray,
    types::UInt64Type,
};
use arrow_schema::{DataType, Field, Fields};

use super::row::{Gaps, Outcome, Row, TokenSource};
use crate::{fault::Class, plan::Phase};

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// What its cells mean, in which unit, and what an absent one means.
    #[cfg(test)]
    pub(crate) doc: &'static str,
    /// Its type, and whether cells may be absent.
    pub(crate) field: fn(&str) -> Field,
    /// Its cells of these rows.
    pub(crate) write: fn(&[Row]) -> ArrayRef,
    /// Whether this program knows every cell that has to be there.
    known: fn(&ArrayRef) -> bool,
    /// Puts the cells from this index on into rows.
    read: fn(&ArrayRef, usize, &mut [Row]) -> Option<()>,
}

/// Makes [`COLUMNS`]: what it means, its name in the file, where a [`Row`] keeps it.
macro_rules! columns {
    ($($(#[doc = $doc:literal])+ $name:literal = $($place:ident).+,)+) => {
        /// Every column, in the order of the file.
        pub(crate) static COLUMNS: &[Column] = &[$(Column {
            name: $name,
            #[cfg(test)]
            doc: concat!($($doc,)+),
            field: |name| field_of(name, |row| &row.$($place).+),
            write: |rows| cells_of(rows, |row| &row.$($place).+),
            known: |array| known_in(array, |row| &row.$($place).+),
            read: |array, first, rows| fill(array, first, rows, |row| &mut row.$($place).+),
        },)+];
    };
}

columns! {
    /// `warmup` or `measure`.
    "phase" = phase,
    /// Number of the request within its phase, over all workers.
    "id" = id,
    /// What was done: `chat`, `select`, ….
    "operation" = operation,
    /// `ok`, `failed` or `cancelled` (by us, at the end of the drain).
    "outcome" = outcome,
    /// Class of the failure; absent unless it failed.
    "error" = error,
    /// Status of the answer; absent where the protocol has none or nothing was answered.
    "status" = seen.status,
    /// When it was due.
    "planned_ns" = planned_ns,
    /// When the loop took it up.
    "dequeued_ns" = dequeued_ns,
    /// How long opening a connection took; absent where a kept one was used.
    "connect_ns" = seen.connect_ns,
    /// How much of that was the TLS handshake; absent without one.
    "tls_ns" = seen.tls_ns,
    /// When the first byte was handed to the system.
    "first_write_ns" = seen.first_write_ns,
    /// When the first byte of the answer was read.
    "first_byte_ns" = seen.first_byte_ns,
    /// When the first non-empty content was read; absent without content events.
    "first_content_ns" = seen.first_content_ns,
    /// When the last non-empty content was read; absent without content events.
    "last_content_ns" = seen.last_content_ns,
    /// When the first content that is not reasoning was read.
    "first_output_ns" = seen.first_output_ns,
    /// When the first event of the answer was read, whatever was in it.
    "first_event_ns" = seen.first_event_ns,
    /// When the last event of the answer was read; the mark that ends a stream is not one.
    "last_event_ns" = seen.last_event_ns,
    /// When the first event with a choice was read, also an empty one; OpenAI's protocols only.
    "first_choice_ns" = seen.first_choice_ns,
    /// When the last event with a choice was read; OpenAI's protocols only.
    "last_choice_ns" = seen.last_choice_ns,
    /// When the mark that ends the answer was read (`[DONE]`, or the object that says done).
    "done_ns" = seen.done_ns,
    /// When it was over: the end of the answer, or when it was given up.
    "end_ns" = end_ns,
    /// Content events.
    "content_events" = seen.content_events,
    /// Tokens of the first content event; absent where the server does not count event by event.
    "first_chunk_tokens" = seen.first_chunk_tokens,
    /// Reads from the socket that brought data.
    "reads" = seen.reads,
    /// Output tokens; absent where the protocol has none or the answer failed before.
    "output_tokens" = seen.output_tokens,
    /// Input tokens as the server counted them; absent where it does not.
    "input_tokens" = seen.input_tokens,
    /// Input tokens that the server took from its prefix cache; absent where it does not say.
    "cached_tokens" = seen.cached_tokens,
    /// Where `output_tokens` comes from: `usage` (the server's count) or `chunks` (content events).
    "token_source" = seen.token_source,
    /// Bytes written to the connection, protocol included.
    "bytes_sent" = seen.bytes_sent,
    /// Bytes read from the connection, protocol included.
    "bytes_received" = seen.bytes_received,
    /// Sent again on a new connection, because the kept one turned out to be closed.
    "resent" = seen.resent,
    /// Times between content events, in nanoseconds.
    "gaps_ns" = seen.gaps,
    /// From a content event's stamp of its server to its read, in nanoseconds (mock server only).
    "receive_lags_ns" = seen.receive_lags,
    /// Things that the request did: texts embedded or ranked, rows read or changed; absent
    /// where a request is one thing.
    "items" = seen.items,
    /// Bytes of the user's own data that were moved, without protocol: with driver `http` the bodies
    /// of request and answer. Absent where that is not known.
    "payload_bytes" = seen.payload_bytes,
    /// Share of the true nearest neighbours that the answer has, 0 to 1; absent where nothing is
    /// searched for.
    "recall" = seen.recall,
}

/// A field of a [`Row`] as a cell of a column.
trait Cell: Sized {
    /// How Arrow keeps such cells.
    type Column: Array + 'static;

    /// Whether a cell may be absent.
    const NULLABLE: bool = false;

    /// Type of the column.
    fn data_type() -> DataType;

    /// A column of cells.
    fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> Self::Column
    where
        Self: 'a;

    /// Whether this program knows every cell of the column: only words can be unknown.
    fn known(_: &Self::Column) -> bool {
        true
    }

    /// The cell at `index`, which is below the column's length; `None` if it is a word that this
    /// program does not know.
    fn at(column: &Self::Column, index: usize) -> Option<Self>;
}

macro_rules! number_cells {
    ($($number:ty, $type:ident, $column:ty;)+) => {$(
        impl Cell for $number {
            type Column = $column;

            fn data_type() -> DataType {
                DataType::$type
            }

            fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> $column {
                <$column>::from_iter_values(cells.copied())
            }

            fn at(column: &$column, index: usize) -> Option<Self> {
                Some(column.value(index))
            }
        }

        impl Cell for Option<$number> {
            type Column = $column;
            const NULLABLE: bool = true;

            fn data_type() -> DataType {
                DataType::$type
            }

            fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> $column {
                cells.copied().collect()
            }

            fn at(column: &$column, index: usize) -> Option<Self> {
                Some(column.is_valid(index).then(|| column.value(index)))
            }
        }
    )+};
}

number_cells! {
    u64, UInt64, UInt64Array;
    u32, UInt32, UInt32Array;
    u16, UInt16, UInt16Array;
    f64, Float64, Float64Array;
}

macro_rules! word_cells {
    ($($word:ty),+) => {$(
        impl Cell for $word {
            type Column = StringArray;

            fn data_type() -> DataType {
                DataType::Utf8
            }

            fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> StringArray {
                StringArray::from_iter_values(cells.map(|cell| cell.as_str()))
            }

            fn known(column: &StringArray) -> bool {
                column.iter().flatten().all(|word| Self::from_word(word).is_some())
            }

            fn at(column: &StringArray, index: usize) -> Option<Self> {
                Self::from_word(column.value(index))
            }
        }
    )+};
}

macro_rules! optional_word_cells {
    ($($word:ty),+) => {$(
        impl Cell for Option<$word> {
            type Column = StringArray;
            const NULLABLE: bool = true;

            fn data_type() -> DataType {
                DataType::Utf8
            }

            fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> StringArray {
                let mut column = StringBuilder::new();
                cells.for_each(|cell| column.append_option(cell.map(<$word>::as_str)));
                column.finish()
            }

            /// A word of a later version reads as absent.
            fn at(column: &StringArray, index: usize) -> Option<Self> {
                let word = column.is_valid(index).then(|| column.value(index));
                Some(word.and_then(<$word>::from_word))
            }
        }
    )+};
}

word_cells!(Phase, Outcome);
optional_word_cells!(Class, TokenSource);

impl Cell for Cow<'static, str> {
    type Column = StringArray;

    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> StringArray {
        StringArray::from_iter_values(cells)
    }

    fn at(column: &StringArray, index: usize) -> Option<Self> {
        Some(column.value(index).to_owned().into())
    }
}

impl Cell for bool {
    type Column = BooleanArray;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> BooleanArray {
        cells.map(|cell| Some(*cell)).collect()
    }

    fn at(column: &BooleanArray, index: usize) -> Option<Self> {
        Some(column.value(index))
    }
}

impl Cell for Gaps {
    type Column = ListArray;

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::UInt64, true)))
    }

    fn column<'a>(cells: impl Iterator<Item = &'a Self>) -> ListArray {
        let mut column = ListBuilder::new(UInt64Builder::new());
        for cell in cells {
            cell.iter().for_each(|gap| column.values().append_value(gap));
            column.append(true);
        }
        column.finish()
    }

    fn at(column: &ListArray, index: usize) -> Option<Self> {
        let list = column.value(index);
        let mut gaps = Self::default();
        list.as_primitive_opt::<UInt64Type>()?.values().iter().for_each(|gap| gaps.push(*gap));
        Some(gaps)
    }
}

/// Takes the type of a row's field from its place.
fn field_of<T: Cell>(name: &str, _: fn(&Row) -> &T) -> Field {
    Field::new(name, T::data_type(), T::NULLABLE)
}

fn cells_of<T: Cell>(rows: &[Row], place: fn(&Row) -> &T) -> ArrayRef {
    Arc::new(T::column(rows.iter().map(place)))
}

fn known_in<T: Cell>(array: &ArrayRef, _: fn(&Row) -> &T) -> bool {
    array.as_any().downcast_ref().is_some_and(T::known)
}

fn fill<T: Cell>(
    array: &ArrayRef,
    first: usize,
    rows: &mut [Row],
    place: fn(&mut Row) -> &mut T,
) -> Option<()> {
    let column = array.as_any().downcast_ref::<T::Column>()?;
    for (index, row) in (first..column.len()).zip(rows) {
        *place(row) = T::at(column, index)?;
    }
    Some(())
}

/// Fields of a rows file.
pub(crate) fn fields() -> Fields {
    COLUMNS.iter().map(|column| (column.field)(column.name)).collect()
}

/// Which of [`COLUMNS`] a file has, and where.
#[derive(Debug)]
pub(crate) struct Found(Vec<(&'static Column, usize)>);

impl Found {
    /// Looks for the columns among the fields of a file, by name.
    ///
    /// # Errors
    /// Names a column that has to be there and is not, or that has another type.
    pub(crate) fn among(fields: &Fields) -> Result<Self, String> {
        let mut found = Vec::new();
        for column in COLUMNS {
            let expected = (column.field)(column.name);
            match fields.find(column.name) {
                Some((at, field)) if field.data_type() == expected.data_type() => {
                    found.push((column, at));
                }
                Some((_, field)) => {
                    return Err(format!(
                        "column '{}' is {}, expected {}",
                        column.name,
                        field.data_type(),
                        expected.data_type()
                    ));
                }
                None if expected.is_nullable() => {}
                None => return Err(format!("column '{}' is missing", column.name)),
            }
        }
        Ok(Self(found))
    }

    /// Whether the rows of these arrays can be read.
    ///
    /// # Errors
    /// Names the column with cells that are absent or unknown and must not be.
    pub(crate) fn check(&self, arrays: &[ArrayRef]) -> Result<(), String> {
        for (column, at) in &self.0 {
            let whole = arrays.get(*at).is_some_and(|array| {
                let absent = array.null_count() > 0 && !(column.field)(column.name).is_nullable();
                !absent && (column.known)(array)
            });
            if !whole {
                return Err(format!("column '{}' has unknown or missing cells", column.name));
            }
        }
        Ok(())
    }

    /// Puts the rows from `first` on into `rows`, which are blank.
    pub(crate) fn read(&self, arrays: &[ArrayRef], first: usize, rows: &mut [Row]) -> Option<()> {
        self.0.iter().try_for_each(|(column, at)| (column.read)(arrays.get(*at)?, first, rows))
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::Path};

    use super::*;

    /// docs/reference/rows.md.
    fn page() -> String {
        let mut page = String::from(
            "# Request rows\n\n\
             Made from the table of columns by a test (`AIFB_BLESS=1 cargo test -p aifb-loadgen \
             columns`); do not edit.\n\n\
             Each worker of a load writes `worker-<rank>.arrows`: an Arrow IPC stream with one row \
             per request. A record batch is\nappended every second, so the file can be read at any \
             time up to its last whole batch, by Arrow, pandas, Polars and\nDuckDB. Columns ending in `_ns` are instants of CLOCK_MONOTONIC of the worker's node in \
             nanoseconds (the schema's\nmetadata has `epoch_minus_mono_ns`, which makes them wall \
             clock), except where the meaning says that they are durations.\nColumns are found by \
             name: a later version may add some.\n\n\
             | column | type | may be absent | meaning |\n|---|---|---|---|\n",
        );
        for column in COLUMNS {
            let field = (column.field)(column.name);
            let kind = match field.data_type() {
                DataType::List(_) => "List of UInt64".to_owned(),
                other => other.to_string(),
            };
            let absent = if field.is_nullable() { "yes" } else { "" };
            writeln!(page, "| `{}` | {kind} | {absent} |{} |", column.name, column.doc).unwrap();
        }
        page
    }

    #[test]
    fn columns_are_documented() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/rows.md");
        let page = page();
        if std::env::var_os("AIFB_BLESS").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == page, "{} is old: AIFB_BLESS=1 writes it", path.display());
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = COLUMNS.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), COLUMNS.len());
    }
}
