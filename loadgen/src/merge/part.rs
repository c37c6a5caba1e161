//! One worker's part, as its files tell it.

use std::io;

use crate::{
    error::Fatal,
    job::Job,
    plan::WorkerPlan,
    record::{
        self,
        checkpoint::{self, WorkerRecord},
        row::Row,
        rows,
        tally::{Histograms, Limits, Tally},
    },
};

/// One worker's part.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) rank: u32,
    /// It did not come to its end.
    pub(super) lost: bool,
    /// All of it is here: it came to its end by its plan, and every row was kept.
    pub(super) complete: bool,
    /// The rows are at least what the checkpoint counts.
    pub(super) rows_complete: bool,
    /// Measured requests due, open loads only.
    pub(super) planned: Option<u64>,
    /// Sums: the worker's own, or for a lost one what its files tell.
    pub(super) tally: Tally,
    pub(super) record: WorkerRecord,
}

impl Part {
    /// Reads the checkpoint of `rank`; its histograms are added to `merged`, so that many workers
    /// take no more memory than one.
    pub(super) fn open(
        job: &Job,
        rank: u32,
        said_lost: bool,
        merged: &mut Histograms,
    ) -> Result<Self, Fatal> {
        let path = record::checkpoint_path(&job.folder, rank);
        let record = match checkpoint::read(&path) {
            Ok((record, histograms)) => {
                merged.merge(&histograms);
                record
            }
            // Lost before it wrote anything.
            Err(_) if said_lost => Self::unwritten(job, rank),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let lost = said_lost || !record.ended;
        Ok(Self {
            rank,
            lost,
            complete: !lost && record.stopped.is_none() && record.rows_dropped == 0,
            rows_complete: false,
            planned: record.planned,
            tally: record.tally.clone(),
            record,
        })
    }

    /// Reads its rows. Those of a lost worker are needed for its sums; of others the checkpoint
    /// says all that is needed unless they are `wanted`.
    pub(super) fn read_rows(
        &mut self,
        job: &Job,
        wanted: bool,
        mut each: impl FnMut(&Row),
    ) -> Result<(), Fatal> {
        if !wanted && !self.lost {
            return Ok(());
        }
        let path = record::rows_path(&job.folder, self.rank);
        let mut counted = Tally::default();
        let limits = Self::limits(job, &self.record);
        let read = rows::read(&path, |row| {
            counted.begin(&row, &limits);
            counted.end(&row, &limits);
            each(&row);
        });
        let rows = match read {
            Ok(end) => end,
            Err(_) if self.lost => rows::ReadEnd::default(),
            Err(error) => return Err(unreadable(&path, &error)),
        };
        self.rows_complete = self.record.rows_dropped == 0 && rows.rows >= self.record.rows;
        // A checkpoint of a version that did not count operations: the rows know them.
        if self.tally.operations.is_empty() && self.rows_complete {
            self.tally.operations = counted.operations.clone();
        }
        if self.lost {
            self.tally = newest(&self.record.tally, &counted);
            // Its rows may be newer than its figures.
            self.planned = self.planned.map(|planned| planned.max(self.tally.sent));
        }
        Ok(())
    }

    /// What is known of a worker without files: its plan, unless that was in a trace which is gone.
    fn unwritten(job: &Job, rank: u32) -> WorkerRecord {
        let plan = job.shape.worker(rank).ok();
        WorkerRecord {
            rank,
            size: job.plan.size,
            planned: plan.as_ref().and_then(WorkerPlan::planned),
            plan_hash: plan.map(|plan| plan.hash).unwrap_or_default(),
            ..WorkerRecord::default()
        }
    }

    fn limits(job: &Job, record: &WorkerRecord) -> Limits {
        Limits::new(job.plan.load.slo, record.client.measure_end_ns)
    }

    /// Wall clock of the start of the measured part.
    pub(super) fn measure_start_epoch_ns(&self) -> Option<u64> {
        let client = &self.record.client;
        let epoch = i128::from(client.measure_start_ns) + i128::from(client.epoch_minus_mono_ns);
        u64::try_from(epoch).ok().filter(|_| client.measure_start_ns > 0)
    }

    /// Length of its measured part.
    pub(super) fn duration_ns(&self) -> Option<u64> {
        let client = &self.record.client;
        let whole = self.record.stopped.is_none() && !self.lost;
        let planned_end = client.measure_end_ns.filter(|_| whole).unwrap_or(0);
        planned_end
            .max(self.tally.last_end_ns)
            .checked_sub(client.measure_start_ns)
            .filter(|_| client.measure_start_ns > 0)
    }
}

/// The sums of a lost worker: the checkpoint is written before the rows that it counts and knows
/// what was in flight; where rows are missing or are more, the larger of the two is taken.
fn newest(checkpoint: &Tally, rows: &Tally) -> Tally {
    let base = if rows.sent_over() >= checkpoint.sent_over() { rows } else { checkpoint };
    let mut tally = base.clone();
    tally.operations.at_least_sent(&checkpoint.operations);
    tally.sent = checkpoint.sent.max(base.sent_over()).max(tally.operations.sent());
    tally.in_window = checkpoint.in_window.max(base.in_window);
    tally.warmup = checkpoint.warmup.max(rows.warmup);
    tally
}

fn unreadable(path: &std::path::Path, error: &io::Error) -> Fatal {
    Fatal::loadgen(format!("reading '{}': {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, ok: u64, failed: u64) -> Tally {
        Tally { sent, ok, failed, ..Tally::default() }
    }

    #[test]
    fn a_lost_worker_has_the_newest_sums_and_they_balance() {
        // Rows of one more second than the checkpoint.
        let found = newest(&tally(10, 4, 1), &tally(9, 8, 1));
        assert_eq!((found.sent, found.ok, found.failed), (10, 8, 1));
        // A torn rows file.
        let found = newest(&tally(10, 4, 1), &tally(3, 3, 0));
        assert_eq!((found.sent, found.ok, found.failed), (10, 4, 1));
        // More ended than the checkpoint had seen sent.
        let found = newest(&tally(10, 4, 1), &tally(20, 15, 5));
        assert_eq!((found.sent, found.ok, found.failed), (20, 15, 5));
        let found = newest(&Tally::default(), &Tally::default());
        assert_eq!(found, Tally::default());
    }
}
