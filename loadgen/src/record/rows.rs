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

use arrow_array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, UInt16Array, UInt32Array,
    UInt64Array,
    builder::{ListBuilder, StringBuilder, UInt64Builder},
    cast::AsArray,
};
use arrow_ipc::{
    CompressionType,
    reader::StreamReader,
    writer::{IpcWriteOptions, StreamWriter},
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::row::{Gaps, Outcome, Row, Seen, TokenSource};
use crate::{fault::Class, plan::Phase};

/// Rows of one record batch: at about 150 bytes a row 10 MB, what a reader holds at a time.
const BATCH_ROWS: usize = 65_536;

/// Bytes of gaps in a batch, before they become numbers of eight bytes: a second in which thousands
/// of long streams end is written in parts.
const BATCH_GAP_BYTES: usize = 64 * 1024;

/// Columns, in their order.
fn schema(metadata: HashMap<String, String>) -> SchemaRef {
    let u64s = |name: &str| Field::new(name, DataType::UInt64, false);
    let maybe = |name: &str| Field::new(name, DataType::UInt64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let item = Arc::new(Field::new_list_field(DataType::UInt64, true));
    let fields = vec![
        text("phase"),
        u64s("id"),
        text("operation"),
        text("outcome"),
        Field::new("error", DataType::Utf8, true),
        Field::new("status", DataType::UInt16, true),
        u64s("planned_ns"),
        u64s("dequeued_ns"),
        maybe("connect_ns"),
        maybe("tls_ns"),
        maybe("first_write_ns"),
        maybe("first_byte_ns"),
        maybe("first_content_ns"),
        maybe("last_content_ns"),
        maybe("first_output_ns"),
        maybe("first_event_ns"),
        maybe("last_event_ns"),
        maybe("first_choice_ns"),
        maybe("last_choice_ns"),
        maybe("done_ns"),
        u64s("end_ns"),
        Field::new("content_events", DataType::UInt32, false),
        maybe("first_chunk_tokens"),
        Field::new("reads", DataType::UInt32, false),
        maybe("output_tokens"),
        maybe("input_tokens"),
        maybe("cached_tokens"),
        Field::new("token_source", DataType::Utf8, true),
        u64s("bytes_sent"),
        u64s("bytes_received"),
        Field::new("resent", DataType::Boolean, false),
        Field::new("gaps_ns", DataType::List(item.clone()), false),
        Field::new("receive_lags_ns", DataType::List(item), false),
    ];
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Columns of `rows`, in the order of [`schema`].
fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let mut phase = StringBuilder::new();
    let mut operation = StringBuilder::new();
    let mut outcome = StringBuilder::new();
    let mut error = StringBuilder::new();
    let mut source = StringBuilder::new();
    let mut gaps = ListBuilder::new(UInt64Builder::new());
    let mut lags = ListBuilder::new(UInt64Builder::new());
    for row in rows {
        phase.append_value(row.phase.as_str());
        operation.append_value(&row.operation);
        outcome.append_value(row.outcome.as_str());
        error.append_option(row.error.map(Class::as_str));
        source.append_option(row.seen.token_source.map(TokenSource::as_str));
        row.seen.gaps.iter().for_each(|gap| gaps.values().append_value(gap));
        gaps.append(true);
        row.seen.receive_lags.iter().for_each(|lag| lags.values().append_value(lag));
        lags.append(true);
    }
    let u64s = |of: fn(&Row) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
    };
    let maybe = |of: fn(&Row) -> Option<u64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<UInt64Array>())
    };
    let u32s = |of: fn(&Row) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
    };
    vec![
        Arc::new(phase.finish()),
        u64s(|row| row.id),
        Arc::new(operation.finish()),
        Arc::new(outcome.finish()),
        Arc::new(error.finish()),
        Arc::new(rows.iter().map(|row| row.seen.status).collect::<UInt16Array>()),
        u64s(|row| row.planned_ns),
        u64s(|row| row.dequeued_ns),
        maybe(|row| row.seen.connect_ns),
        maybe(|row| row.seen.tls_ns),
        maybe(|row| row.seen.first_write_ns),
        maybe(|row| row.seen.first_byte_ns),
        maybe(|row| row.seen.first_content_ns),
        maybe(|row| row.seen.last_content_ns),
        maybe(|row| row.seen.first_output_ns),
        maybe(|row| row.seen.first_event_ns),
        maybe(|row| row.seen.last_event_ns),
        maybe(|row| row.seen.first_choice_ns),
        maybe(|row| row.seen.last_choice_ns),
        maybe(|row| row.seen.done_ns),
        u64s(|row| row.end_ns),
        u32s(|row| row.seen.content_events),
        maybe(|row| row.seen.first_chunk_tokens),
        u32s(|row| row.seen.reads),
        maybe(|row| row.seen.output_tokens),
        maybe(|row| row.seen.input_tokens),
        maybe(|row| row.seen.cached_tokens),
        Arc::new(source.finish()),
        u64s(|row| row.seen.bytes_sent),
        u64s(|row| row.seen.bytes_received),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.seen.resent)))),
        Arc::new(gaps.finish()),
        Arc::new(lags.finish()),
    ]
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
                RecordBatch::try_new(Arc::clone(&self.schema), columns(part)).map_err(other)?;
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
    if reader.schema().fields() != schema(HashMap::new()).fields() {
        return Err(io::Error::other("its columns are not those of this version"));
    }
    end.epoch_minus_mono_ns =
        reader.schema().metadata().get(EPOCH_MINUS_MONO).and_then(|text| text.parse().ok());
    for batch in reader {
        let rows = batch.map_err(other).and_then(|batch| {
            give_rows(&batch, &mut each)
                .ok_or_else(|| io::Error::other("a batch has unknown words"))
        });
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

/// Columns of a batch by type, checked once for each batch.
struct Columns<'a>(&'a RecordBatch);

impl<'a> Columns<'a> {
    fn text(&self, name: &str) -> Option<&'a StringArray> {
        self.0.column_by_name(name)?.as_string_opt()
    }
    fn u64s(&self, name: &str) -> Option<&'a UInt64Array> {
        self.0.column_by_name(name)?.as_primitive_opt()
    }
    fn u32s(&self, name: &str) -> Option<&'a UInt32Array> {
        self.0.column_by_name(name)?.as_primitive_opt()
    }
}

fn maybe(array: &UInt64Array, index: usize) -> Option<u64> {
    array.is_valid(index).then(|| array.value(index))
}

fn gaps_at(lists: &ListArray, index: usize) -> Option<Gaps> {
    let list = lists.value(index);
    let values: &UInt64Array = list.as_primitive_opt()?;
    let mut gaps = Gaps::default();
    values.values().iter().for_each(|gap| gaps.push(*gap));
    Some(gaps)
}

/// Gives the rows of a batch one by one, which so take no memory, and tells how many they are;
/// `None`, and none of them, if a word in it is unknown.
fn give_rows(batch: &RecordBatch, each: &mut impl FnMut(Row)) -> Option<usize> {
    let columns = Columns(batch);
    let (phases, outcomes) = (columns.text("phase")?, columns.text("outcome")?);
    let known =
        |i: usize| phase_of(phases.value(i)).is_some() && outcome_of(outcomes.value(i)).is_some();
    let count = batch.num_rows();
    if !(0..count).all(known) {
        return None;
    }
    let row = rows_of(batch)?;
    (0..count).try_for_each(|i| row(i).map(&mut *each))?;
    Some(count)
}

/// The row of each index of a batch; `None` if a word in it is unknown.
fn rows_of(batch: &RecordBatch) -> Option<impl Fn(usize) -> Option<Row>> {
    let columns = Columns(batch);
    let (phase, operation, outcome) =
        (columns.text("phase")?, columns.text("operation")?, columns.text("outcome")?);
    let (error, source) = (columns.text("error")?, columns.text("token_source")?);
    let status: &UInt16Array = batch.column_by_name("status")?.as_primitive_opt()?;
    let (id, planned, dequeued, end) = (
        columns.u64s("id")?,
        columns.u64s("planned_ns")?,
        columns.u64s("dequeued_ns")?,
        columns.u64s("end_ns")?,
    );
    let (connect, tls, first_write, first_byte, first_content, last_content) = (
        columns.u64s("connect_ns")?,
        columns.u64s("tls_ns")?,
        columns.u64s("first_write_ns")?,
        columns.u64s("first_byte_ns")?,
        columns.u64s("first_content_ns")?,
        columns.u64s("last_content_ns")?,
    );
    let (first_output, first_event, last_event, first_choice, last_choice, done) = (
        columns.u64s("first_output_ns")?,
        columns.u64s("first_event_ns")?,
        columns.u64s("last_event_ns")?,
        columns.u64s("first_choice_ns")?,
        columns.u64s("last_choice_ns")?,
        columns.u64s("done_ns")?,
    );
    let (first_chunk, cached) =
        (columns.u64s("first_chunk_tokens")?, columns.u64s("cached_tokens")?);
    let (events, reads) = (columns.u32s("content_events")?, columns.u32s("reads")?);
    let (output, input) = (columns.u64s("output_tokens")?, columns.u64s("input_tokens")?);
    let (sent, received) = (columns.u64s("bytes_sent")?, columns.u64s("bytes_received")?);
    let resent = batch.column_by_name("resent")?.as_boolean_opt()?;
    let gaps: &ListArray = batch.column_by_name("gaps_ns")?.as_list_opt()?;
    let lags: &ListArray = batch.column_by_name("receive_lags_ns")?.as_list_opt()?;
    Some(move |i: usize| -> Option<Row> {
        let word = |array: &'_ StringArray| array.is_valid(i).then(|| array.value(i).to_owned());
        let seen = Seen {
            end_ns: None,
            connect_ns: maybe(connect, i),
            tls_ns: maybe(tls, i),
            first_write_ns: maybe(first_write, i),
            first_byte_ns: maybe(first_byte, i),
            first_content_ns: maybe(first_content, i),
            last_content_ns: maybe(last_content, i),
            first_output_ns: maybe(first_output, i),
            first_event_ns: maybe(first_event, i),
            last_event_ns: maybe(last_event, i),
            first_choice_ns: maybe(first_choice, i),
            last_choice_ns: maybe(last_choice, i),
            done_ns: maybe(done, i),
            first_chunk_tokens: maybe(first_chunk, i),
            gaps: gaps_at(gaps, i)?,
            receive_lags: gaps_at(lags, i)?,
            content_events: events.value(i),
            reads: reads.value(i),
            status: status.is_valid(i).then(|| status.value(i)),
            bytes_sent: sent.value(i),
            bytes_received: received.value(i),
            output_tokens: maybe(output, i),
            input_tokens: maybe(input, i),
            cached_tokens: maybe(cached, i),
            token_source: word(source).and_then(|word| token_source(&word)),
            resent: resent.value(i),
        };
        Some(Row {
            phase: phase_of(phase.value(i))?,
            id: id.value(i),
            operation: operation.value(i).to_owned().into(),
            planned_ns: planned.value(i),
            dequeued_ns: dequeued.value(i),
            end_ns: end.value(i),
            outcome: outcome_of(outcome.value(i))?,
            error: word(error).and_then(|word| Class::from_word(&word)),
            seen,
        })
    })
}

fn phase_of(word: &str) -> Option<Phase> {
    [Phase::Warmup, Phase::Measure].into_iter().find(|phase| phase.as_str() == word)
}

fn outcome_of(word: &str) -> Option<Outcome> {
    [Outcome::Ok, Outcome::Failed, Outcome::Cancelled]
        .into_iter()
        .find(|outcome| outcome.as_str() == word)
}

fn token_source(word: &str) -> Option<TokenSource> {
    [TokenSource::Usage, TokenSource::Chunks].into_iter().find(|source| source.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::tests::streamed;

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
