//! Bodies of push requests: protobuf in a snappy block, or JSON.
//!
//! Written from Loki's pkg/push/push.proto with prost, apart from what sends: an error in one of
//! the two shows.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value;

/// Bytes of a body after unpacking.
const UNPACKED_MAX: usize = 64 << 20;

/// One stream of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its entries, in the order of the request.
    pub entries: Vec<Entry>,
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The line.
    pub text: String,
    /// Structured metadata.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamAdapter {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryAdapter>,
    #[prost(uint64, tag = "3")]
    hash: u64,
}

#[derive(Clone, PartialEq, Message)]
struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<LabelPair>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Reads a body of this content type; any type but JSON is protobuf, as Loki has it.
///
/// # Errors
/// Why it cannot be read.
pub fn decode(content_type: &str, body: &[u8]) -> Result<Vec<Pushed>, String> {
    if content_type.starts_with("application/json") {
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        return json(&value).ok_or_else(|| "no streams in this JSON".into());
    }
    let length = snap::raw::decompress_len(body).map_err(|error| error.to_string())?;
    if length > UNPACKED_MAX {
        return Err(format!("{length} bytes are too many"));
    }
    let bytes =
        snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())?;
    let request = PushRequest::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    request.streams.into_iter().map(stream).collect()
}

fn stream(stream: StreamAdapter) -> Result<Pushed, String> {
    let labels = labels(&stream.labels)
        .ok_or_else(|| format!("error parsing labels '{}'", stream.labels))?;
    let entry = |entry: EntryAdapter| {
        let time = entry.timestamp.unwrap_or_default();
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        let pairs = entry.metadata.into_iter().map(|pair| (pair.name, pair.value));
        Entry {
            time_ns: seconds * 1_000_000_000 + u64::try_from(time.nanos).unwrap_or(0),
            text: entry.line,
            metadata: pairs.collect(),
        }
    };
    Ok(Pushed { labels, entries: stream.entries.into_iter().map(entry).collect() })
}

/// `{a="b", c="d"}`.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut rest = text.strip_prefix('{')?;
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once('=')?;
        // The value is a JSON string as well.
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let value = values.next()?.ok()?;
        labels.insert(name.trim().to_owned(), value);
        rest = after.get(values.byte_offset()..)?.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (rest == "}").then_some(labels),
        }
    }
}

fn json(value: &Value) -> Option<Vec<Pushed>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let map = |value: &Value| -> Option<BTreeMap<String, String>> {
        value.as_object()?.iter().map(|(name, value)| Some((name.clone(), text(value)?))).collect()
    };
    let entry = |value: &Value| {
        Some(Entry {
            time_ns: value.get(0)?.as_str()?.parse().ok()?,
            text: text(value.get(1)?)?,
            metadata: value.get(2).map_or(Some(BTreeMap::new()), map)?,
        })
    };
    let stream = |value: &Value| {
        let entries = value.get("values")?.as_array()?;
        Some(Pushed {
            labels: map(value.get("stream")?)?,
            entries: entries.iter().map(entry).collect::<Option<_>>()?,
        })
    };
    value.get("streams")?.as_array()?.iter().map(stream).collect()
}
