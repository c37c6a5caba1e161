//! A source that may be slow, or hang: read on a thread of its own, so that it delays no tick. The
//! ticker takes the newest complete reading, which carries its own time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::{clock, grid::Grid};

/// A reading begins this long before the tick that will take it: most take some milliseconds.
const LEAD_NS: u64 = 50_000_000;

/// Longest time between readings, however rare ticks are: some counters of energy wrap within
/// minutes.
const PERIOD_MAX: Duration = Duration::from_secs(30);

/// Age above which a reading is no longer shown, besides two periods.
const STALE_NS: u64 = 1_000_000_000;

/// One complete reading.
#[derive(Debug)]
pub(super) struct Reading<T> {
    /// CLOCK_MONOTONIC when it began.
    pub(super) at_ns: u64,
    /// How long it took.
    pub(super) took_ns: u64,
    /// How much longer than others it stays true.
    rests_ns: u64,
    pub(super) value: T,
}

/// What is read.
pub(super) trait Read: Send + Sync + 'static {
    /// How long the source need not be read again, where it has nothing to tell: each reading
    /// wakes a thread.
    fn rests(&self) -> Duration {
        Duration::ZERO
    }
}

type Slot<T> = Arc<Mutex<Option<Arc<Reading<T>>>>>;

/// The thread, as the ticker sees it. Dropping this ends it, unless it hangs.
#[derive(Debug)]
pub(super) struct Background<T> {
    newest: Slot<T>,
    grids: Sender<Grid>,
    period_ns: u64,
}

impl<T: Read> Background<T> {
    /// Starts the thread. `make` runs on it, so that whatever has to be loaded may take its time;
    /// what it gives is called for each reading.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start<R: FnMut(u64) -> T>(
        name: &str,
        grid: Grid,
        make: impl FnOnce() -> R + Send + 'static,
    ) -> anyhow::Result<Self> {
        let newest = Slot::default();
        let (grids, changes) = channel();
        let slot = Arc::clone(&newest);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || read_all(&slot, grid, &changes, make()))
            .with_context(|| format!("starting the reader of {name}"))?;
        Ok(Self { newest, grids, period_ns: grid.period_ns() })
    }

    /// From now on ticks follow this grid.
    pub(super) fn follow(&mut self, grid: Grid) {
        self.period_ns = grid.period_ns();
        // The thread ends only with this side.
        let _ended = self.grids.send(grid);
    }

    /// The newest reading; absent before the first one, and when the source has stopped answering.
    pub(super) fn newest(&self, now_ns: u64) -> Option<Arc<Reading<T>>> {
        let period_ns = self.period_ns.min(clock::ns(PERIOD_MAX));
        let oldest = now_ns.saturating_sub(2 * period_ns + STALE_NS);
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        newest.filter(|reading| reading.at_ns + reading.took_ns + reading.rests_ns >= oldest)
    }
}

fn read_all<T: Read>(
    slot: &Slot<T>,
    mut grid: Grid,
    changes: &Receiver<Grid>,
    mut read: impl FnMut(u64) -> T,
) {
    loop {
        let at_ns = clock::mono_ns();
        let value = read(at_ns);
        let took_ns = clock::mono_ns().saturating_sub(at_ns);
        let rests_ns = clock::ns(value.rests());
        let reading = Arc::new(Reading { at_ns, took_ns, rests_ns, value });
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
        match changes.recv_timeout(until_next(grid, at_ns + rests_ns)) {
            Ok(changed) => grid = changed,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Time until the next reading should begin: not while the source rests.
fn until_next(grid: Grid, rested_ns: u64) -> Duration {
    let now = clock::mono_ns();
    let lead = LEAD_NS.min(grid.period_ns() / 2);
    let due = grid.after(rested_ns.max(now + lead)) - lead;
    Duration::from_nanos(due.saturating_sub(now)).min(PERIOD_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Longest wait for something that takes milliseconds on an idle machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    impl Read for () {}
    impl Read for i32 {}

    /// A source with nothing to tell for an hour.
    impl Read for bool {
        fn rests(&self) -> Duration {
            Duration::from_secs(3600)
        }
    }

    fn wait_for<T: Read>(
        background: &Background<T>,
        good: impl Fn(Option<&T>) -> bool,
    ) -> Option<Arc<Reading<T>>> {
        let start = Instant::now();
        loop {
            let newest = background.newest(clock::mono_ns());
            if good(newest.as_ref().map(|reading| &reading.value)) {
                return newest;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn readings_follow_the_grid_and_its_changes() {
        let grid = Grid::from_now(Duration::from_secs(3600));
        let make = || {
            let mut count = 0;
            move |_| {
                count += 1;
                count
            }
        };
        let mut background = Background::start("test", grid, make).unwrap();
        wait_for(&background, |count| count == Some(&1));
        background.follow(grid.with_period(Duration::from_millis(100)));
        wait_for(&background, |count| count >= Some(&4));
    }

    #[test]
    fn a_source_that_rests_wakes_nobody_and_stays_true() {
        let grid = Grid::from_now(Duration::from_millis(100));
        let background = Background::start("test", grid, || |_| true).unwrap();
        let first = wait_for(&background, |value| value.is_some()).unwrap();
        let hour = 3600 * 1_000_000_000;
        let end = first.at_ns + first.took_ns + hour + 1_200_000_000;
        assert!(background.newest(end).is_some() && background.newest(end + 1).is_none());
        // No grid of ticks shortens its rest, and no rest is longer than readings ever are apart.
        assert_eq!(until_next(grid, clock::mono_ns() + hour), PERIOD_MAX);
        let soon = until_next(grid, clock::mono_ns() + 5_000_000_000);
        assert!(soon > Duration::from_secs(4) && soon < Duration::from_secs(6), "{soon:?}");
        assert!(until_next(grid, 0) <= Duration::from_millis(100));
        let mut background = background;
        background.follow(grid.with_period(Duration::from_secs(1)));
        wait_for(&background, |_| background.newest(clock::mono_ns()).unwrap().at_ns > first.at_ns);
    }

    #[test]
    fn a_source_that_hangs_becomes_absent_and_blocks_nobody() {
        let (release, held) = channel::<()>();
        let grid = Grid::from_now(Duration::from_millis(100));
        let make = move || {
            let mut first = true;
            move |_| {
                if !std::mem::take(&mut first) {
                    let _released = held.recv();
                }
            }
        };
        let background = Background::start("test", grid, make).unwrap();
        let reading = wait_for(&background, |value| value.is_some()).unwrap();
        let end = reading.at_ns + reading.took_ns;
        assert!(background.newest(end + 1_200_000_000).is_some());
        assert!(background.newest(end + 1_200_000_001).is_none());
        drop(release);
    }
}
