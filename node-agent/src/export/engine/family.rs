//! The families of engines: like ours, but made while the agent runs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use aifb_schema::metric::{COMMON_LABELS, ENGINE, Family};

use super::page::{self, Seen};

/// Families that are made in the life of an agent, and bytes of their texts. They are never given
/// back, so that they can be named like those of the table. A vLLM has some 100 of 300 bytes.
const FAMILIES_MAX: usize = 2048;
const BYTES_MAX: usize = 1 << 20;

/// Labels that we add.
const OWN_LABELS: [&str; 2] = ["service", "replica"];

/// The families of all engines of this agent.
pub(super) static ALL: Mutex<Families> = Mutex::new(Families::new(BYTES_MAX));

/// Known families.
#[derive(Debug)]
pub(super) struct Families {
    /// By name and label names.
    known: BTreeMap<String, &'static Family>,
    /// Bytes that are left for further ones.
    room: usize,
}

/// The family of a value; `None` when there are too many. Its labels are `service`, `replica` and
/// those of the page, in this order; one of the page that has a name of ours is called
/// `exported_…`, as Prometheus calls it.
pub(super) fn family(seen: &Seen<'_>) -> Option<&'static Family> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner).find(seen)
}

impl Families {
    pub(super) const fn new(room: usize) -> Self {
        Self { known: BTreeMap::new(), room }
    }

    fn find(&mut self, seen: &Seen<'_>) -> Option<&'static Family> {
        let mut key = seen.name.to_owned();
        for (name, _) in &seen.labels {
            key.push('\0');
            key.push_str(name);
        }
        if let Some(family) = self.known.get(&key) {
            return Some(family);
        }
        // Name and labels stand in the key and in the family.
        let bytes = 2 * key.len() + seen.help.len() + size_of::<Family>();
        if self.known.len() >= FAMILIES_MAX || bytes > self.room {
            return None;
        }
        self.room -= bytes;
        let help = match seen.help {
            "" => "The service says nothing about it.".to_owned(),
            help => page::unescaped(help),
        };
        let family: &'static Family = Box::leak(Box::new(Family {
            name: format!("{ENGINE}{}", seen.name).leak(),
            kind: seen.kind,
            unit: None,
            labels: labels(seen).leak(),
            help: help.leak(),
        }));
        self.known.insert(key, family);
        Some(family)
    }
}

/// Names of all labels, each once.
fn labels(seen: &Seen<'_>) -> Vec<&'static str> {
    let mut labels: Vec<&'static str> = OWN_LABELS.to_vec();
    let of_page = || seen.labels.iter().map(|(name, _)| *name);
    for name in of_page() {
        let ours = |name: &str| OWN_LABELS.contains(&name) || COMMON_LABELS.contains(&name);
        let mut own = name.to_owned();
        // The page may have a label that is called so, too.
        while ours(&own) || (own != name && of_page().any(|other| other == own)) {
            own.insert_str(0, "exported_");
        }
        labels.push(own.leak());
    }
    labels
}

#[cfg(test)]
mod tests {
    use aifb_schema::metric::Kind;

    use super::*;

    fn seen<'a>(name: &'a str, labels: &[&'a str]) -> Seen<'a> {
        Seen {
            name,
            labels: labels.iter().map(|label| (*label, String::new())).collect(),
            value: 1.0,
            kind: Kind::Gauge,
            help: "",
        }
    }

    /// A receiver takes no series with two labels of one name.
    #[test]
    fn no_two_labels_have_one_name() {
        let family = family(&seen("f:y", &["exported_exported_node", "exported_node", "node"]));
        let labels = family.unwrap().labels;
        assert_eq!(
            labels[2..],
            ["exported_exported_node", "exported_node", "exported_exported_exported_node"]
        );
    }

    #[test]
    fn an_engine_that_makes_up_names_gets_no_more_than_its_room() {
        let mut families = Families::new(10_000);
        let long = "x".repeat(200);
        let names = (0..1000).map(|number| format!("{long}{number}"));
        let made = names.filter(|name| families.find(&seen(name, &["a"])).is_some()).count();
        assert!((10..25).contains(&made), "{made}");
        // What is known stays known.
        assert!(families.find(&seen(&format!("{long}0"), &["a"])).is_some());
    }

    #[test]
    fn one_family_for_each_name_with_its_labels() {
        let first = family(&seen("f:x", &["model", "service"])).unwrap();
        assert_eq!(first.labels, ["service", "replica", "model", "exported_service"]);
        assert_eq!(first.exported(), "f:x");
        assert!(std::ptr::eq(first, family(&seen("f:x", &["model", "service"])).unwrap()));
        assert!(!std::ptr::eq(first, family(&seen("f:x", &["model"])).unwrap()));
    }
}
