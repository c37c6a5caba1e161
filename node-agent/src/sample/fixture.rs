//! Trees of kernel files in a temporary folder, for tests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, Watched, collect::Collectors, table::Table};

/// A node made of files: `proc`, `cgroup` and `sys` below one folder.
pub(super) struct FakeNode {
    folder: tempfile::TempDir,
    pub(super) watched: Watched,
}

/// Values of one tick by `name{label="value",…}`.
pub(super) type Values = BTreeMap<String, f64>;

impl FakeNode {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proc/self", "cgroup", "sys"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder, watched: Watched::default() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in place, as the kernel would show new contents.
    pub(super) fn write(&self, name: impl AsRef<Path>, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes several files of one folder.
    pub(super) fn write_all(&self, folder: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.write(Path::new(folder).join(name), text);
        }
    }

    /// Removes a folder. The kernel lets nobody read on in what is gone, so its files are
    /// emptied first.
    pub(super) fn remove(&self, name: &str) {
        let folder = self.path(name);
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => self.remove(entry.path().to_str().unwrap()),
                false => fs::write(entry.path(), "").unwrap(),
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }

    /// A process: times are own user, own system, children's user, children's system in ticks.
    pub(super) fn process(&self, pid: u32, parent: u32, start: u64, times: [u64; 4]) {
        self.relative(pid, [parent, 1, 1], start, times);
    }

    /// A process with its parent, process group and session.
    pub(super) fn relative(
        &self,
        pid: u32,
        [parent, group, session]: [u32; 3],
        start: u64,
        [user, system, child_user, child_system]: [u64; 4],
    ) {
        let stat = format!(
            "{pid} (a ) (b) S {parent} {group} {session} 0 -1 4194560 1 2 3 4 \
             {user} {system} {child_user} {child_system} 20 0 3 0 {start} 1000000 250 1\n"
        );
        let folder = format!("proc/{pid}");
        self.write_all(&folder, &[("stat", &stat), ("statm", "900 250 50 10 0 300 0\n")]);
    }

    pub(super) fn config(&self) -> Config {
        Config {
            period: Duration::from_secs(1),
            node: "n1".into(),
            run_id: "aifb-7".into(),
            job_id: Some(7),
            file: self.path("samples.bin"),
            proc_root: self.path("proc"),
            cgroup_root: self.path("cgroup"),
            sys_root: self.path("sys"),
            nvml: None,
        }
    }

    pub(super) fn collectors(&self) -> FakeTicks {
        let collectors = Collectors::new(&self.config(), self.watched.clone());
        FakeTicks { collectors, table: Table::default(), mono_ns: 0 }
    }
}

/// Collectors that tick when told.
pub(super) struct FakeTicks {
    collectors: Collectors,
    table: Table,
    mono_ns: u64,
}

impl FakeTicks {
    /// The values a second later, those of the agent itself left out.
    pub(super) fn tick(&mut self) -> Values {
        self.mono_ns += 1_000_000_000;
        self.tick_at(self.mono_ns)
    }

    pub(super) fn tick_at(&mut self, mono_ns: u64) -> Values {
        let mut tick = self.table.begin();
        self.collectors.collect(&mut tick, mono_ns);
        let values = tick.finish().into_iter().filter_map(|(info, value)| {
            let labels: Vec<String> =
                info.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let name = info.family.name;
            let own = name.starts_with("agent_cpu") || name.starts_with("agent_memory");
            (!own).then(|| (format!("{name}{{{}}}", labels.join(",")), value))
        });
        values.collect()
    }
}

/// Only the values whose names begin so.
pub(super) fn only(values: &Values, prefixes: &[&str]) -> Vec<(String, f64)> {
    values
        .iter()
        .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.clone(), *value))
        .collect()
}

/// Compares with lines `name value`.
#[track_caller]
pub(super) fn assert_values(values: &Values, prefixes: &[&str], expected: &str) {
    let mut expected: Vec<(String, f64)> = expected
        .lines()
        .filter_map(|line| line.trim().rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(only(values, prefixes), expected);
}
