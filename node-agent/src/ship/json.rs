//! Loki's push request in JSON.

use std::{collections::BTreeMap, io::Write};

use super::{
    cut::Entry,
    proto::{line, rank},
    source::Rendered,
};

/// Writes a request with one stream into `out`, which is emptied before.
pub(super) fn request(
    bytes: &[u8],
    entries: &[Entry],
    labels: &BTreeMap<String, String>,
    of: &Rendered,
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
        let metadata = of.metadata(entry.level).json.as_str();
        let rank = rank(bytes, entry).map(|rank| format!("\"rank\":\"{rank}\""));
        let members = [metadata, rank.as_deref().unwrap_or_default()];
        let members: Vec<&str> = members.into_iter().filter(|text| !text.is_empty()).collect();
        if !members.is_empty() {
            write!(out, ",{{{}}}", members.join(",")).map_err(serde_json::Error::io)?;
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}]}");
    Ok(())
}
