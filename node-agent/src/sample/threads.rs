//! How long the threads of a process tree waited for a CPU, and how often they went from one CPU to
//! another: `/proc/<pid>/task/<tid>/schedstat` (time on a CPU and time waited for one, in ns) and
//! `…/sched` (kernel: Documentation/scheduler/sched-stats.rst, kernel/sched/debug.c). The files of a
//! process itself are those of its first thread only.

use std::path::{Path, PathBuf};

use memchr::memmem;

use super::{kernel_file::Buffer, parse::numbers, process::Growing};

/// Threads that are looked at: each costs some 6 µs a second, and a trace of this in `sched` files.
/// A tree with more has no such values.
const THREADS_MAX: usize = 256;

/// `sched` files have sixty lines that the kernel has to write, so they are read this seldom.
const MIGRATIONS_NS: u64 = 10_000_000_000;

/// Sums over the threads of a tree.
#[derive(Debug, Default)]
pub(super) struct Threads {
    delay: Growing,
    migrations: Growing,
    next_migrations_ns: u64,
    last_migrations: Option<u64>,
}

/// What the threads of a tree have done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub(super) waited_ns: u64,
    /// Absent where the kernel does not tell.
    pub(super) migrations: Option<u64>,
}

impl Threads {
    /// Adds up; absent where there are too many threads, or the kernel does not tell.
    pub(super) fn read(
        &mut self,
        proc_root: &Path,
        pids: impl Iterator<Item = u32>,
        now_ns: u64,
        buffer: &mut Buffer,
    ) -> Option<Scheduled> {
        let folders = task_folders(proc_root, pids)?;
        let waited = folders
            .iter()
            .filter_map(|task| numbers(buffer.read_once(&task.join("schedstat")).ok()?).nth(1));
        let waited_ns = waited.reduce(u64::saturating_add)?;
        if now_ns >= self.next_migrations_ns {
            self.next_migrations_ns = now_ns + MIGRATIONS_NS;
            let moves = folders
                .iter()
                .filter_map(|task| migrations(buffer.read_once(&task.join("sched")).ok()?));
            let moves = moves.reduce(u64::saturating_add);
            self.last_migrations = moves.map(|moves| self.migrations.next(moves));
        }
        let waited_ns = self.delay.next(waited_ns);
        Some(Scheduled { waited_ns, migrations: self.last_migrations })
    }
}

fn task_folders(proc_root: &Path, pids: impl Iterator<Item = u32>) -> Option<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for pid in pids {
        let tasks = std::fs::read_dir(proc_root.join(format!("{pid}/task")));
        // A process may end meanwhile.
        let tasks = tasks.into_iter().flatten().filter_map(Result::ok);
        folders.extend(tasks.map(|task| task.path()));
        if folders.len() > THREADS_MAX {
            return None;
        }
    }
    Some(folders)
}

/// Lines `se.nr_migrations      :      5`.
fn migrations(text: &str) -> Option<u64> {
    let at = memmem::find(text.as_bytes(), b"\nse.nr_migrations")?;
    numbers(text.get(at + 1..)?.split_once(':')?.1).next()
}
