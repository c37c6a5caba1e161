//! What Loki refuses by default (its limits_config, 3.4).

use crate::decode::{Entry, Pushed};

const LABELS_MAX: usize = 15;
const NAME_MAX: usize = 1024;
const VALUE_MAX: usize = 2048;
const TEXT_MAX: usize = 256 * 1024;
const METADATA_MAX: usize = 128;
const METADATA_BYTES_MAX: usize = 64 * 1024;
const NS: u64 = 1_000_000_000;
const AGE_MAX: u64 = 7 * 24 * 3600 * NS;
const FUTURE_MAX: u64 = 600 * NS;

/// How far an entry may be behind its stream's newest: half of max_chunk_age.
const BEHIND_MAX: u64 = 3600 * NS;

/// Why a whole stream is refused.
pub(crate) fn stream(pushed: &Pushed) -> Option<String> {
    let labels = &pushed.labels;
    if labels.is_empty() {
        return Some("at least one label pair is required per stream".into());
    }
    if labels.len() > LABELS_MAX {
        return Some(format!("entry has {} label names; limit {LABELS_MAX}", labels.len()));
    }
    let long = |(name, value): (&String, &String)| name.len() > NAME_MAX || value.len() > VALUE_MAX;
    labels.iter().any(long).then(|| "a label is too long".into())
}

/// Why an entry is refused, at `now` and beside its stream's newest.
pub(crate) fn entry(entry: &Entry, now: u64, newest: u64) -> Option<String> {
    let metadata: usize = entry.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if entry.text.len() > TEXT_MAX {
        Some(format!("max entry size {TEXT_MAX} bytes exceeded: {} bytes", entry.text.len()))
    } else if entry.metadata.len() > METADATA_MAX || metadata > METADATA_BYTES_MAX {
        Some("structured metadata is too large".into())
    } else if entry.time_ns + AGE_MAX < now {
        Some("entry has timestamp too old".into())
    } else if entry.time_ns > now + FUTURE_MAX {
        Some("entry has timestamp too new".into())
    } else if entry.time_ns + BEHIND_MAX < newest {
        Some("entry too far behind".into())
    } else {
        None
    }
}
