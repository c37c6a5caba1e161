//! Reading what a report needs from a run folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use aifb_schema::{
    metric,
    names::file,
    result::{LoadResult, NodeResources, RESULT_VERSION, Window},
    run::RunRecord,
    samples::{self, Recording},
    search::SearchResult,
};
use aifb_stats::{resources::node_resources, search::outcome};

use super::Life;
use crate::store::RunFolder;

/// Bytes of one node's samples that are read: a week at one sample a second of 100 series, or
/// a day at ten. What is behind is reported as not read.
const SAMPLES_BYTES_MAX: u64 = 1 << 30;

/// Bytes of a result: a few KiB; the largest has many operations and settings.
const RESULT_BYTES_MAX: u64 = 16 << 20;

/// Warnings that the run itself wrote as events, where run.json does not have them.
pub(super) fn noted_warnings(run: &RunFolder, warnings: &mut Vec<String>) {
    for event in run.events().into_iter().filter(|event| event.kind == "warning") {
        let known = warnings.iter().any(|warning| warning.contains(&event.message));
        if !known {
            warnings.push(format!("{}: {}", event.subject, event.message));
        }
    }
}

/// Makes a result from the files in a repeat's folder, given with its name
/// `<load>/p<point>/r<repeat>`; or says why it cannot.
pub(super) type Rebuild<'a> = &'a dyn Fn(&Path, &str) -> Result<LoadResult, String>;

/// All results by load, point and repeat; and the repeats that were begun and have none.
pub(super) fn results(
    run: &RunFolder,
    life: &Life,
    rebuild: Rebuild<'_>,
    warnings: &mut Vec<String>,
) -> (Vec<LoadResult>, Vec<String>) {
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for (name, folder) in repeats(&run.path().join(file::LOAD)) {
        match result(&folder.join(file::RESULT)) {
            Ok(Some(result)) => {
                doubt(&name, &result, warnings);
                results.push(result);
            }
            Ok(None) if *life == Life::GoesOn => {
                warnings.push(format!("load {name}: no result yet"));
            }
            Ok(None) => match rebuild(&folder, &name) {
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
    results.sort_by(|a, b| (&a.load, a.point, a.repeat).cmp(&(&b.load, b.point, b.repeat)));
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

fn result(path: &Path) -> Result<Option<LoadResult>, String> {
    let bytes = match bounded(path, RESULT_BYTES_MAX) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let result: LoadResult = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let result = result.with_former_operations();
    if result.version != RESULT_VERSION {
        return Err(format!("version {}, this program knows {RESULT_VERSION}", result.version));
    }
    Ok(Some(result))
}

/// Folders `<load>/<point>/<repeat>` with their names relative to `root`.
fn repeats(root: &Path) -> Vec<(String, PathBuf)> {
    let loads = subfolders(root, "");
    let points = loads.iter().flat_map(|(name, folder)| subfolders(folder, name));
    let points: Vec<_> = points.collect();
    points.iter().flat_map(|(name, folder)| subfolders(folder, name)).collect()
}

fn subfolders(folder: &Path, name: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<(String, PathBuf)> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| {
            let own = entry.file_name().to_string_lossy().into_owned();
            let name = if name.is_empty() { own } else { format!("{name}/{own}") };
            (name, entry.path())
        })
        .collect();
    found.sort();
    found
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
    let folders: BTreeMap<String, PathBuf> = run.node_folders().into_iter().collect();
    let asked = record.job.components.iter().flatten();
    let names: BTreeSet<&String> = asked.chain(folders.keys()).collect();
    let mut recordings = BTreeMap::new();
    for name in names {
        let path = run.path().join(file::NODES).join(name).join(file::SAMPLES);
        match recording(&path) {
            Ok((recording, cut)) => {
                tell(name, &recording, cut, life, warnings);
                recordings.insert(name.clone(), recording);
            }
            Err(reason) => warnings.push(format!("node {name}: no samples: {reason}")),
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

/// A node's samples, and whether there are more than were read.
fn recording(path: &Path) -> Result<(Recording, bool), String> {
    let (bytes, cut) = bounded(path, SAMPLES_BYTES_MAX).map_err(|error| error.to_string())?;
    samples::read(&bytes).map(|recording| (recording, cut)).map_err(|error| error.to_string())
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

/// Reads a regular file up to a bound; the flag says that there is more.
fn bounded(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let cut = bytes.len() as u64 > bytes_max;
    bytes.truncate(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    Ok((bytes, cut))
}

fn listed(ranks: &[u32]) -> String {
    ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
