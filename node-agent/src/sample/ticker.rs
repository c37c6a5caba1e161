//! The thread that ticks: absolute deadlines, so that lateness does not add up, and every tick
//! without a sample is counted.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use aifb_schema::{
    metric,
    samples::{Frame, Sample},
};

use super::{
    Attached, Batch, Board, clock,
    collect::Collectors,
    fact::{FACTS_MAX, Facts},
    grid::Grid,
    lock,
    record::Recorder,
    table::{Table, Tick},
};
use crate::sys;

/// Orders to the ticker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Tick with this period from now on.
    Period(Duration),
    /// Take a last sample and end.
    Stop,
}

/// Ticks, collects, hands over.
pub(super) struct Ticker {
    grid: Grid,
    collectors: Collectors,
    board: Arc<Mutex<Board>>,
    recorder: Recorder,
    attached: Attached,
    table: Table,
    /// Ticks without a sample since the last recorded one.
    gap: u32,
    /// Ticks without a sample in all.
    missed: u64,
    /// How long the last collection took.
    collect_ns: Option<u64>,
    jumps: clock::Jumps,
    facts: Facts,
}

impl Ticker {
    pub(super) fn new(
        grid: Grid,
        collectors: Collectors,
        board: Arc<Mutex<Board>>,
        recorder: Recorder,
        attached: Attached,
    ) -> Self {
        Self {
            grid,
            collectors,
            board,
            recorder,
            attached,
            table: Table::default(),
            gap: 0,
            missed: 0,
            collect_ns: None,
            jumps: clock::Jumps::default(),
            facts: Facts::default(),
        }
    }

    /// Ticks until it is stopped or the ordering side is dropped.
    pub(super) fn run(mut self, orders: &Receiver<Order>) -> anyhow::Result<()> {
        sys::wake_promptly();
        let mut deadline = self.grid.origin_ns();
        loop {
            let skipped = clock::mono_ns().saturating_sub(deadline) / self.grid.period_ns();
            self.count_missed(skipped);
            deadline += skipped * self.grid.period_ns();
            self.tick(deadline);
            deadline += self.grid.period_ns();
            while let Some(order) = wait(orders, deadline) {
                let Order::Period(period) = order else {
                    self.collectors.read_all();
                    self.tick(clock::mono_ns());
                    return self.finish();
                };
                self.grid = self.grid.with_period(period);
                self.collectors.follow(self.grid);
                deadline = self.grid.after(clock::mono_ns());
            }
        }
    }

    fn finish(mut self) -> anyhow::Result<()> {
        lock(&self.board).clear();
        if let Some(sink) = &mut self.attached.sink {
            sink.end();
        }
        let mut end = Vec::new();
        Frame::End { epoch_ns: clock::epoch_ns() }.encode(&mut end);
        let taken = self.recorder.push(end);
        let closed = self.recorder.close();
        if let Some(sink) = &mut self.attached.sink {
            sink.wait();
        }
        closed?;
        anyhow::ensure!(taken, "there was no room for the end of the record of samples");
        Ok(())
    }

    fn tick(&mut self, deadline: u64) {
        let (mono_ns, epoch_ns) = (clock::mono_ns(), clock::epoch_ns());
        let refused = self.recorder.take_lost();
        if refused > 0 {
            self.count_missed(u64::from(refused));
            self.table.declare_again();
        }
        let mut tick = self.table.begin();
        self.collectors.collect(&mut tick, mono_ns);
        for source in &mut self.attached.sources {
            source.collect(&mut tick);
        }
        let jumps = self.jumps.note(mono_ns, epoch_ns);
        tick.put_u64(&metric::NODE_CLOCK_JUMPS, &[], jumps);
        put_own(&mut tick, mono_ns.saturating_sub(deadline), self.missed, self.collect_ns);
        let values = tick.finish();
        let collect_ns = clock::mono_ns().saturating_sub(mono_ns);
        self.collect_ns = Some(collect_ns);
        let sample = Sample {
            epoch_ns,
            mono_ns,
            missed: self.gap,
            collect_ns: u32::try_from(collect_ns).unwrap_or(u32::MAX),
            values: values.iter().map(|(info, value)| (info.id, *value)).collect(),
        };
        let mut chunk = Vec::new();
        self.table.encode(sample, &mut chunk);
        if self.recorder.push(chunk) {
            self.gap = 0;
        } else {
            self.count_missed(1);
            self.table.declare_again();
        }
        let facts = self.facts.look(&values, epoch_ns);
        let mut board = lock(&self.board);
        let room = FACTS_MAX.saturating_sub(board.facts.len());
        board.facts.extend(facts.into_iter().take(room));
        let Some(sink) = &mut self.attached.sink else {
            board.show(values, mono_ns);
            return;
        };
        board.show(values.clone(), mono_ns);
        let published = board.published.values().flatten().cloned().collect();
        drop(board);
        sink.take(Batch { epoch_ns, sampled: values, published });
    }

    fn count_missed(&mut self, ticks: u64) {
        self.missed += ticks;
        self.gap = self.gap.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX));
    }
}

/// Waits until `deadline`, or for an order before that.
fn wait(orders: &Receiver<Order>, deadline: u64) -> Option<Order> {
    // The wait is a futex wait for an absolute instant of CLOCK_MONOTONIC.
    let wait = Duration::from_nanos(deadline.saturating_sub(clock::mono_ns()));
    match orders.recv_timeout(wait) {
        Ok(order) => Some(order),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Order::Stop),
    }
}

/// What the sampler says about itself.
fn put_own(tick: &mut Tick<'_>, lag_ns: u64, missed: u64, collect_ns: Option<u64>) {
    tick.put(&metric::AGENT_TICK_LAG, &[], seconds(lag_ns));
    if let Some(collect_ns) = collect_ns {
        tick.put(&metric::AGENT_COLLECT, &[], seconds(collect_ns));
    }
    tick.put_u64(&metric::AGENT_MISSED_TICKS, &[], missed);
    tick.put_u64(&metric::AGENT_DROPPED_SERIES, &[], tick.dropped());
    tick.put_u64(&metric::AGENT_SERIES, &[], tick.len() as u64 + 1);
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use nix::sys::prctl;

    use crate::sys;

    /// Its thread's turn in nanoseconds, where the kernel tells it and lets threads choose: Linux
    /// 6.12, and the usual policy.
    fn turn() -> Option<u64> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
        let mut parts = release.split('.').map(|part| part.parse::<u32>().ok());
        let chosen = (parts.next()??, parts.next()??) >= (6, 12);
        let text = fs::read_to_string("/proc/thread-self/sched").ok()?;
        let value = |key: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_once(':')?.1.trim().parse().ok()
        };
        (chosen && value("policy")? == 0).then(|| value("se.slice"))?
    }

    #[test]
    fn a_prompt_thread_has_exact_timers_and_short_turns_and_no_other_has() {
        let now = || (prctl::get_timerslack().unwrap(), turn());
        let before = thread::spawn(now).join().unwrap();
        let prompt = thread::spawn(move || {
            sys::wake_promptly();
            now()
        });
        assert_eq!(prompt.join().unwrap(), (1, before.1.map(|_| 500_000)));
        assert_eq!(thread::spawn(now).join().unwrap(), before);
        assert_ne!(before, (1, Some(500_000)));
    }
}
