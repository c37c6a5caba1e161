//! `worker-<rank>.jsonl`: what happened in each second, a line a second, and the sum of all
//! workers' in `series.jsonl`.
//!
//! Seconds are counted from the common start, so the lines of all workers with one number are of
//! one second.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use aifb_schema::{names::file, result::SeriesPoint};
use aifb_stats::{distribution::seconds, histogram::Histogram, rank::Quantile};

use super::tally::Tally;

/// Lines of one worker that are read: a week of seconds.
const LINES_MAX: usize = 7 * 24 * 3600;

/// Series file of a rank.
pub(crate) fn path(folder: &Path, rank: u32) -> PathBuf {
    folder.join(format!("worker-{rank}.jsonl"))
}

/// What is known at the end of a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    before: Tally,
    cpu_ns: u64,
    /// Client lags of the requests that ended in the running second.
    lags: Histogram,
    /// Seconds told so far.
    told: u64,
}

impl Series {
    /// Notes the client lag of a successful measured request that has ended.
    pub(crate) fn lag(&mut self, ns: u64) {
        self.lags.record(ns);
    }

    /// The second (or the several, after a stall) that has just ended, `elapsed_ns` after the
    /// common start: the difference to the sums before it.
    pub(crate) fn point(
        &mut self,
        elapsed_ns: u64,
        tally: &Tally,
        in_flight: u64,
        cpu_ns: u64,
    ) -> SeriesPoint {
        let second = self.told;
        // The last one is a part of a second.
        let now = (elapsed_ns / 1_000_000_000).max(second + 1);
        self.told = now;
        let before = std::mem::replace(&mut self.before, tally.clone());
        let errors = tally.errors.iter().filter_map(|(class, count)| {
            let more = count - before.errors.get(class).copied().unwrap_or(0);
            (more > 0).then(|| (class.to_string(), more))
        });
        let lag = self.lags.quantile(Quantile::P99);
        self.lags.clear();
        let cpu = cpu_ns.saturating_sub(std::mem::replace(&mut self.cpu_ns, cpu_ns));
        SeriesPoint {
            second,
            seconds: now - second,
            warmup: tally.warmup - before.warmup,
            sent: tally.sent - before.sent,
            ok: tally.ok - before.ok,
            failed: tally.failed - before.failed,
            cancelled: tally.cancelled - before.cancelled,
            errors: errors.collect(),
            sent_bytes: tally.bytes_sent - before.bytes_sent,
            received_bytes: tally.bytes_received - before.bytes_received,
            output_tokens: (tally.output_tokens + tally.warmup_tokens)
                - (before.output_tokens + before.warmup_tokens),
            in_flight,
            client_cpu_seconds: seconds(cpu),
            client_lag_p99_seconds: lag.map(seconds),
        }
    }
}

/// Adds the series of all ranks up in `series.jsonl`, by rename. A rank whose file is missing or
/// torn counts as far as it can be read.
///
/// # Errors
/// Of the file system, where it is written.
pub(crate) fn merge(folder: &Path, size: u32) -> io::Result<()> {
    let mut sums: BTreeMap<u64, SeriesPoint> = BTreeMap::new();
    for rank in 0..size {
        let Ok(lines) = fs::File::open(path(folder, rank)) else { continue };
        for line in BufReader::new(lines).lines().take(LINES_MAX) {
            let Some(point) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else {
                break;
            };
            add(&mut sums, point);
        }
    }
    if sums.is_empty() {
        return Ok(());
    }
    let to = folder.join(file::SERIES);
    let new = folder.join(format!("{}.new", file::SERIES));
    let mut out = io::BufWriter::new(fs::File::create(&new)?);
    for point in sums.values() {
        serde_json::to_writer(&mut out, point)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    drop(out);
    fs::rename(new, to)
}

fn add(sums: &mut BTreeMap<u64, SeriesPoint>, point: SeriesPoint) {
    match sums.get_mut(&point.second) {
        Some(sum) => sum.add(&point),
        None => {
            sums.insert(point.second, point);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::Class,
        record::{
            row::{Outcome, tests::streamed},
            tally::Limits,
        },
    };

    #[test]
    fn a_second_is_what_came_since_the_last() {
        let (mut series, mut tally) = (Series::default(), Tally::default());
        let limits = Limits::default();
        let mut row = streamed();
        tally.begin(&row, &limits);
        tally.end(&row, &limits);
        row.client_lag().into_iter().for_each(|ns| series.lag(ns));
        let first = series.point(1_000_100_000, &tally, 3, 400_000_000);
        assert_eq!((first.second, first.sent, first.ok, first.output_tokens), (0, 1, 1, 3));
        assert_eq!((first.in_flight, first.client_cpu_seconds), (3, 0.4));
        assert!(first.client_lag_p99_seconds.unwrap() > 0.0);
        row.outcome = Outcome::Failed;
        row.error = Some(Class::Status5xx);
        tally.begin(&row, &limits);
        tally.end(&row, &limits);
        // The client stood still for two seconds.
        let second = series.point(3_900_000_000, &tally, 0, 500_000_000);
        assert_eq!((second.second, second.seconds), (1, 2));
        assert_eq!((second.sent, second.ok, second.failed), (1, 0, 1));
        assert_eq!(second.errors["status_5xx"], 1);
        assert_eq!(second.client_lag_p99_seconds, None, "nothing ended");
    }

    #[test]
    fn workers_add_up_by_second() {
        let folder = tempfile::tempdir().unwrap();
        let point = |second: u64, ok: u64, lag: f64| SeriesPoint {
            second,
            seconds: 1,
            ok,
            in_flight: 2,
            client_lag_p99_seconds: Some(lag),
            ..SeriesPoint::default()
        };
        let write = |rank: u32, points: &[SeriesPoint], tail: &str| {
            let lines: Vec<String> =
                points.iter().map(|point| serde_json::to_string(point).unwrap() + "\n").collect();
            fs::write(path(folder.path(), rank), lines.concat() + tail).unwrap();
        };
        write(0, &[point(0, 5, 0.1), point(1, 6, 0.1)], "");
        // Killed while it wrote its second line.
        write(2, &[point(0, 7, 0.3)], "{\"second\": 1, \"ok");
        merge(folder.path(), 3).unwrap();
        let text = fs::read_to_string(folder.path().join("series.jsonl")).unwrap();
        let found: Vec<SeriesPoint> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].ok, found[0].in_flight), (12, 4));
        assert_eq!(found[0].client_lag_p99_seconds, Some(0.3));
        assert_eq!(found[1].ok, 6);
        merge(tempfile::tempdir().unwrap().path(), 1).unwrap();
    }
}
