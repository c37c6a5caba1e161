//! `merge`: the result of a load whose leader never wrote it, from what its workers left.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use aifb_schema::{
    control::{LINE_MAX, LoadPlan},
    names::exit,
    result::LoadResult,
};

use crate::{error::Fatal, job::Job, record::checkpoint};

/// Most workers that a record may speak of: more than tasks in any step, and few enough that a
/// damaged record does not fill the memory.
const WORKERS_MAX: u32 = 65_536;

/// Reads the plan as JSON on standard input (its `size` is not looked at: the workers' records
/// know it), prints the result as JSON on standard output and writes no file.
///
/// # Errors
/// If the plan or the workers' files cannot be read.
pub(crate) fn run() -> Result<i32, Fatal> {
    let wrong = |error: &dyn std::fmt::Display| {
        Fatal::usage(format!("reading a load's plan from standard input: {error}"))
    };
    let mut text = String::new();
    let bound = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    io::stdin().take(bound).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    let plan: LoadPlan = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let result = result(plan)?;
    serde_json::to_vec(&result)
        .map_err(io::Error::from)
        .and_then(|mut line| {
            line.push(b'\n');
            io::stdout().write_all(&line)
        })
        .map_err(|error| Fatal::usage(format!("writing to standard output: {error}")))?;
    Ok(exit::OK)
}

fn result(mut plan: LoadPlan) -> Result<LoadResult, Fatal> {
    let Left { size, lost, level } = workers(Path::new(&plan.folder))?;
    plan.size = size;
    if let Some(level) = level {
        plan.load = plan.load.at_level(level).map_err(Fatal::loadgen)?;
    }
    super::result(&Job::new(plan, 0)?, &lost)
}

/// What the workers' records say.
struct Left {
    /// How many workers the load had.
    size: u32,
    /// Which of them did not come to their end.
    lost: Vec<u32>,
    /// How large the load was, where it was a probe of a search.
    level: Option<f64>,
}

fn workers(folder: &Path) -> Result<Left, Fatal> {
    let wrong = |cause: String| Fatal::loadgen(format!("merging '{}': {cause}", folder.display()));
    let (mut size, mut level) = (0, None);
    let mut ended = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| wrong(error.to_string()))? {
        let path = entry.map_err(|error| wrong(error.to_string()))?.path();
        if path.extension().is_none_or(|extension| extension != "hdr") {
            continue;
        }
        // A record that cannot be read is that of a lost worker.
        if let Ok((record, _)) = checkpoint::read(&path) {
            size = record.size.max(size);
            level = level.or(record.level);
            ended.extend(record.ended.then_some(record.rank));
        }
    }
    match size {
        0 => Err(wrong("there is no record of any worker".into())),
        size if size > WORKERS_MAX => {
            Err(wrong(format!("a record is of a load with {size} workers")))
        }
        size => {
            let lost = (0..size).filter(|rank| !ended.contains(rank)).collect();
            Ok(Left { size, lost, level })
        }
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::recipe;

    use super::*;
    use crate::record::{
        checkpoint::{ClientState, WorkerRecord},
        checkpoint_path,
        tally::{Histograms, Tally},
    };

    fn plan(folder: &Path) -> LoadPlan {
        let text = "{aifb: 1, name: x, \
            services: [{name: web, kind: container, program: /bin/true, health: {http: /}}], \
            load: [{name: hits, service: web, driver: http, arrival: {rate: 10/s}, \
            phases: {measure: 3s}}]}";
        let recipe = recipe::parse(text, &[]).unwrap_or_else(|complaints| panic!("{complaints:?}"));
        LoadPlan {
            run_id: "x-1".into(),
            folder: folder.to_str().unwrap().into(),
            load: recipe.load.into_iter().next().unwrap(),
            point: 1,
            settings: Default::default(),
            repeat: 2,
            size: 0,
            rank: None,
            endpoints: Vec::new(),
            model: None,
            secrets: Default::default(),
        }
    }

    fn leave(folder: &Path, rank: u32, size: u32, ended: bool, sent: u64, ok: u64) {
        let record = WorkerRecord {
            rank,
            size,
            ended,
            planned: Some(10),
            tally: Tally { sent, ok, ..Tally::default() },
            client: ClientState {
                measure_start_ns: 5,
                epoch_minus_mono_ns: 1_000,
                ..ClientState::default()
            },
            ..WorkerRecord::default()
        };
        checkpoint::write(&checkpoint_path(folder, rank), &record, &Histograms::default()).unwrap();
    }

    #[test]
    fn what_workers_left_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            result(plan(folder.path()))
                .unwrap_err()
                .to_string()
                .contains("no record of any worker")
        );
        // Three workers were killed, the last before it wrote anything.
        leave(folder.path(), 0, 3, false, 8, 5);
        leave(folder.path(), 1, 3, false, 10, 10);
        fs::write(folder.path().join("worker-2.hdr.new"), "").unwrap();
        let result = result(plan(folder.path())).unwrap();
        assert_eq!((result.load.as_str(), result.point, result.repeat), ("hits", 1, 2));
        assert_eq!((result.counts.sent, result.counts.ok, result.counts.unfinished), (18, 15, 3));
        assert!(result.counts.balanced(), "{:?}", result.counts);
        assert_eq!((result.complete, result.lost_workers.as_slice()), (false, &[0, 1, 2][..]));
        assert_eq!(result.measure_start_epoch_ns, 1_005);
    }

    #[test]
    fn a_damaged_record_does_not_fill_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), 0, u32::MAX, true, 1, 1);
        assert!(
            result(plan(folder.path())).unwrap_err().to_string().contains("4294967295 workers")
        );
    }
}
