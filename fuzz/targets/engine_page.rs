//! A page of metrics, as a service may show it, into the agent's reader of such pages.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The agent is a program without a library: its reader is taken as it stands.
#[path = "../../node-agent/src/export/engine/page.rs"]
mod page;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (seen, left_out) = page::read(&text);
    assert!(seen.len() <= page::SERIES_MAX, "{} series", seen.len());
    assert!(seen.len() as u64 + left_out <= text.lines().count() as u64, "more than there are");
    for page::Seen { name, labels, help, .. } in &seen {
        let plain = |name: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        assert!(plain(name, "_:") && name.len() <= 200 && !name.starts_with("aifb_"), "{name}");
        assert!(labels.len() <= 16 && help.len() <= 300, "{name}");
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{name}: {labels:?}");
        for (label, value) in labels {
            assert!(plain(label, "_") && !label.starts_with("__"), "{name}: {label}");
            assert!(label.len() <= 200 && value.len() <= 256, "{name}: {label}");
        }
    }
});
