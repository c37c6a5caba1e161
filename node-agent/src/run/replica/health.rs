//! Waiting for health, and watching it afterwards.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aifb_schema::recipe::Service;
use tokio::time::sleep;

use super::probe::Prober;
use crate::process::tree::{self, Stat};

/// How far progress carries the deadline; less where the deadline itself is shorter.
const PROLONGED_BY: Duration = Duration::from_secs(120);

/// How often progress is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// CPU time in a second that counts as progress, of a hundred ticks: idle servers use less.
const CPU_TICKS: u64 = 10;

/// Bytes read and written in a second that count as progress.
const IO_BYTES: u64 = 1 << 20;

/// Time between probes of a healthy service.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The same where a probe starts a program: it must not disturb what is measured.
const WATCH_EVERY_COSTLY: Duration = Duration::from_secs(10);

/// Bad answers in a row that make a service unhealthy.
const BAD_ANSWERS: u32 = 5;

/// Nothing but bad answers for so long fails the service, though its process lives.
pub(crate) const BAD_TIME: Duration = Duration::from_secs(30);

/// What a service has done so far, in numbers that only grow.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    log_bytes: u64,
    cpu_ticks: u64,
    io_bytes: u64,
}

impl Work {
    /// The same off the main thread: the logs may lie on a file system that hangs. `None` then.
    async fn now(root: u32, logs: &[PathBuf]) -> Option<Self> {
        let logs = logs.to_vec();
        let looking = tokio::task::spawn_blocking(move || Self::of(root, &logs));
        tokio::time::timeout(LOOK_EVERY, looking).await.ok()?.ok()
    }

    /// Of the processes below `root` and the log files.
    fn of(root: u32, logs: &[PathBuf]) -> Self {
        let mut work = Self::default();
        let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        work.log_bytes = logs.iter().map(size).sum();
        for pid in tree::descendants(root) {
            work.cpu_ticks += Stat::read(pid).map_or(0, |stat| stat.cpu_ticks);
            work.io_bytes += io_bytes(pid);
        }
        work
    }

    fn has_progressed(self, before: Self) -> bool {
        self.log_bytes > before.log_bytes
            || self.cpu_ticks >= before.cpu_ticks + CPU_TICKS
            || self.io_bytes >= before.io_bytes + IO_BYTES
    }
}

/// Bytes that a process has read and written; 0 where it may not be looked at.
fn io_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let wanted = ["rchar: ", "wchar: "];
    text.lines()
        .filter_map(|line| wanted.iter().find_map(|name| line.strip_prefix(name)))
        .filter_map(|number| number.parse::<u64>().ok())
        .sum()
}

/// Asks until the service answers. `root` is its supervisor's process, absent for an external one.
///
/// # Errors
/// The last answer, when the deadline has passed without progress, or the longest time in any
/// case.
pub(crate) async fn wait(
    service: &Service,
    prober: &mut Prober,
    root: Option<u32>,
    logs: &[PathBuf],
) -> Result<(), String> {
    let begun = Instant::now();
    let deadline = service.health_deadline();
    let last = begun + service.health_max();
    let mut until = begun + deadline;
    let mut looked = begun;
    let mut work = Work::default();
    loop {
        let Err(reason) = prober.ask().await else { return Ok(()) };
        let now = Instant::now();
        if now.duration_since(looked) >= LOOK_EVERY
            && let Some(root) = root
        {
            let present = Work::now(root, logs).await.unwrap_or(work);
            if present.has_progressed(work) {
                until = until.max(now + PROLONGED_BY.min(deadline)).min(last);
            }
            (work, looked) = (present, now);
        }
        if now >= until {
            let waited = now.duration_since(begun).as_secs_f64();
            let why =
                if until >= last { ", the longest time allowed" } else { " without progress" };
            return Err(format!("not healthy after {waited:.1} s{why}: {reason}"));
        }
        sleep(service.probe_every().min(until.saturating_duration_since(now))).await;
    }
}

/// Asks on and on; `tell` hears of each change: `Some` reason when it has become unhealthy, `None`
/// when it answers again. Returns when there were nothing but bad answers for [`BAD_TIME`].
pub(crate) async fn watch<F: Future<Output = ()>>(
    prober: &mut Prober,
    mut tell: impl FnMut(Option<String>) -> F,
) -> String {
    let every = if prober.is_costly() { WATCH_EVERY_COSTLY } else { WATCH_EVERY };
    let mut bad = 0;
    let mut since = Instant::now();
    loop {
        sleep(every).await;
        match prober.ask().await {
            Ok(()) => {
                if bad >= BAD_ANSWERS {
                    tell(None).await;
                }
                bad = 0;
            }
            Err(reason) => {
                if bad == 0 {
                    since = Instant::now();
                }
                bad += 1;
                if bad == BAD_ANSWERS {
                    tell(Some(reason.clone())).await;
                }
                if bad >= BAD_ANSWERS && since.elapsed() >= BAD_TIME {
                    return format!("unhealthy for {} s: {reason}", since.elapsed().as_secs());
                }
            }
        }
    }
}

/// The last bytes of a log from `start` on, whole lines, as text.
pub(crate) fn log_tail(path: &Path, start: u64, limit: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    let mut cut = false;
    if let Ok(mut file) = std::fs::File::open(path) {
        let end = file.metadata().map_or(0, |metadata| metadata.len());
        let from = start.max(end.saturating_sub(limit));
        cut = from > start;
        let _short = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    let whole = if cut { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    whole.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_whole_lines_and_no_control_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stderr.log");
        std::fs::write(&path, "first run\nline one\nline\x1b two\nlast\n").unwrap();
        assert_eq!(log_tail(&path, 10, 4096), "line one\nline? two\nlast\n");
        assert_eq!(log_tail(&path, 0, 12), "last\n");
        assert_eq!(log_tail(&folder.path().join("none"), 0, 12), "");
    }

    #[test]
    fn an_idle_service_makes_no_progress() {
        let before = Work { log_bytes: 10, cpu_ticks: 100, io_bytes: 5000 };
        assert!(!Work { cpu_ticks: 105, io_bytes: 6000, ..before }.has_progressed(before));
        assert!(Work { log_bytes: 11, ..before }.has_progressed(before));
        assert!(Work { cpu_ticks: 110, ..before }.has_progressed(before));
    }

    #[tokio::test]
    async fn silence_ends_the_wait_at_the_deadline() {
        let text = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x, \
                    health: {log: never, every: 10ms, deadline: 200ms}}\n";
        let recipe = aifb_schema::recipe::parse(text, &[]).unwrap();
        let mut prober = Prober::Log { files: Vec::new(), text: "never".into(), seen: false };
        let begun = Instant::now();
        let reason = wait(&recipe.services[0], &mut prober, None, &[]).await.unwrap_err();
        assert!(reason.contains("without progress: no output contains 'never'"), "{reason}");
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}
