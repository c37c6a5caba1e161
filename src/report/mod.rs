//! The report of a run, made from nothing but its folder: what was asked, how it ended, what was
//! measured, what it cost. Every file may be missing or torn; what could not be read is a
//! warning, never a zero.

mod files;
mod logs;
mod quantity;
mod read;
mod rebuild;
mod tables;
mod text;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use files::write;
pub(crate) use rebuild::rebuild;
pub(crate) use text::text;

use aifb_schema::{
    names::exit,
    result::{Counts, LoadResult, RESULT_VERSION, Report, StoppedBecause, Window},
    run::RunRecord,
};

use crate::store::RunFolder;

/// How much of the end of a run there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// It has ended, or will write nothing any more.
    Over,
    /// It goes on: files may be half there.
    GoesOn,
    /// It should go on, but its coordinator does not answer, for this reason.
    Silent(String),
}

/// Makes the report. `record` is run.json with what its reader found out besides: that the
/// coordinator was lost, what Slurm recorded. `rebuild` makes a result that was never written.
pub(crate) fn build(
    run: &RunFolder,
    record: RunRecord,
    life: &Life,
    rebuild: read::Rebuild<'_>,
) -> Report {
    let mut warnings = record.warnings.clone();
    match life {
        Life::Over => {}
        Life::GoesOn => warnings.push("the run goes on: these are its figures so far".into()),
        Life::Silent(reason) => {
            warnings.push(format!("the run has no end and its coordinator is silent: {reason}"));
        }
    }
    read::events(run, life, &mut warnings);
    logs::unsent(run, life, &mut warnings);
    let (results, missing) = read::results(run, life, rebuild, &mut warnings);
    let (nodes, window) = read::nodes(run, &record, life, window_of(&results), &mut warnings);
    Report {
        version: RESULT_VERSION,
        state: record.state,
        counts: sum(&results),
        metrics: match results.as_slice() {
            [only] => Some(only.metrics.clone()),
            _ => None,
        },
        searches: read::searches(run, &results),
        run: record,
        results,
        missing,
        nodes,
        window,
        warnings,
    }
}

/// What was planned is only known of the whole where it is known of every part.
fn sum(results: &[LoadResult]) -> Counts {
    let mut counts = Counts::default();
    results.iter().for_each(|result| counts.add(&result.counts));
    if results.iter().any(|result| result.counts.planned.is_none()) {
        (counts.planned, counts.unsent) = (None, None);
    }
    counts
}

/// From the first measured part to the end of the last.
fn window_of(results: &[LoadResult]) -> Option<Window> {
    Some(Window {
        start_epoch_ns: results.iter().map(|result| result.measure_start_epoch_ns).min()?,
        end_epoch_ns: results.iter().map(|result| result.measure_end_epoch_ns).max()?,
    })
}

/// The exit code that goes with a report. `fail_on_verdict` tells of a load whether a doubt
/// about it is a failure.
pub(crate) fn exit_code(report: &Report, fail_on_verdict: impl Fn(&str) -> bool) -> i32 {
    let of_run = report.run.exit_code();
    let results = &report.results;
    if of_run != exit::OK {
        of_run
    } else if !report.missing.is_empty() || results.iter().any(|result| !result.complete) {
        exit::INCOMPLETE
    } else if results.iter().any(|result| {
        (result.counts.sent > 0 && result.counts.ok == 0)
            || result.stopped_because.as_ref().is_some_and(StoppedBecause::is_failure)
    }) {
        exit::CHECK_FAILED
    } else if results
        .iter()
        .any(|result| !result.verdicts.is_empty() && fail_on_verdict(&result.load))
    {
        exit::UNBELIEVABLE
    } else {
        exit::OK
    }
}
