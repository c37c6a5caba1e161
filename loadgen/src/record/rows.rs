//! `worker-<rank>.arrows`: one row per request, as an Arrow IPC stream.
//!
//! One record batch is appended a second, compressed; so whatever happens to the process, the
//! file can be read up to its last whole batch. Times are CLOCK_MONOTONIC of the worker's node in
//! nanoseconds; the schema's metadata has `epoch_minus_mono_ns`, which makes them wall clock.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::{
    CompressionType,
    reader::StreamReader,
    writer::{IpcWriteOptions, StreamWriter},
};
use arrow_schema::{ArrowError, Schema, SchemaRef};

use super::{
    columns::{self, COLUMNS, Found},
    row::Row,
};

/// Rows of one record batch: at about 150 bytes a row 10 MB, what a reader holds at a time.
const BATCH_ROWS: usize = 65_536;

/// Rows that are read at a time, so that the rows of a batch never lie in memory together.
const READ_ROWS: usize = 256;

/// Bytes of gaps in a batch, before they become numbers of eight bytes: a second in which thousands
/// of long streams end is written in parts.
const BATCH_GAP_BYTES: usize = 64 * 1024;

fn schema(metadata: HashMap<String, String>) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(columns::fields(), metadata))
}

/// Columns of these rows.
fn columns_of(rows: &[Row]) -> Vec<ArrayRef> {
    COLUMNS.iter().map(|column| (column.write)(rows)).collect()
}

fn other(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, error) => error,
        error => io::Error::other(error),
    }
}

/// Writes rows.
pub(crate) struct RowWriter {
    schema: SchemaRef,
    stream: StreamWriter<BufWriter<File>>,
}

impl RowWriter {
    /// Opens `path`, replacing what is there, and writes the schema.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn create(path: &Path, metadata: HashMap<String, String>) -> io::Result<Self> {
        let schema = schema(metadata);
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .map_err(other)?;
        let file = BufWriter::new(File::create(path)?);
        let mut stream =
            StreamWriter::try_new_with_options(file, &schema, options).map_err(other)?;
        stream.flush().map_err(other)?;
        Ok(Self { schema, stream })
    }

    /// Appends rows and hands them to the system.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn append(&mut self, rows: &[Row]) -> io::Result<()> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(batch_rows(rest));
            rest = after;
            let batch =
                RecordBatch::try_new(Arc::clone(&self.schema), columns_of(part)).map_err(other)?;
            self.stream.write(&batch).map_err(other)?;
        }
        self.stream.flush().map_err(other)
    }

    /// Writes the end mark: the file is whole.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.stream.finish().map_err(other)?;
        self.stream.get_mut().flush()
    }
}

/// How many of `rows` make the next batch; at least one.
fn batch_rows(rows: &[Row]) -> usize {
    let mut bytes = 0;
    let large = |row: &Row| {
        bytes += row.seen.gaps.bytes() + row.seen.receive_lags.bytes();
        bytes > BATCH_GAP_BYTES
    };
    let fitting = rows.iter().position(large).unwrap_or(rows.len());
    fitting.clamp(1, BATCH_ROWS).min(rows.len())
}

/// What a rows file gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReadEnd {
    /// Rows read.
    pub(crate) rows: u64,
    /// Why reading ended before the end mark; absent when the file is whole.
    pub(crate) torn: Option<String>,
    /// `epoch_minus_mono_ns` of the worker's node.
    pub(crate) epoch_minus_mono_ns: Option<i64>,
}

/// Reads the rows of `path` up to the last whole batch.
///
/// # Errors
/// If the file cannot be opened or is not ours.
pub(crate) fn read(path: &Path, mut each: impl FnMut(Row)) -> io::Result<ReadEnd> {
    let mut end = ReadEnd::default();
    let marked = ends_with_mark(path)?;
    let reader = StreamReader::try_new(BufReader::new(File::open(path)?), None).map_err(other)?;
    let found = Found::among(reader.schema().fields()).map_err(io::Error::other)?;
    end.epoch_minus_mono_ns =
        reader.schema().metadata().get(EPOCH_MINUS_MONO).and_then(|text| text.parse().ok());
    for batch in reader {
        let rows = batch.map_err(other).and_then(|batch| give_rows(&batch, &found, &mut each));
        match rows {
            Ok(count) => end.rows += u64::try_from(count).unwrap_or(0),
            Err(error) => {
                end.torn = Some(error.to_string());
                return Ok(end);
            }
        }
    }
    if !marked {
        end.torn = Some("it has no end mark: its writer was ended".to_owned());
    }
    Ok(end)
}

/// Key of the schema's metadata.
pub(crate) const EPOCH_MINUS_MONO: &str = "epoch_minus_mono_ns";

/// Whether the file ends with the stream's end mark (0xFFFFFFFF and a length of 0).
fn ends_with_mark(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path)?;
    let mut mark = [0; 8];
    let Some(at) = file.metadata()?.len().checked_sub(8) else {
        return Ok(false);
    };
    file.read_exact_at(&mut mark, at)?;
    Ok(mark == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])
}

/// Gives the rows of a batch one by one and says how many there are; none of them if one cannot
/// be read.
fn give_rows(batch: &RecordBatch, found: &Found, each: &mut impl FnMut(Row)) -> io::Result<usize> {
    let (arrays, count) = (batch.columns(), batch.num_rows());
    found
        .check(arrays)
        .map_err(|why| io::Error::other(format!("a batch cannot be read: {why}")))?;
    let mut rows = Vec::with_capacity(READ_ROWS.min(count));
    for first in (0..count).step_by(READ_ROWS) {
        rows.resize_with(READ_ROWS.min(count - first), Row::blank);
        found.read(arrays, first, &mut rows).ok_or_else(|| io::Error::other("a batch is torn"))?;
        rows.drain(..).for_each(&mut *each);
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use arrow_array::StringArray;
    use arrow_schema::{DataType, Field};

    use super::*;
    use crate::{
        fault::Class,
        record::row::{Outcome, Seen, tests::streamed},
    };

    fn rows(count: u64) -> Vec<Row> {
        (0..count)
            .map(|id| {
                let mut row = streamed();
                row.id = id;
                if id % 3 == 1 {
                    row.outcome = Outcome::Failed;
                    row.error = Some(Class::Status5xx);
                    row.seen = Seen { status: Some(503), ..Seen::default() };
                }
                row.seen.items = (id % 3 == 2).then_some(id);
                row.seen.payload_bytes = (id % 5 == 2).then_some(id * 1_000);
                row.seen.recall = (id % 7 == 2).then_some(0.75);
                row
            })
            .collect()
    }

    fn written(path: &Path, rows: &[Row], finish: bool) {
        let metadata = HashMap::from([(EPOCH_MINUS_MONO.to_owned(), "-5".to_owned())]);
        let mut writer = RowWriter::create(path, metadata).unwrap();
        for part in rows.chunks(10) {
            writer.append(part).unwrap();
        }
        if finish {
            writer.finish().unwrap();
        }
    }

    #[test]
    fn rows_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.arrows");
        let rows = rows(35);
        written(&path, &rows, true);
        let mut found = Vec::new();
        let end = read(&path, |row| found.push(row)).unwrap();
        assert_eq!(found, rows);
        assert_eq!(end, ReadEnd { rows: 35, torn: None, epoch_minus_mono_ns: Some(-5) });
    }

    #[test]
    fn a_batch_larger_than_what_is_read_at_a_time_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.arrows");
        let rows = rows(2 * READ_ROWS as u64 + 1);
        let mut writer = RowWriter::create(&path, HashMap::new()).unwrap();
        writer.append(&rows).unwrap();
        writer.finish().unwrap();
        let mut found = Vec::new();
        assert_eq!(read(&path, |row| found.push(row)).unwrap().rows, rows.len() as u64);
        assert_eq!(found, rows);
    }

    /// Writes `rows` with the columns that `change` makes of ours.
    fn changed(path: &Path, rows: &[Row], change: impl Fn(&mut Vec<(Field, ArrayRef)>)) {
        let mut columns: Vec<(Field, ArrayRef)> = COLUMNS
            .iter()
            .map(|column| ((column.field)(column.name), (column.write)(rows)))
            .collect();
        change(&mut columns);
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        let mut stream = StreamWriter::try_new(File::create(path).unwrap(), &schema).unwrap();
        stream.write(&RecordBatch::try_new(schema, arrays).unwrap()).unwrap();
        stream.finish().unwrap();
    }

    #[test]
    fn columns_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.arrows");
        let mut rows = rows(30);
        changed(&path, &rows, |columns| {
            // Written by an earlier version and by a later one, in another order.
            columns.retain(|(field, _)| {
                !["items", "payload_bytes", "recall"].contains(&field.name().as_str())
            });
            let (_, array) = columns[0].clone();
            columns.push((Field::new("colour", DataType::Utf8, true), array));
            columns.reverse();
        });
        for row in &mut rows {
            (row.seen.items, row.seen.payload_bytes, row.seen.recall) = (None, None, None);
        }
        let mut found = Vec::new();
        let end = read(&path, |row| found.push(row)).unwrap();
        assert_eq!((found, end.torn), (rows, None));
    }

    #[test]
    fn a_column_that_has_to_be_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.arrows");
        let rows = rows(3);
        let at = |columns: &[(Field, ArrayRef)], name: &str| {
            columns.iter().position(|(field, _)| field.name() == name).unwrap()
        };
        changed(&path, &rows, |columns| {
            columns.remove(at(columns, "planned_ns"));
        });
        let error = read(&path, |_| panic!("no row")).unwrap_err().to_string();
        assert_eq!(error, "column 'planned_ns' is missing");
        changed(&path, &rows, |columns| {
            let other = columns[at(columns, "phase")].1.clone();
            let status = at(columns, "status");
            columns[status] = (Field::new("status", DataType::Utf8, true), other);
        });
        let error = read(&path, |_| panic!("no row")).unwrap_err().to_string();
        assert_eq!(error, "column 'status' is Utf8, expected UInt16");
        // A word of nobody, after rows that could be read: none of the batch is given.
        changed(&path, &rows, |columns| {
            let outcome = at(columns, "outcome");
            columns[outcome].1 = Arc::new(StringArray::from(vec!["ok", "ok", "perhaps"]));
        });
        let end = read(&path, |_| panic!("no row")).unwrap();
        let why = "a batch cannot be read: column 'outcome' has unknown or missing cells";
        assert_eq!((end.rows, end.torn.as_deref()), (0, Some(why)));
    }

    #[test]
    fn long_streams_are_written_in_parts() {
        let mut rows = rows(10);
        assert_eq!(batch_rows(&rows), 10);
        assert_eq!(batch_rows(&rows[..1]), 1);
        for row in &mut rows {
            (0..10_000).for_each(|_| row.seen.gaps.push(200));
        }
        // Two bytes each.
        assert_eq!(batch_rows(&rows), 3);
        (0..40_000).for_each(|_| rows[0].seen.gaps.push(200));
        assert_eq!(batch_rows(&rows), 1);
    }

    /// Cut at many places: never a panic, always whole batches, and said to be torn.
    #[test]
    fn a_torn_file_reads_up_to_the_last_whole_batch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-0.arrows");
        let rows = rows(30);
        written(&path, &rows, false);
        let whole = std::fs::read(&path).unwrap();
        let torn = folder.path().join("torn.arrows");
        let mut last = 0;
        // A prime step comes by every kind of boundary; the end is looked at byte by byte.
        let near_end = whole.len() - 20;
        for length in (0..near_end).step_by(61).chain(near_end..=whole.len()) {
            std::fs::write(&torn, &whole[..length]).unwrap();
            let mut found = Vec::new();
            match read(&torn, |row| found.push(row)) {
                // Without a whole schema there is nothing to read.
                Err(_) => assert!(length < 4_096, "{length}"),
                Ok(end) => {
                    assert!(end.torn.is_some(), "{length}: no end mark");
                    assert_eq!(found, rows[..found.len()]);
                    assert_eq!(found.len() % 10, 0);
                }
            }
            assert!(found.len() >= last);
            last = found.len();
        }
        assert_eq!(last, 30);
    }
}
