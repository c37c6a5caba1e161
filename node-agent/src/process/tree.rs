//! Process trees, from /proc.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::Process;

use crate::sys;

/// Most processes of a tree that are looked at: far above any service, a bound for a fork bomb,
/// each round of killing then takes this many of them.
const PROCESSES_MAX: usize = 100_000;

/// All descendants of `root` without itself, parents before children. Empty if it is gone.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = Vec::new();
    match children(root) {
        None => from_scan(root, &mut found),
        Some(first) => {
            found = first;
            let mut at = 0;
            while let Some(&pid) = found.get(at) {
                if found.len() < PROCESSES_MAX {
                    found.extend(children(pid).unwrap_or_default());
                }
                at += 1;
            }
        }
    }
    found
}

/// Direct children of a process; `None` if it is gone or the kernel keeps no such list.
pub(crate) fn children(pid: u32) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(task) = task else { continue };
        match fs::read_to_string(task.path().join("children")) {
            Ok(list) => {
                let pids = list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
                found.extend(pids);
            }
            // The thread has just ended, or the kernel was built without these lists.
            Err(_) if task.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// The same from the parent of every process of the node, where the kernel has no lists.
fn from_scan(root: u32, found: &mut Vec<u32>) {
    let mut by_parent: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    for process in all {
        if let (Ok(pid), Some(stat)) = (u32::try_from(process.pid), Stat::of(&process)) {
            by_parent.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut ahead = vec![root];
    while let Some(pid) = ahead.pop() {
        let children = by_parent.remove(&pid).unwrap_or_default();
        found.extend(&children);
        ahead.extend(children);
    }
}

/// What is needed of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Parent.
    pub(crate) parent: u32,
    /// CPU time of the process and of the children that it has waited for, clock ticks.
    pub(crate) cpu_ticks: u64,
    /// Start, clock ticks since boot; with the pid it names a process for good.
    pub(crate) start_ticks: u64,
    /// Whether it has ended and waits to be reaped.
    pub(crate) zombie: bool,
}

impl Stat {
    /// Of a living process or a zombie; `None` if it is gone.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::of(&Process::new(i32::try_from(pid).ok()?).ok()?)
    }

    fn of(process: &Process) -> Option<Self> {
        let stat = process.stat().ok()?;
        let waited_for = stat.cutime.saturating_add(stat.cstime);
        Some(Self {
            parent: u32::try_from(stat.ppid).ok()?,
            cpu_ticks: stat.utime + stat.stime + u64::try_from(waited_for).unwrap_or(0),
            start_ticks: stat.starttime,
            zombie: stat.state == 'Z',
        })
    }
}

/// Kills all descendants of the present process and reaps them, also those that are born
/// meanwhile. True when none is left.
///
/// The present process must be a sub-reaper and must not care for any child's status.
pub(crate) fn kill_descendants(patience: Duration) -> bool {
    end_descendants(Duration::ZERO, patience)
}

/// [`kill_descendants`], after `grace` in which they may end by themselves.
pub(crate) fn end_descendants(grace: Duration, patience: Duration) -> bool {
    let by_themselves = Instant::now() + grace;
    let deadline = by_themselves + patience;
    loop {
        if Instant::now() >= by_themselves {
            for pid in descendants(std::process::id()) {
                kill_hard(pid);
            }
        }
        loop {
            match sys::reap_any() {
                Err(_) => return true,
                Ok(None) => break,
                Ok(Some(_)) => {}
            }
        }
        if Instant::now() > deadline {
            return false;
        }
        // A killed process needs a moment; there is no event for a grandchild's end.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// SIGKILL to one process; one that is gone is no error.
pub(crate) fn kill_hard(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn any_name_is_read_and_zombies_are_known() {
        let folder = tempfile::tempdir().unwrap();
        // Brackets, blanks and a byte that is no UTF-8, as a process may call itself.
        let name = std::ffi::OsStr::from_bytes(b"a) Z 1 (\xff");
        let link = folder.path().join(name);
        std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
        let mut child = std::process::Command::new(&link).arg("100").spawn().unwrap();
        let stat = Stat::read(child.id()).unwrap();
        assert_eq!((stat.parent, stat.zombie), (std::process::id(), false));
        assert!(stat.start_ticks > 0);
        kill_hard(child.id());
        let ended = || Stat::read(child.id()).is_some_and(|stat| stat.zombie);
        while !ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Stat::read(child.id()).unwrap().start_ticks, stat.start_ticks);
        child.wait().unwrap();
        assert_eq!(Stat::read(child.id()), None);
    }

    #[test]
    fn a_grandchild_is_found_both_ways() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let sleeper: u32 = line.trim().parse().unwrap();
        let own = std::process::id();
        let listed = descendants(own);
        let mut scanned = Vec::new();
        from_scan(own, &mut scanned);
        kill_hard(sleeper);
        kill_hard(shell.id());
        shell.wait().unwrap();
        assert!(listed.contains(&sleeper) && listed.contains(&shell.id()), "{listed:?}");
        assert!(scanned.contains(&sleeper) && scanned.contains(&shell.id()), "{scanned:?}");
    }
}
