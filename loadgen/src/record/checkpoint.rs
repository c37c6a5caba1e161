//! `worker-<rank>.hdr`: what one worker knows of its part, replaced by rename once a second, so
//! that a lost worker leaves its last second's state.
//!
//! The file is an HdrHistogram log: tools of that format read the histograms (values in
//! nanoseconds). Our own record is a comment line of JSON.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
};

use aifb_stats::histogram::Histogram;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::tally::{Histograms, Tally};
use crate::fault::Class;

/// One worker's part, besides its rows and histograms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    /// [`aifb_schema::names::PROTOCOL`] of the writer.
    pub(crate) protocol: u32,
    /// Rank within the load.
    pub(crate) rank: u32,
    /// Workers of the load.
    pub(crate) size: u32,
    /// Whether the worker came to its end.
    pub(crate) ended: bool,
    /// Why it stopped before its plan was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stopped: Option<String>,
    /// The rule of the load that ended its measured part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_by: Option<StoppedBy>,
    /// Measured requests due, open loads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) planned: Option<u64>,
    /// Hash of its plan.
    pub(crate) plan_hash: String,
    /// What it asked.
    #[serde(default)]
    pub(crate) workload: WorkloadRecord,
    /// How large the load is, where it is a probe of a search: the recipe does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<f64>,
    /// Sums.
    pub(crate) tally: Tally,
    /// Rows in the rows file.
    pub(crate) rows: u64,
    /// Rows that could not be kept, because the file system was too slow or failed. The sums and
    /// histograms have them.
    pub(crate) rows_dropped: u64,
    /// Why rows could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) write_error: Option<String>,
    /// One message for each class of failure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) examples: BTreeMap<Class, String>,
    /// What the client did and cost.
    pub(crate) client: ClientState,
}

/// The rule that ended a load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoppedBy {
    /// Its key in the recipe.
    pub(crate) rule: String,
    /// What was seen.
    pub(crate) reason: String,
}

/// What a worker notes of its workload: the same for all workers but for the counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkloadRecord {
    /// SHA-256 over the recipe's words for it and over its files: equal wherever the same is
    /// asked.
    pub(crate) hash: String,
    /// Files and their SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<(String, String)>,
    /// Entries of a file that are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entries: Option<u64>,
    /// Entries of a file that are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<u64>,
    /// Prompt tokens of the measured requests, as planned.
    pub(crate) input_tokens: u64,
    /// Of these, tokens in beginnings that a request before had too: what a prefix cache may
    /// reuse by plan.
    pub(crate) repeated_tokens: u64,
    /// Measured requests whose entry of the file had been asked before.
    pub(crate) reused: u64,
}

/// What the client did and cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientState {
    /// The common start that this worker was given, CLOCK_MONOTONIC.
    pub(crate) start_mono_ns: u64,
    /// How much later its first action was.
    pub(crate) start_late_ns: u64,
    /// Half the round trip of the clock measurement.
    pub(crate) clock_error_ns: u64,
    /// Wall clock minus CLOCK_MONOTONIC.
    pub(crate) epoch_minus_mono_ns: i64,
    /// Start of the measured part, CLOCK_MONOTONIC.
    pub(crate) measure_start_ns: u64,
    /// End of the measured part where it is a time, CLOCK_MONOTONIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) measure_end_ns: Option<u64>,
    /// CPU time of the process since the start.
    pub(crate) cpu_ns: u64,
    /// CPU time of the thread that sends and receives since the start, without spinning.
    pub(crate) thread_cpu_ns: u64,
    /// Wall time that belongs to `thread_cpu_ns`.
    pub(crate) thread_wall_ns: u64,
    /// Time in which that thread could have run and had no CPU, since the start.
    #[serde(default)]
    pub(crate) thread_waited_ns: u64,
    /// CPU time spent on spinning until a deadline.
    pub(crate) spun_ns: u64,
    /// Largest resident set.
    pub(crate) peak_rss_bytes: u64,
    /// Longest time in which the client itself did not run.
    pub(crate) stall_max_ns: u64,
    /// Times in which it did not run, added up.
    pub(crate) stall_sum_ns: u64,
}

/// First word of the comment line with [`WorkerRecord`].
const RECORD: &str = "#aifb ";

/// Replaces `path`.
///
/// # Errors
/// Of the file system.
pub(crate) fn write(path: &Path, record: &WorkerRecord, histograms: &Histograms) -> io::Result<()> {
    let mut text = String::from("#[Histogram log format version 1.3]\n");
    let json = serde_json::to_string(record)?;
    // Writing to a String cannot fail.
    let _ignored = writeln!(text, "{RECORD}{json}");
    text.push_str(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    let length = aifb_stats::distribution::seconds(record.client.thread_wall_ns);
    for (name, histogram) in histograms.iter() {
        let max = aifb_stats::distribution::seconds(histogram.max().unwrap_or(0));
        let code = STANDARD.encode(histogram.encode().map_err(io::Error::other)?);
        let _ignored = writeln!(text, "Tag={name},0.000,{length:.3},{max:.9},{code}");
    }
    let new = path.with_extension("hdr.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&new, path)
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// If the file cannot be read or is not ours.
pub(crate) fn read(path: &Path) -> io::Result<(WorkerRecord, Histograms)> {
    let text = fs::read_to_string(path)?;
    let json = text
        .lines()
        .find_map(|line| line.strip_prefix(RECORD))
        .ok_or_else(|| io::Error::other("it has no line '#aifb'"))?;
    let record: WorkerRecord = serde_json::from_str(json)?;
    let mut histograms = Histograms::default();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("Tag=") else { continue };
        let (Some((name, _)), Some((_, code))) = (rest.split_once(','), rest.rsplit_once(','))
        else {
            return Err(io::Error::other("a histogram line has too few fields"));
        };
        let bytes = STANDARD.decode(code).map_err(io::Error::other)?;
        histograms.insert(name.to_owned(), Histogram::decode(&bytes).map_err(io::Error::other)?);
    }
    Ok((record, histograms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::tests::streamed;

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker-3.hdr");
        let mut histograms = Histograms::default();
        histograms.add(&streamed());
        let mut tally = Tally { sent: 1, ..Tally::default() };
        tally.end(&streamed(), &super::super::tally::Limits::default());
        tally.errors.insert(Class::Dns, 3);
        let record = WorkerRecord {
            rank: 3,
            size: 8,
            tally,
            examples: BTreeMap::from([(Class::Dns, "no \"such\"\nhost".to_owned())]),
            client: ClientState { epoch_minus_mono_ns: -1, ..ClientState::default() },
            ..WorkerRecord::default()
        };
        write(&path, &record, &histograms).unwrap();
        write(&path, &record, &histograms).unwrap();
        assert_eq!(read(&path).unwrap(), (record, histograms));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.hdr");
        for text in ["", "#aifb {", "#aifb {}", "no"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
        }
    }
}
