//! Loki's push request in protobuf, written straight into one buffer.
//!
//! `PushRequest{streams=1}`, `StreamAdapter{labels=1 string, entries=2}`,
//! `EntryAdapter{timestamp=1 {seconds=1, nanos=2}, line=2 string, structuredMetadata=3 {name=1,
//! value=2}}` (Loki's pkg/push/push.proto).

use std::borrow::Cow;

use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    cut::Entry,
    protobuf::{field, in_field, metadata, pair_len, text},
    source::Rendered,
};

/// Name of an entry's rank.
const RANK: &str = "rank";

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Appends a request with one stream to `out`.
pub(super) fn request(bytes: &[u8], entries: &[Entry], of: &Rendered, out: &mut Vec<u8>) {
    let valid = std::str::from_utf8(bytes).is_ok();
    let sum: usize = entries.iter().map(|entry| in_field(entry_len(bytes, valid, entry, of))).sum();
    let stream = in_field(of.labels.len()) + sum;
    out.reserve(in_field(stream));
    out.push(field(1));
    encode_varint(stream as u64, out);
    text(out, 1, of.labels.as_bytes());
    for entry in entries {
        out.push(field(2));
        encode_varint(entry_len(bytes, valid, entry, of) as u64, out);
        let (seconds, nanos) = (entry.time_ns / SECOND, entry.time_ns % SECOND);
        out.push(field(1));
        encode_varint(time_len(seconds, nanos) as u64, out);
        out.push(1 << 3);
        encode_varint(seconds, out);
        if nanos > 0 {
            out.push(2 << 3);
            encode_varint(nanos, out);
        }
        text(out, 2, &line(bytes, valid, entry));
        out.extend_from_slice(&of.metadata(entry.level).proto);
        if let Some(rank) = rank(bytes, entry) {
            metadata(out, RANK, rank);
        }
    }
}

/// The rank that an entry shows.
pub(super) fn rank<'a>(bytes: &'a [u8], entry: &Entry) -> Option<&'a str> {
    let (from, to) = entry.rank?;
    std::str::from_utf8(bytes.get(from..to)?).ok()
}

/// The text of an entry; bytes that are no UTF-8 are replaced.
pub(super) fn line<'a>(bytes: &'a [u8], valid: bool, entry: &Entry) -> Cow<'a, [u8]> {
    let line = bytes.get(entry.start..entry.end).unwrap_or_default();
    if valid {
        return Cow::Borrowed(line);
    }
    match String::from_utf8_lossy(line) {
        Cow::Borrowed(_) => Cow::Borrowed(line),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn entry_len(bytes: &[u8], valid: bool, entry: &Entry, of: &Rendered) -> usize {
    let length = if valid { entry.end - entry.start } else { line(bytes, valid, entry).len() };
    in_field(time_len(entry.time_ns / SECOND, entry.time_ns % SECOND))
        + in_field(length)
        + of.metadata(entry.level).proto.len()
        + rank(bytes, entry).map_or(0, |rank| in_field(pair_len(RANK, rank)))
}

fn time_len(seconds: u64, nanos: u64) -> usize {
    1 + encoded_len_varint(seconds) + if nanos > 0 { 1 + encoded_len_varint(nanos) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use aifb_schema::recipe::Logging;
    use prost::Message;

    use crate::ship::{
        cut::{How, cut},
        source::Source,
        stamp::Stamps,
    };

    #[derive(Clone, PartialEq, Message)]
    struct Push {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<Line>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Line {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Time>,
        #[prost(string, tag = "2")]
        line: String,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Pair>,
    }
    #[derive(Clone, Copy, PartialEq, Message)]
    struct Time {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[test]
    fn another_decoder_reads_it() {
        let bytes = b"INFO one\n\xff bad\nlong \xe2\x82\xac\n(Worker_TP1 pid=4) INFO two\n";
        let how = How {
            join: true,
            last_ns: 0,
            arrival_ns: 1_700_000_000_000_000_000,
            logging: Logging::default(),
            whole: true,
            hold: false,
        };
        let mut entries = Vec::new();
        cut(bytes, &how, &mut Stamps::default(), &mut entries);
        let source = Source {
            name: String::new(),
            path: std::path::PathBuf::new(),
            labels: BTreeMap::from([("job".into(), "aifb".into())]),
            metadata: BTreeMap::from([("replica".into(), "3".into())]),
            join: true,
            rotates: false,
        };
        let mut body = Vec::new();
        request(bytes, &entries, &Rendered::new(&source), &mut body);
        let push = Push::decode(body.as_slice()).unwrap();
        assert_eq!(push.streams.len(), 1);
        assert_eq!(push.streams[0].labels, r#"{job="aifb"}"#);
        let lines = &push.streams[0].entries;
        let texts: Vec<&str> = lines.iter().map(|line| line.line.as_str()).collect();
        assert_eq!(texts[..3], ["INFO one", "\u{fffd} bad", "long \u{20ac}"]);
        assert_eq!(lines[0].timestamp, Some(Time { seconds: 1_700_000_000, nanos: 0 }));
        assert_eq!(lines[1].timestamp, Some(Time { seconds: 1_700_000_000, nanos: 1 }));
        let pair = |name: &str, value: &str| Pair { name: name.into(), value: value.into() };
        let (replica, level) = (pair("replica", "3"), pair("level", "info"));
        assert_eq!(lines[0].metadata, [replica.clone(), level.clone()]);
        assert_eq!(lines[1].metadata, std::slice::from_ref(&replica));
        assert_eq!(lines[3].metadata, [replica, level, pair("rank", "TP1")]);
    }
}
