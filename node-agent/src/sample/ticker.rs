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
    exposition::Shown,
    lock,
    record::Recorder,
    table::{Table, Tick},
};

/// Ticks, collects, hands over.
pub(super) struct Ticker {
    period: Duration,
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
}

impl Ticker {
    pub(super) fn new(
        period: Duration,
        collectors: Collectors,
        board: Arc<Mutex<Board>>,
        recorder: Recorder,
        attached: Attached,
    ) -> Self {
        let table = Table::default();
        let (gap, missed, collect_ns) = (0, 0, None);
        Self { period, collectors, board, recorder, attached, table, gap, missed, collect_ns }
    }

    /// Ticks until there is a word from `stopped`, or its other end is gone.
    pub(super) fn run(mut self, stopped: &Receiver<()>) -> anyhow::Result<()> {
        let period_ns = clock::ns(self.period);
        let mut deadline = clock::mono_ns();
        loop {
            let skipped = clock::mono_ns().saturating_sub(deadline) / period_ns;
            self.count_missed(skipped);
            deadline += skipped * period_ns;
            self.tick(deadline);
            deadline += period_ns;
            let wait = Duration::from_nanos(deadline.saturating_sub(clock::mono_ns()));
            // The wait is a futex wait for an absolute instant of CLOCK_MONOTONIC.
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tick(clock::mono_ns());
        self.finish()
    }

    fn finish(mut self) -> anyhow::Result<()> {
        lock(&self.board).sample.clear();
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
        self.table.encode(&sample, &mut chunk);
        if self.recorder.push(chunk) {
            self.gap = 0;
        } else {
            self.count_missed(1);
            self.table.declare_again();
        }
        let shown = values.iter().map(|(info, value)| Shown::of(info, *value)).collect();
        let mut board = lock(&self.board);
        board.sample = shown;
        if let Some(sink) = &mut self.attached.sink {
            let published = board.published.values().flatten().cloned().collect();
            drop(board);
            sink.take(Batch { epoch_ns, sampled: values, published });
        }
    }

    fn count_missed(&mut self, ticks: u64) {
        self.missed += ticks;
        self.gap = self.gap.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX));
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
