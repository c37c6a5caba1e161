//! Loki's push request in JSON.

use std::{collections::BTreeMap, io::Write};

use super::{cut::Entry, proto::line};

/// Writes a request with one stream into `out`, which is emptied before.
pub(super) fn request(
    bytes: &[u8],
    entries: &[Entry],
    labels: &BTreeMap<String, String>,
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    out.clear();
    let valid = std::str::from_utf8(bytes).is_ok();
    out.extend_from_slice(br#"{"streams":[{"stream":"#);
    serde_json::to_writer(&mut *out, labels)?;
    out.extend_from_slice(br#","values":["#);
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write!(out, "[\"{}\",", entry.time_ns).map_err(serde_json::Error::io)?;
        let text = line(bytes, valid, entry);
        serde_json::to_writer(&mut *out, &String::from_utf8_lossy(&text))?;
        if let Some(level) = entry.level {
            write!(out, ",{{\"level\":\"{}\"}}", level.as_str()).map_err(serde_json::Error::io)?;
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}]}");
    Ok(())
}
