//! Each service replica of this node: the sum over its process tree.

use std::collections::{BTreeMap, BTreeSet};

use aifb_schema::metric;

use super::{
    Watched,
    context::Context,
    process::{Crowd, Processes, Stat, Totals},
    table::Tick,
    threads::{Scheduled, Threads},
    units::{Units, seconds_of_ns},
};

/// Collects the services that are watched.
#[derive(Debug)]
pub(super) struct Services {
    watched: Watched,
    generation: u64,
    units: Units,
    trees: BTreeMap<(String, u32), Tree>,
    /// Processes that were looked at and belong to no service.
    outsiders: BTreeSet<u32>,
}

#[derive(Debug)]
struct Tree {
    root: u32,
    crowd: Crowd,
    threads: Threads,
}

impl Services {
    pub(super) fn new(watched: Watched, units: Units) -> Self {
        let (trees, outsiders) = (BTreeMap::new(), BTreeSet::new());
        Self { watched, generation: 0, units, trees, outsiders }
    }

    /// `candidates` lists the processes that a service may have; it is only called when needed.
    pub(super) fn collect(
        &mut self,
        tick: &mut Tick<'_>,
        context: &mut Context,
        processes: &mut Processes,
        now_ns: u64,
        candidates: impl FnOnce(&mut Context, &Processes) -> Vec<u32>,
    ) {
        let changed = self.take_over_changes();
        if (context.slow || changed) && !self.trees.is_empty() {
            let candidates = candidates(context, processes);
            self.discover(candidates, context, processes);
        }
        for ((service, replica), tree) in &mut self.trees {
            let totals = tree.crowd.measure(processes, &mut context.buffer, true);
            let Some(totals) = totals else { continue };
            let replica = replica.to_string();
            put(tick, service, &replica, &totals, self.units);
            if context.slow {
                let (root, pids) = (processes.root(), tree.crowd.pids());
                let scheduled = tree.threads.read(root, pids, now_ns, &mut context.buffer);
                put_scheduled(tick, service, &replica, scheduled);
            }
        }
    }

    /// The replica that a process belongs to.
    pub(super) fn owner(&self, pid: u32) -> Option<(&str, u32)> {
        let trees = self.trees.iter().filter(|(_, tree)| tree.crowd.pids().any(|of| of == pid));
        trees.map(|((service, replica), _)| (service.as_str(), *replica)).next()
    }

    fn take_over_changes(&mut self) -> bool {
        let Some((roots, generation)) = self.watched.since(self.generation) else { return false };
        self.generation = generation;
        self.outsiders.clear();
        self.trees.retain(|key, tree| roots.get(key) == Some(&tree.root));
        for (key, root) in roots {
            self.trees.entry(key).or_insert_with(|| Tree {
                root,
                crowd: Crowd::default(),
                threads: Threads::default(),
            });
        }
        true
    }

    /// Finds which of the processes that are not known yet belong to a service, until none is
    /// added: a child may be listed before its parent.
    fn discover(&mut self, candidates: Vec<u32>, context: &mut Context, processes: &mut Processes) {
        let known: BTreeSet<u32> = self.trees.values().flat_map(|tree| tree.crowd.pids()).collect();
        let listed: BTreeSet<u32> =
            candidates.into_iter().chain(self.trees.values().map(|tree| tree.root)).collect();
        self.outsiders.retain(|pid| listed.contains(pid));
        let mut owners: BTreeMap<u32, (String, u32)> = BTreeMap::new();
        for (key, tree) in &self.trees {
            let pids = tree.crowd.pids().chain([tree.root]);
            owners.extend(pids.map(|pid| (pid, key.clone())));
        }
        let mut unknown: Vec<(u32, Stat)> = listed
            .difference(&known)
            .filter(|pid| !self.outsiders.contains(pid))
            .filter_map(|pid| Some((*pid, processes.stat(*pid, &mut context.buffer)?)))
            .collect();
        loop {
            let before = unknown.len();
            unknown.retain(|(pid, stat)| {
                // A process that left its parent is found by session or process group: the
                // agent starts every service in its own.
                let relatives = [*pid, stat.parent, stat.group, stat.session];
                let owner = relatives.iter().find_map(|pid| owners.get(pid)).cloned();
                let Some(owner) = owner else { return true };
                if let Some(tree) = self.trees.get_mut(&owner) {
                    tree.crowd.insert(*pid, stat);
                }
                owners.insert(*pid, owner);
                false
            });
            if unknown.len() == before {
                break;
            }
        }
        self.outsiders.extend(unknown.iter().map(|(pid, _)| *pid));
    }
}

fn put(tick: &mut Tick<'_>, service: &str, replica: &str, totals: &Totals, units: Units) {
    let [service, replica] = [("service", service), ("replica", replica)];
    for (mode, ticks) in [("user", totals.user_ticks), ("system", totals.system_ticks)] {
        let labels = [service, replica, ("mode", mode)];
        tick.put(&metric::SERVICE_CPU, &labels, units.seconds(ticks));
    }
    for (kind, pages) in [
        ("resident", totals.resident_pages),
        ("anonymous", totals.anonymous_pages),
        ("used", totals.used_pages),
    ] {
        if let Some(pages) = pages {
            let labels = [service, replica, ("kind", kind)];
            tick.put_u64(&metric::SERVICE_MEMORY, &labels, pages.saturating_mul(units.page_bytes));
        }
    }
    if let Some((read, written)) = totals.io {
        for (op, bytes) in [("read", read), ("write", written)] {
            tick.put_u64(&metric::SERVICE_IO, &[service, replica, ("op", op)], bytes);
        }
    }
    tick.put_u64(&metric::SERVICE_PROCESSES, &[service, replica], totals.processes);
    tick.put_u64(&metric::SERVICE_THREADS, &[service, replica], totals.threads);
}

fn put_scheduled(tick: &mut Tick<'_>, service: &str, replica: &str, scheduled: Option<Scheduled>) {
    let Some(Scheduled { waited_ns, migrations }) = scheduled else { return };
    let labels = [("service", service), ("replica", replica)];
    tick.put(&metric::SERVICE_RUN_DELAY, &labels, seconds_of_ns(waited_ns));
    if let Some(migrations) = migrations {
        tick.put_u64(&metric::SERVICE_MIGRATIONS, &labels, migrations);
    }
}
