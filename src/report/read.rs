//! Reading what a report needs from a run folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use aifb_runfolder::{NodeFolder, RepeatFolder, read};
use aifb_schema::{
    metric,
    names::file,
    recipe::moved,
    result::{LoadResult, NodeResources, RESULT_VERSION, Window},
    run::RunRecord,
    samples::Recording,
    search::SearchResult,
};
use aifb_stats::{resources::node_resources, search::outcome};

use super::Life;
use crate::store::RunFolder;

/// Bytes of one node's samples that are read: a week at one sample a second of 100 series, or
/// a day at ten. What is behind is reported as not read.
const SAMPLES_BYTES_MAX: u64 = 1 << 30;

/// Warnings that the run itself wrote as events, where run.json does not have them, and what is
/// wrong with the events themselves.
pub(super) fn events(run: &RunFolder, life: &Life, warnings: &mut Vec<String>) {
    let events = match run.files().events() {
        Ok(events) => events,
        Err(error) => {
            warnings.push(format!("{} cannot be read: {error}", file::EVENTS));
            return;
        }
    };
    for event in events.values.into_iter().filter(|event| event.kind == "warning") {
        let known = warnings.iter().any(|warning| warning.contains(&event.message));
        if !known {
            warnings.push(format!("{}: {}", event.subject, event.message));
        }
    }
    if events.unreadable > 0 {
        warnings.push(format!(
            "{}: lines that cannot be read: {}",
            file::EVENTS,
            events.unreadable
        ));
    }
    if *life == Life::Over && events.torn_bytes > 0 {
        warnings.push(format!(
            "{}: its last line is torn ({} bytes): its writer was killed or could not write",
            file::EVENTS,
            events.torn_bytes
        ));
    }
}

/// Makes a result from the files in a repeat's folder, or says why it cannot.
pub(super) type Rebuild<'a> = &'a dyn Fn(&RepeatFolder) -> Result<LoadResult, String>;

/// All results by load, point and repeat; and the repeats that were begun and have none.
pub(super) fn results(
    run: &RunFolder,
    life: &Life,
    rebuild: Rebuild<'_>,
    warnings: &mut Vec<String>,
) -> (Vec<LoadResult>, Vec<String>) {
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for repeat in run.files().repeats() {
        let name = repeat.to_string();
        match result(&repeat) {
            Ok(Some(result)) => {
                doubt(&name, &result, warnings);
                results.push(result);
            }
            Ok(None) if *life == Life::GoesOn => {
                warnings.push(format!("load {name}: no result yet"));
            }
            Ok(None) => match rebuild(&repeat) {
                Ok(result) => {
                    warnings.push(format!(
                        "load {name}: its leader wrote no result; this one is from the workers' files"
                    ));
                    doubt(&name, &result, warnings);
                    results.push(result);
                }
                Err(reason) => {
                    warnings.push(format!("load {name}: begun, but without a result: {reason}"));
                    missing.push(name);
                }
            },
            Err(reason) => {
                warnings.push(format!("load {name}: its result cannot be read: {reason}"));
                missing.push(name);
            }
        }
    }
    (results, missing)
}

/// What the recipe's searches found, computed from the results of their probes.
pub(super) fn searches(run: &RunFolder, results: &[LoadResult]) -> Vec<SearchResult> {
    let Ok(recipe) = run.recipe() else { return Vec::new() };
    let same = |a: &LoadResult, b: &LoadResult| (&a.load, a.point) == (&b.load, b.point);
    results
        .chunk_by(same)
        .filter_map(|probes| {
            let first = probes.first()?;
            let load = recipe.load.iter().find(|load| load.name.as_str() == first.load)?;
            outcome(load, first.point, &probes.iter().collect::<Vec<_>>())
        })
        .collect()
}

/// What makes a result less than it should be, besides its own verdicts.
fn doubt(name: &str, result: &LoadResult, warnings: &mut Vec<String>) {
    if !result.counts.balanced() {
        warnings.push(format!("load {name}: its counts do not add up: {:?}", result.counts));
    }
    if !result.complete {
        let lost = match result.lost_workers.as_slice() {
            [] => String::new(),
            ranks => format!("; workers lost: {}", listed(ranks)),
        };
        warnings.push(format!("load {name}: incomplete{lost}"));
    }
}

fn result(repeat: &RepeatFolder) -> Result<Option<LoadResult>, String> {
    let mut result = match repeat.result() {
        Ok(result) => result,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if result.version != RESULT_VERSION {
        return Err(format!("version {}, this program knows {RESULT_VERSION}", result.version));
    }
    moved::rewrite_settings(&mut result.settings);
    Ok(Some(result))
}

/// Figures of every node over `window`, or over the whole run where a node has less than two
/// samples in it.
pub(super) fn nodes(
    run: &RunFolder,
    record: &RunRecord,
    life: &Life,
    window: Option<Window>,
    warnings: &mut Vec<String>,
) -> (Vec<NodeResources>, Option<Window>) {
    let found = run.files().nodes();
    let allocated = record.job.components.iter().flatten().map(String::as_str);
    let names: BTreeSet<&str> = allocated.chain(found.iter().map(NodeFolder::name)).collect();
    let mut recordings = BTreeMap::new();
    for name in names {
        match read::recording(&run.files().node(name).samples_path(), SAMPLES_BYTES_MAX) {
            Ok((recording, cut)) => {
                tell(name, &recording, cut, life, warnings);
                recordings.insert(name.to_owned(), recording);
            }
            Err(error) => warnings.push(format!("node {name}: no samples: {error}")),
        }
    }
    let figures = |window: Option<Window>| -> Vec<NodeResources> {
        let span = window.map(|window| (window.start_epoch_ns, window.end_epoch_ns));
        recordings.iter().map(|(name, recording)| node_resources(name, recording, span)).collect()
    };
    let mut nodes = figures(window);
    let mut window = window;
    if window.is_some() && nodes.iter().any(|node| node.samples < 2) {
        nodes = figures(None);
        window = None;
        warnings.push(
            "the measured part is too short for figures of the nodes: theirs are of the whole run"
                .into(),
        );
    }
    for node in nodes.iter().filter(|node| node.gaps > 0) {
        let ticks = node.gaps + node.samples;
        warnings.push(format!("node {}: {} of {ticks} samples are missing", node.node, node.gaps));
    }
    (nodes, window)
}

/// What a recording says about its own end and about the node.
fn tell(node: &str, recording: &Recording, cut: bool, life: &Life, warnings: &mut Vec<String>) {
    if cut {
        warnings.push(format!("node {node}: only the first GiB of its samples was read"));
    } else if *life == Life::Over && !recording.ended {
        let torn = match recording.torn_bytes {
            0 => String::new(),
            bytes => format!(", and with {bytes} bytes that are no whole sample"),
        };
        warnings.push(format!(
            "node {node}: its samples end without an end mark{torn}: its agent was killed or could not write"
        ));
    }
    for (step, kills) in oom_kills(recording) {
        warnings.push(format!(
            "node {node}, step {step}: out of memory: the kernel killed {kills} processes"
        ));
    }
}

/// Processes that were killed for want of memory, by step.
fn oom_kills(recording: &Recording) -> BTreeMap<String, u64> {
    let of_kills = recording.series.values().filter(|one| one.name == metric::STEP_OOM_KILLS.name);
    let steps: BTreeMap<u32, &str> = of_kills
        .map(|series| (series.id, series.labels.get("step").map_or("?", String::as_str)))
        .collect();
    let mut kills = BTreeMap::new();
    for (id, value) in recording.samples.iter().flat_map(|sample| &sample.values) {
        if let Some(step) = steps.get(id).filter(|_| *value > 0.0) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small count"
            )]
            kills.insert((*step).to_owned(), *value as u64);
        }
    }
    kills
}

fn listed(ranks: &[u32]) -> String {
    ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
