//! Recorded arrivals: reads a trace and says who sends what when.
//!
//! | format | line | unit of the time |
//! |---|---|---|
//! | JSON lines (Mooncake's and ours) | `{"timestamp": 27482, "input_length": 655, "output_length": 52}` | ms; `timestamp_seconds`: s |
//! | Azure's CSV | `TIMESTAMP,ContextTokens,GeneratedTokens` | date and time |
//! | BurstGPT's CSV | `Timestamp,Model,Request tokens,Response tokens,…` | s |

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use aifb_schema::snapshot::hex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{ARRIVALS_MAX, Phase};
use crate::error::Fatal;

/// Largest file that is read: the longest public traces have 400 MB.
const TRACE_BYTES_MAX: u64 = 2 << 30;

/// Longest line: lists of ten thousands of block numbers, which are not kept.
const LINE_MAX: u64 = 1 << 20;

/// Lengths of a request in tokens, as far as the trace knows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Of the prompt.
    pub(crate) input: Option<u32>,
    /// Of the answer.
    pub(crate) output: Option<u32>,
}

/// A recorded request.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    /// Seconds, from any zero.
    at: f64,
    lengths: Lengths,
}

/// A trace, ready to be replayed: its first request is due at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trace {
    /// Ascending offsets from the start, at the requested speed.
    times: Vec<u64>,
    lengths: Vec<Lengths>,
    /// Requests before the measured part.
    warmup: usize,
    /// SHA-256 of the file, hexadecimal.
    pub(crate) sha256: String,
}

impl Trace {
    /// Reads a file. What is due before `warmup_ns` belongs to the warm-up.
    ///
    /// # Errors
    /// If it cannot be read, is too long or is none of the known formats.
    pub(crate) fn read(path: &str, speed: f64, warmup_ns: u64) -> Result<Self, Fatal> {
        let wrong = |cause: String| {
            Fatal::usage(format!("reading trace '{path}': {cause}"))
                .hint("JSON lines with timestamp, input_length and output_length, Azure's CSV or BurstGPT's; the file has to be on the clients' nodes")
        };
        let file = File::open(Path::new(path)).map_err(|error| wrong(error.to_string()))?;
        let bytes = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
        if bytes > TRACE_BYTES_MAX {
            return Err(wrong(format!("{bytes} bytes are more than {TRACE_BYTES_MAX}")));
        }
        let (mut entries, sha256) = entries(file).map_err(wrong)?;
        entries.sort_by(|a, b| a.at.total_cmp(&b.at));
        let Some(first) = entries.first().map(|entry| entry.at) else {
            return Err(wrong("it has no request".to_owned()));
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "sorted, so not negative; the cast saturates"
        )]
        let times: Vec<u64> =
            entries.iter().map(|entry| ((entry.at - first) / speed * 1e9).round() as u64).collect();
        let warmup = times.partition_point(|at| *at < warmup_ns);
        let lengths = entries.iter().map(|entry| entry.lengths).collect();
        Ok(Self { times, lengths, warmup, sha256 })
    }

    /// Times of the warm-up and of what follows it.
    pub(super) fn split(&self) -> (&[u64], &[u64]) {
        self.times.split_at(self.warmup)
    }

    /// Lengths of request number `id` of a phase.
    pub(crate) fn lengths(&self, phase: Phase, id: u64) -> Lengths {
        let before = if phase == Phase::Measure { self.warmup } else { 0 };
        let index = usize::try_from(id).unwrap_or(usize::MAX).saturating_add(before);
        self.lengths.get(index).copied().unwrap_or_default()
    }
}

/// Hashes what passes through.
struct Hashed<R>(R, Sha256);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(into)?;
        self.1.update(into.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// All entries and the hash of the file. An error is a cause.
fn entries(file: impl Read) -> Result<(Vec<Entry>, String), String> {
    let mut reader = BufReader::with_capacity(1 << 16, Hashed(file, Sha256::new()));
    let (mut entries, mut columns) = (Vec::new(), None);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line);
        match read.map_err(|error| error.to_string())? {
            0 => break,
            count if u64::try_from(count).unwrap_or(LINE_MAX) == LINE_MAX => {
                return Err(format!("line {number} is longer than {LINE_MAX} bytes"));
            }
            _ => {}
        }
        let text = std::str::from_utf8(&line).map_err(|_| format!("line {number} is not text"))?;
        // A byte order mark is what some editors put in front.
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        let entry = match (&columns, text.starts_with('{')) {
            (None, false) => {
                columns = Some(Columns::of(text).ok_or_else(|| {
                    format!("line {number}: no known columns, and not a JSON object")
                })?);
                continue;
            }
            (Some(columns), _) => columns.entry(text),
            (None, true) => from_json(text),
        };
        entries.push(entry.map_err(|cause| format!("line {number}: {cause}"))?);
        if entries.len() >= ARRIVALS_MAX {
            return Err(format!("it has more than {ARRIVALS_MAX} requests"));
        }
    }
    Ok((entries, hex(&reader.into_inner().1.finalize())))
}

#[derive(Deserialize)]
struct Line {
    /// Milliseconds, as Mooncake's traces have it.
    #[serde(alias = "timestamp_ms")]
    timestamp: Option<f64>,
    timestamp_seconds: Option<f64>,
    #[serde(default)]
    input_length: Option<u64>,
    #[serde(default)]
    output_length: Option<u64>,
}

fn from_json(text: &str) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let at = match (line.timestamp, line.timestamp_seconds) {
        (Some(ms), None) => ms / 1e3,
        (None, Some(seconds)) => seconds,
        _ => return Err("expected either timestamp (ms) or timestamp_seconds".to_owned()),
    };
    entry(at, line.input_length, line.output_length)
}

/// A recorded request that failed has no response length: the minimum is requested.
fn entry(at: f64, input: Option<u64>, output: Option<u64>) -> Result<Entry, String> {
    let length = |count: Option<u64>| {
        count.map(|count| {
            u32::try_from(count)
                .ok()
                .filter(|count| *count <= aifb_schema::recipe::LENGTH_MAX)
                .map(|count| count.max(1))
                .ok_or_else(|| format!("{count} tokens are too many"))
        })
    };
    if !at.is_finite() || at.abs() > 1e12 {
        return Err(format!("{at} is not a time"));
    }
    let lengths =
        Lengths { input: length(input).transpose()?, output: length(output).transpose()? };
    Ok(Entry { at, lengths })
}

/// Where a CSV has what.
struct Columns {
    time: usize,
    /// A date and a time of day, not seconds.
    dates: bool,
    input: usize,
    output: usize,
}

impl Columns {
    fn of(head: &str) -> Option<Self> {
        let names: Vec<&str> = head.split(',').map(|name| name.trim().trim_matches('"')).collect();
        let at = |wanted: &str| names.iter().position(|name| *name == wanted);
        if let (Some(time), Some(input), Some(output)) =
            (at("TIMESTAMP"), at("ContextTokens"), at("GeneratedTokens"))
        {
            return Some(Self { time, dates: true, input, output });
        }
        let (time, input, output) =
            (at("Timestamp")?, at("Request tokens")?, at("Response tokens")?);
        Some(Self { time, dates: false, input, output })
    }

    fn entry(&self, line: &str) -> Result<Entry, String> {
        let fields: Vec<&str> =
            line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let field =
            |index: usize| fields.get(index).copied().ok_or_else(|| "too few fields".to_owned());
        let time = field(self.time)?;
        let at = if self.dates {
            date(time).ok_or_else(|| format!("'{time}' is not a date and time"))?
        } else {
            time.parse().map_err(|_| format!("'{time}' is not a number of seconds"))?
        };
        let count = |index: usize| {
            let text = field(index)?;
            text.parse::<u64>().map_err(|_| format!("'{text}' is not a number of tokens"))
        };
        entry(at, Some(count(self.input)?), Some(count(self.output)?))
    }
}

/// Seconds since 1970 of `2023-11-16 18:17:03.9799600` or `2024-05-10 00:00:00.009930+00:00`.
fn date(text: &str) -> Option<f64> {
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &str, speed: f64, warmup_ns: u64) -> Result<Trace, Fatal> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Trace::read(file.path().to_str().unwrap(), speed, warmup_ns)
    }

    fn lengths(input: u32, output: u32) -> Lengths {
        Lengths { input: Some(input), output: Some(output) }
    }

    #[test]
    fn each_format_is_read() {
        let mooncake = concat!(
            "{\"timestamp\": 100, \"input_length\": 655, \"output_length\": 52, \"hash_ids\": [46]}\n",
            "{\"timestamp\": 1600, \"input_length\": 672, \"output_length\": 26, \"hash_ids\": []}\n\n"
        );
        let trace = read(mooncake, 1.0, 0).unwrap();
        assert_eq!(trace.times, [0, 1_500_000_000]);
        assert_eq!(trace.lengths(Phase::Measure, 1), lengths(672, 26));
        assert_eq!(trace.lengths(Phase::Measure, 2), Lengths::default());
        assert_eq!(trace.sha256, hex(&Sha256::digest(mooncake)));
        let ours = "{\"timestamp_seconds\": 2.5}\n{\"timestamp_seconds\": 0.5}";
        let trace = read(ours, 2.0, 0).unwrap();
        assert_eq!(trace.times, [0, 1_000_000_000], "sorted, twice as fast");
        assert_eq!(trace.lengths(Phase::Measure, 0), Lengths::default());
        let azure = concat!(
            "TIMESTAMP,ContextTokens,GeneratedTokens\r\n",
            "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n"
        );
        let trace = read(azure, 1.0, 0).unwrap();
        assert!((trace.times[1] as f64 - 52e6).abs() < 1e3, "{:?}", trace.times);
        assert_eq!(trace.lengths(Phase::Measure, 0), lengths(4808, 10));
        let newer = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,2";
        assert_eq!(read(newer, 1.0, 0).unwrap().times, [0]);
        let burst = concat!(
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
            "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
        );
        let trace = read(burst, 1.0, 10_000_000_000).unwrap();
        assert_eq!(trace.times, [0, 40_000_000_000]);
        assert_eq!(trace.lengths(Phase::Warmup, 0), lengths(472, 18));
        assert_eq!(trace.lengths(Phase::Measure, 0), lengths(1087, 1), "it failed when recorded");
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, cause) in [
            ("", "no request"),
            ("hello\n", "line 1: no known columns"),
            ("{\"timestamp\": 1}\n{\"timestamp\": \"x\"}", "line 2: "),
            ("{\"input_length\": 1}", "expected either timestamp"),
            ("{\"timestamp\": 1, \"input_length\": 99999999999}", "too many"),
            ("{\"timestamp\": 1e300}", "not a time"),
            ("Timestamp,Request tokens,Response tokens\n1,2\n", "too few fields"),
            ("Timestamp,Request tokens,Response tokens\nx,2,3\n", "not a number of seconds"),
            ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,2,3\n", "not a date"),
        ] {
            let error = read(text, 1.0, 0).unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("hint: "), "{text}: {error}");
        }
        assert!(read(&"x".repeat(2 << 20), 1.0, 0).unwrap_err().to_string().contains("longer"));
        let error = Trace::read("/no/such/trace", 1.0, 0).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
