//! `samples.bin`: raw counters of one node, append-only, readable while it grows.
//!
//! The file starts with [`MAGIC`]. Then frames follow, each
//! `length: u32 LE` (bytes of the body) · `crc: u32 LE` (CRC-32C of the body) · body.
//! A reader never trusts a length: a frame above [`FRAME_MAX`], past the end of the file or with
//! a wrong checksum ends the reading and is reported as a torn tail.
//!
//! Body: `kind: u8`, then
//! * kind 1, series: `id: u32 LE`, then UTF-8 `name` NUL `unit` NUL `labels` (`key=value`
//!   separated by NUL). Declares a series before its first value.
//! * kind 2, sample: `epoch_ns: u64 LE`, `mono_ns: u64 LE`, `missed: u32 LE` (ticks skipped just
//!   before this one), `collect_ns: u32 LE`, then pairs `id: u32 LE`, `value: f64 LE`. A series
//!   without a value in a sample was absent at that tick.
//! * kind 3, end: `epoch_ns: u64 LE`. The agent ended in order.

use std::collections::BTreeMap;

use crate::error::FormatError;

/// First bytes of the file: name and version.
pub const MAGIC: &[u8; 8] = b"AIFBSMP1";

/// Largest body: 60 000 values of one tick, far above a node's few hundred.
pub const FRAME_MAX: usize = 1 << 20;

/// A declared series: what one column of values means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Number within this file.
    pub id: u32,
    /// Metric name without the `aifb_` prefix, such as `node_cpu_seconds_total`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// One tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// Wall clock.
    pub epoch_ns: u64,
    /// CLOCK_MONOTONIC of the node.
    pub mono_ns: u64,
    /// Ticks that were missed just before this one.
    pub missed: u32,
    /// How long collecting took.
    pub collect_ns: u32,
    /// Values by series id.
    pub values: Vec<(u32, f64)>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Declares a series.
    Series(Series),
    /// One tick.
    Sample(Sample),
    /// The orderly end.
    End {
        /// Wall clock.
        epoch_ns: u64,
    },
}

/// All frames of a file, and what was wrong at its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// Series by id.
    pub series: BTreeMap<u32, Series>,
    /// Samples in the order of writing.
    pub samples: Vec<Sample>,
    /// Whether the orderly end is there.
    pub ended: bool,
    /// Bytes at the end that are no whole frame.
    pub torn_bytes: usize,
}

impl Frame {
    /// Appends the framed form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        match self {
            Self::Series(series) => {
                out.push(1);
                out.extend_from_slice(&series.id.to_le_bytes());
                out.extend_from_slice(series.name.as_bytes());
                for (key, value) in &series.labels {
                    out.push(0);
                    out.extend_from_slice(key.as_bytes());
                    out.push(b'=');
                    out.extend_from_slice(value.as_bytes());
                }
            }
            Self::Sample(sample) => {
                out.push(2);
                out.extend_from_slice(&sample.epoch_ns.to_le_bytes());
                out.extend_from_slice(&sample.mono_ns.to_le_bytes());
                out.extend_from_slice(&sample.missed.to_le_bytes());
                out.extend_from_slice(&sample.collect_ns.to_le_bytes());
                for (id, value) in &sample.values {
                    out.extend_from_slice(&id.to_le_bytes());
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
            Self::End { epoch_ns } => {
                out.push(3);
                out.extend_from_slice(&epoch_ns.to_le_bytes());
            }
        }
        let body = start + 8;
        let length = u32::try_from(out.len() - body).unwrap_or(u32::MAX);
        let crc = out.get(body..).map_or(0, crc32c::crc32c);
        if let Some(head) = out.get_mut(start..body) {
            let (length_at, crc_at) = head.split_at_mut(4);
            length_at.copy_from_slice(&length.to_le_bytes());
            crc_at.copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        match reader.take::<1>()? {
            [1] => {
                let id = u32::from_le_bytes(reader.take()?);
                let text = std::str::from_utf8(reader.0).ok()?;
                let mut parts = text.split('\0');
                let name = parts.next()?.to_owned();
                let labels = parts
                    .map(|part| {
                        part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
                    })
                    .collect::<Option<_>>()?;
                Some(Self::Series(Series { id, name, labels }))
            }
            [2] => {
                let mut sample = Sample {
                    epoch_ns: u64::from_le_bytes(reader.take()?),
                    mono_ns: u64::from_le_bytes(reader.take()?),
                    missed: u32::from_le_bytes(reader.take()?),
                    collect_ns: u32::from_le_bytes(reader.take()?),
                    values: Vec::with_capacity(reader.0.len() / 12),
                };
                while !reader.0.is_empty() {
                    let id = u32::from_le_bytes(reader.take()?);
                    sample.values.push((id, f64::from_le_bytes(reader.take()?)));
                }
                Some(Self::Sample(sample))
            }
            [3] => Some(Self::End { epoch_ns: u64::from_le_bytes(reader.take()?) }),
            _ => None,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

/// Reads a whole file as far as it is good.
///
/// # Errors
/// If it does not start with [`MAGIC`].
pub fn read(bytes: &[u8]) -> Result<Recording, FormatError> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(FormatError::Samples)?;
    let mut recording = Recording::default();
    while let Some((frame, after)) = next_frame(rest) {
        match frame {
            Frame::Series(series) => {
                recording.series.insert(series.id, series);
            }
            Frame::Sample(sample) => recording.samples.push(sample),
            Frame::End { .. } => recording.ended = true,
        }
        rest = after;
    }
    recording.torn_bytes = rest.len();
    Ok(recording)
}

fn next_frame(bytes: &[u8]) -> Option<(Frame, &[u8])> {
    let mut reader = Reader(bytes);
    let length = usize::try_from(u32::from_le_bytes(reader.take()?)).ok()?;
    let crc = u32::from_le_bytes(reader.take()?);
    if length > FRAME_MAX {
        return None;
    }
    let (body, rest) = reader.0.split_at_checked(length)?;
    (crc32c::crc32c(body) == crc).then(|| Frame::decode(body))?.map(|frame| (frame, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let labels = BTreeMap::from([("mode".to_owned(), "user".to_owned())]);
        Frame::Series(Series { id: 7, name: "node_cpu_seconds_total".into(), labels })
            .encode(&mut bytes);
        for tick in 0..3_u64 {
            Frame::Sample(Sample {
                epoch_ns: tick,
                mono_ns: tick,
                missed: 0,
                collect_ns: 9,
                values: vec![(7, 1.5)],
            })
            .encode(&mut bytes);
        }
        Frame::End { epoch_ns: 3 }.encode(&mut bytes);
        bytes
    }

    #[test]
    fn frames_read_back() {
        let recording = read(&file()).unwrap();
        assert_eq!(recording.samples.len(), 3);
        assert_eq!(recording.series[&7].labels["mode"], "user");
        assert!(recording.ended && recording.torn_bytes == 0);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_leaves_a_prefix() {
        let whole = file();
        let reference = read(&whole).unwrap();
        for end in MAGIC.len()..whole.len() {
            let part = read(&whole[..end]).unwrap();
            assert_eq!(part.samples, reference.samples[..part.samples.len()], "cut at {end}");
        }
        for at in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let part = read(&damaged).unwrap();
            assert!(part.torn_bytes > 0 && part.samples.len() <= 3, "flip at {at}");
        }
    }
}
