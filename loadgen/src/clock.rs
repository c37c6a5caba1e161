//! The clocks. Every stamp of this program is CLOCK_MONOTONIC in nanoseconds; wall clock is only
//! for marks that people read.

pub(crate) mod pacer;

use nix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> u64 {
    // Cannot fail for the constant clock ids below (clock_gettime(2) knows EINVAL, EFAULT).
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000_000 + nanos
    })
}

/// CLOCK_MONOTONIC, nanoseconds.
pub(crate) fn mono_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Wall clock, nanoseconds since 1970.
pub(crate) fn epoch_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// CPU time of the calling thread, nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Time that the calling thread has waited for a CPU although it could have run, nanoseconds; 0
/// where the kernel does not tell.
pub(crate) fn thread_waited_ns() -> u64 {
    // Time on a CPU, time waiting for one, turns (sched-stats(5) of the kernel's documentation).
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// CPU time of the process so far in nanoseconds, and its largest resident set in bytes.
pub(crate) fn process_cost() -> (u64, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    getrusage(UsageWho::RUSAGE_SELF).map_or((0, 0), |usage| {
        let nanos = |time: nix::sys::time::TimeVal| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
            seconds * 1_000_000_000 + micros * 1_000
        };
        let kib = peak_rss_kib().unwrap_or_else(|| u64::try_from(usage.max_rss()).unwrap_or(0));
        (nanos(usage.user_time()) + nanos(usage.system_time()), kib.saturating_mul(1024))
    })
}

/// Largest resident set of this program, KiB. getrusage(2) gives that of the process: what was
/// resident before it became this program, its launcher's memory, is in it.
fn peak_rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Wall clock minus CLOCK_MONOTONIC of this node, now.
pub(crate) fn epoch_minus_mono() -> i64 {
    let (before, epoch, after) = (mono_ns(), epoch_ns(), mono_ns());
    let mono = before + (after - before) / 2;
    i64::try_from(i128::from(epoch) - i128::from(mono)).unwrap_or(0)
}

/// Lets the calling thread's sleeps end on time: without it the kernel may add 50 µs to each.
pub(crate) fn remove_timer_slack() {
    // Refused only by kernels without the call; then sleeps are a little later, and the measured
    // client lag says so.
    let _ignored = nix::sys::prctl::set_timerslack(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two busy threads on one CPU wait for each other.
    #[test]
    fn waiting_for_a_cpu_is_told() {
        use nix::{
            sched::{CpuSet, sched_getaffinity, sched_setaffinity},
            unistd::Pid,
        };
        if !std::path::Path::new("/proc/thread-self/schedstat").exists() {
            return;
        }
        let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpu = (0..CpuSet::count()).find(|cpu| own.is_set(*cpu).unwrap()).unwrap();
        let busy = move || {
            let mut one = CpuSet::new();
            one.set(cpu).unwrap();
            sched_setaffinity(Pid::from_raw(0), &one).unwrap();
            let before = thread_waited_ns();
            let until = mono_ns() + 300_000_000;
            while mono_ns() < until {
                std::hint::spin_loop();
            }
            thread_waited_ns() - before
        };
        let waited: u64 = [std::thread::spawn(busy), std::thread::spawn(busy)]
            .map(|t| t.join().unwrap())
            .iter()
            .sum();
        assert!(waited > 50_000_000, "{waited} ns");
    }
}
