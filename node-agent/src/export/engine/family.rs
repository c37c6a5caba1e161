//! The families of engines: like ours, but made while the agent runs.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use aifb_schema::metric::{COMMON_LABELS, ENGINE, Family};

use super::page::Seen;

/// Families that are made in the life of an agent. They are never given back, so that they can be
/// named like those of the table; at a few hundred bytes each this bounds them to a MiB.
const FAMILIES_MAX: usize = 2048;

/// Labels that we add.
const OWN_LABELS: [&str; 2] = ["service", "replica"];

/// Known families by name and label names.
static KNOWN: Mutex<Option<HashMap<String, &'static Family>>> = Mutex::new(None);

/// The family of a value; `None` when there are too many. Its labels are `service`, `replica` and
/// those of the page, in this order; one of the page that has a name of ours is called
/// `exported_…`, as Prometheus calls it.
pub(super) fn family(seen: &Seen<'_>) -> Option<&'static Family> {
    let mut key = seen.name.to_owned();
    for (name, _) in &seen.labels {
        key.push('\0');
        key.push_str(name);
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(family) = known.get(&key) {
        return Some(family);
    }
    if known.len() >= FAMILIES_MAX {
        return None;
    }
    let of_page = seen.labels.iter().map(|(name, _)| {
        let taken = OWN_LABELS.contains(name) || COMMON_LABELS.contains(name);
        &*if taken { format!("exported_{name}") } else { (*name).to_owned() }.leak()
    });
    let labels: Vec<&'static str> = OWN_LABELS.into_iter().chain(of_page).collect();
    let help = if seen.help.is_empty() { "The service says nothing about it." } else { seen.help };
    let family: &'static Family = Box::leak(Box::new(Family {
        name: format!("{ENGINE}{}", seen.name).leak(),
        kind: seen.kind,
        unit: None,
        labels: labels.leak(),
        help: help.to_owned().leak(),
    }));
    known.insert(key, family);
    Some(family)
}

#[cfg(test)]
mod tests {
    use aifb_schema::metric::Kind;

    use super::*;

    #[test]
    fn one_family_for_each_name_with_its_labels() {
        let seen = |name, labels: &[&'static str]| Seen {
            name,
            labels: labels.iter().map(|label| (*label, String::new())).collect(),
            value: 1.0,
            kind: Kind::Gauge,
            help: "",
        };
        let first = family(&seen("f:x", &["model", "service"])).unwrap();
        assert_eq!(first.labels, ["service", "replica", "model", "exported_service"]);
        assert_eq!(first.exported(), "f:x");
        assert!(std::ptr::eq(first, family(&seen("f:x", &["model", "service"])).unwrap()));
        assert!(!std::ptr::eq(first, family(&seen("f:x", &["model"])).unwrap()));
    }
}
