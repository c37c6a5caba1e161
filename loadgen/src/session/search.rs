//! `aifb-loadgen run --search`: the largest load within limits, probe after probe.

use aifb_schema::{control::LoadPlan, result::LoadResult, search::ProbeRecord};
use aifb_stats::search::{Next, Range, next, outcome};

use super::{progress::ProgressLine, standalone::one};
use crate::{error::Fatal, merge};

/// Runs the probes, each in a folder of its own; gives the result of the largest load within the
/// limits (of the last probe, where there is none) with what the search found.
///
/// # Errors
/// If a probe could not be measured.
pub(crate) fn run(
    plan: &LoadPlan,
    runtime: &tokio::runtime::Runtime,
    progress: bool,
) -> Result<(LoadResult, Option<i32>), Fatal> {
    let fail = |cause: String| Fatal::loadgen(format!("searching: {cause}"));
    let search = plan.load.search.as_ref().ok_or_else(|| fail("nothing to search".to_owned()))?;
    let range = Range::of(search, &plan.load.arrival);
    let mut results: Vec<LoadResult> = Vec::new();
    let mut line = ProgressLine::new(progress);
    let mut interrupted = None;
    while interrupted.is_none() {
        let probes: Vec<ProbeRecord> =
            results.iter().filter_map(|result| result.probe.as_deref().cloned()).collect();
        let Next::Probe(level) = next(&range, &probes) else { break };
        let (result, signal) = probe(plan, level, results.len(), runtime, &mut line)?;
        if result.probe.is_none() && signal.is_none() {
            return Err(fail(
                "the rows of a probe could not be written, so it has no outcome".into(),
            )
            .hint("check the free space in the folder of --out or TMPDIR"));
        }
        interrupted = signal;
        results.push(result);
        if let Some(found) = outcome(&plan.load, plan.point, &results.iter().collect::<Vec<_>>())
            && let Some(last) = found.probes.last()
        {
            let word = if last.passed { "within the limits" } else { "too much" };
            line.note(&format!(
                "probe {}: {level:.3} {}: {word} ({})",
                results.len(),
                found.unit,
                last.why
            ));
        }
    }
    let found = outcome(&plan.load, plan.point, &results.iter().collect::<Vec<_>>());
    let best = found.as_ref().and_then(|found| found.repeat);
    let index = results.iter().position(|result| Some(result.repeat) == best);
    let index = index.unwrap_or_else(|| results.len().saturating_sub(1));
    if index >= results.len() {
        return Err(fail("no probe was measured".to_owned()));
    }
    let mut result = results.swap_remove(index);
    result.search = found.map(Box::new);
    Ok((result, interrupted))
}

fn probe(
    plan: &LoadPlan,
    level: f64,
    number: usize,
    runtime: &tokio::runtime::Runtime,
    line: &mut ProgressLine,
) -> Result<(LoadResult, Option<i32>), Fatal> {
    let folder = std::path::Path::new(&plan.folder).join(format!("r{number}"));
    std::fs::create_dir_all(&folder)
        .map_err(|error| Fatal::usage(format!("making folder '{}': {error}", folder.display())))?;
    let mut plan = plan.clone();
    plan.folder = folder.to_string_lossy().into_owned();
    plan.repeat = u32::try_from(number).unwrap_or(u32::MAX);
    plan.load = plan
        .load
        .at_level(level)
        .map_err(|cause| Fatal::loadgen(format!("planning a probe at {level}: {cause}")))?;
    line.title = format!("probe {}, {level:.3}: ", number + 1);
    let (result, signal) = one(plan, runtime, line)?;
    merge::write(&folder, &result)?;
    Ok((result, signal))
}
