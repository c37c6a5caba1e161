//! Modules of one parent that use each other, directly or by way of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{module::Tree, resolve::Use};

/// Places that are shown for each pair of modules.
const PLACES_SHOWN: usize = 4;

/// Modules each of which leads to all others, and the uses between them.
#[derive(Debug)]
pub(crate) struct Cycle {
    /// Modules between the crate's root and these.
    pub(crate) depth: usize,
    pub(crate) modules: Vec<String>,
    /// `a → b`, and where it stands as `file:line`.
    pub(crate) uses: Vec<(String, Vec<String>)>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} use each other", self.modules.join(", "))?;
        for (pair, places) in &self.uses {
            let shown = places.iter().take(PLACES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let more = match places.len().saturating_sub(PLACES_SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            writeln!(f, "    {pair}: {shown}{more}")?;
        }
        Ok(())
    }
}

/// Which sibling uses which, and where.
type Siblings<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<String>>>;

/// All cycles of a crate, those at its top first.
pub(crate) fn all(tree: &Tree, uses: &[Use]) -> Vec<Cycle> {
    let mut parents: BTreeMap<(usize, &[String]), Siblings<'_>> = BTreeMap::new();
    for one in uses {
        let (Some(from), Some(to)) = (tree.modules.get(one.from), tree.modules.get(one.to)) else {
            continue;
        };
        let shared = from.path.iter().zip(&to.path).take_while(|(a, b)| a == b).count();
        let (Some(user), Some(used)) = (from.path.get(shared), to.path.get(shared)) else {
            continue; // one of the two is the other's parent
        };
        let parent = from.path.get(..shared).unwrap_or_default();
        let places = parents.entry((shared, parent)).or_default().entry(user).or_default();
        let place = format!("{}:{}", from.file.display(), one.line);
        let places = places.entry(used).or_default();
        if places.last() != Some(&place) {
            places.push(place);
        }
    }
    parents.iter().flat_map(|((_, parent), siblings)| of_siblings(parent, siblings)).collect()
}

fn of_siblings(parent: &[String], siblings: &Siblings<'_>) -> Vec<Cycle> {
    let reached: BTreeMap<_, _> =
        siblings.keys().map(|from| (*from, reach(from, siblings))).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
    let mut cycles = Vec::new();
    let mut done = BTreeSet::new();
    for &first in siblings.keys() {
        if !leads(first, first) || !done.insert(first) {
            continue;
        }
        let members: Vec<_> = siblings
            .keys()
            .copied()
            .filter(|other| leads(first, other) && leads(other, first))
            .collect();
        done.extend(&members);
        cycles.push(cycle(parent, &members, siblings));
    }
    cycles
}

/// Everything that a module leads to; itself only if it is in a cycle.
fn reach<'a>(from: &str, siblings: &Siblings<'a>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(next) = open.pop() {
        for &used in siblings.get(next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(used) {
                open.push(used);
            }
        }
    }
    reached
}

fn cycle(parent: &[String], members: &[&str], siblings: &Siblings<'_>) -> Cycle {
    let name = |module: &str| {
        parent.iter().map(String::as_str).chain([module]).collect::<Vec<_>>().join("::")
    };
    let mut uses = Vec::new();
    for user in members {
        for (used, places) in siblings.get(user).into_iter().flatten() {
            if members.contains(used) {
                uses.push((format!("{user} → {used}"), places.clone()));
            }
        }
    }
    // The edge that the fewest places make is the one to cut.
    uses.sort_by_key(|(_, places)| places.len());
    Cycle {
        depth: parent.len(),
        modules: members.iter().map(|member| name(member)).collect(),
        uses,
    }
}
