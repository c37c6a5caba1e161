//! Loki's push request in protobuf, written straight into one buffer.
//!
//! `PushRequest{streams=1}`, `StreamAdapter{labels=1 string, entries=2}`,
//! `EntryAdapter{timestamp=1 {seconds=1, nanos=2}, line=2 string, structuredMetadata=3 {name=1,
//! value=2}}` (Loki's pkg/push/push.proto). All fields have numbers below 16 and so keys of one
//! byte.

use std::borrow::Cow;

use super::{cut::Entry, source::Rendered};

/// Key of a length-delimited field.
const fn field(number: u8) -> u8 {
    number << 3 | 2
}

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
    varint(out, stream as u64);
    text(out, 1, of.labels.as_bytes());
    for entry in entries {
        out.push(field(2));
        varint(out, entry_len(bytes, valid, entry, of) as u64);
        let (seconds, nanos) = (entry.time_ns / SECOND, entry.time_ns % SECOND);
        out.push(field(1));
        varint(out, time_len(seconds, nanos) as u64);
        out.push(1 << 3);
        varint(out, seconds);
        if nanos > 0 {
            out.push(2 << 3);
            varint(out, nanos);
        }
        text(out, 2, &line(bytes, valid, entry));
        out.extend_from_slice(&of.metadata(entry.level).proto);
        if let Some(rank) = rank(bytes, entry) {
            metadata(out, RANK, rank);
        }
    }
}

/// Structured metadata of an entry, with the key of its field.
pub(super) fn metadata(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(field(3));
    varint(out, pair_len(name, value) as u64);
    text(out, 1, name.as_bytes());
    text(out, 2, value.as_bytes());
}

fn pair_len(name: &str, value: &str) -> usize {
    in_field(name.len()) + in_field(value.len())
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
    1 + varint_len(seconds) + if nanos > 0 { 1 + varint_len(nanos) } else { 0 }
}

fn text(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(field(number));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Bytes of a length-delimited field with its key and length.
fn in_field(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    out.push(value as u8);
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

    #[test]
    fn varints_have_the_length_that_is_told() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }
}
