//! Whether this step ran out of memory, from its cgroup.

use std::{fs, path::PathBuf};

use aifb_schema::units::Size;

/// The memory group of this process.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    /// Its folder; absent where the node has no such group.
    group: Option<Group>,
    /// Kills before the service started.
    before: u64,
}

#[derive(Debug, Clone)]
struct Group {
    folder: PathBuf,
    /// Where the hierarchy begins.
    root: PathBuf,
    second_version: bool,
}

impl Memory {
    /// Remembers how many processes of the group were killed until now.
    pub(crate) fn now() -> Self {
        let group = find();
        let before = group.as_ref().map_or(0, Group::kills);
        Self { group, before }
    }

    /// "out of memory: 210MiB of 200MiB", if the kernel has killed a process of this group since.
    pub(crate) fn shortage(&self) -> Option<String> {
        let group = self.group.as_ref()?;
        (group.kills() > self.before).then(|| match (group.peak(), group.limit()) {
            (Some(peak), Some(limit)) => {
                format!("out of memory: {} of {} were used", mebibytes(peak), mebibytes(limit))
            }
            _ => "out of memory".to_owned(),
        })
    }
}

fn mebibytes(bytes: u64) -> String {
    Size(bytes.div_ceil(1 << 20) << 20).to_string()
}

impl Group {
    /// Processes killed for lack of memory in the group itself and those above it.
    fn kills(&self) -> u64 {
        let file = if self.second_version { "memory.events" } else { "memory.oom_control" };
        self.upwards()
            .filter_map(|folder| fs::read_to_string(folder.join(file)).ok())
            .filter_map(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
                line.trim().parse::<u64>().ok()
            })
            .max()
            .unwrap_or(0)
    }

    /// The tightest limit of the group and those above it.
    fn limit(&self) -> Option<u64> {
        let file = if self.second_version { "memory.max" } else { "memory.limit_in_bytes" };
        // The first version writes "no limit" as a number near 2^63.
        let real = |bytes: &u64| *bytes < 1 << 60;
        self.upwards().filter_map(|folder| number(folder.join(file))).filter(real).min()
    }

    /// The most that the group with the tightest limit has used.
    fn peak(&self) -> Option<u64> {
        let limit = self.limit()?;
        let (limit_file, peak_file) = if self.second_version {
            ("memory.max", "memory.peak")
        } else {
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        };
        let folder =
            self.upwards().find(|folder| number(folder.join(limit_file)) == Some(limit))?;
        // memory.peak needs Linux 5.19.
        number(folder.join(peak_file)).or_else(|| number(folder.join("memory.current")))
    }

    fn upwards(&self) -> impl Iterator<Item = PathBuf> {
        let root = self.root.clone();
        let folders: Vec<PathBuf> = self
            .folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&root) && *folder != root)
            .map(PathBuf::from)
            .collect();
        folders.into_iter()
    }
}

fn number(path: PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The group of this process, from /proc/self/cgroup and the mount table.
fn find() -> Option<Group> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    locate(&own, &mounts)
}

fn locate(own: &str, mounts: &str) -> Option<Group> {
    let of_first = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').find(|name| *name == "memory")?;
        fields.next()
    });
    let second_version = of_first.is_none();
    let path = of_first.or_else(|| own.lines().find_map(|line| line.strip_prefix("0::")))?;
    let (mount_root, root) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        let options = after.nth(1).unwrap_or_default();
        let fits = if second_version {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && options.split(',').any(|option| option == "memory")
        };
        let mut before = before.split(' ').skip(3);
        fits.then(|| Some((before.next()?.to_owned(), PathBuf::from(before.next()?))))?
    })?;
    let below = path.strip_prefix(mount_root.as_str()).unwrap_or(path);
    Some(Group { folder: root.join(below.trim_start_matches('/')), root, second_version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(second_version: bool, files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("job_1/step_0");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(root.path().join(name), text).unwrap();
        }
        let path = root.path().to_owned();
        (root, Group { folder, root: path, second_version })
    }

    #[test]
    fn both_versions_give_the_figure() {
        for (second_version, files) in [
            (
                false,
                [
                    ("job_1/step_0/memory.oom_control", "oom_kill_disable 0\noom_kill 1\n"),
                    ("job_1/memory.limit_in_bytes", "209715200\n"),
                    ("job_1/memory.max_usage_in_bytes", "209715200\n"),
                    ("job_1/step_0/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
            ),
            (
                true,
                [
                    ("job_1/step_0/memory.events", "oom 3\noom_kill 1\n"),
                    ("job_1/memory.max", "209715200\n"),
                    ("job_1/memory.peak", "209715200\n"),
                    ("job_1/step_0/memory.max", "max\n"),
                ],
            ),
        ] {
            let (_root, group) = group(second_version, &files);
            let memory = Memory { group: Some(group), before: 0 };
            let expected = "out of memory: 200MiB of 200MiB were used";
            assert_eq!(memory.shortage().as_deref(), Some(expected));
            assert_eq!(Memory { before: 1, ..memory }.shortage(), None);
        }
    }

    #[test]
    fn the_group_is_found_below_its_mount() {
        let first = "5:cpu,cpuacct:/x\n4:memory:/slurm_n1/job_1/step_0\n0::/u\n";
        let mounts = "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n31 20 0:27 \
                      / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let group = locate(first, mounts).unwrap();
        assert_eq!(group.folder, PathBuf::from("/sys/fs/cgroup/memory/slurm_n1/job_1/step_0"));
        assert!(!group.second_version);
        let group = locate("0::/job_1\n", mounts).unwrap();
        assert_eq!(group.folder, PathBuf::from("/sys/fs/cgroup/unified/job_1"));
    }
}
