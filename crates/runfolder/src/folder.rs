//! Every path in a run folder, and the walks over its nodes, services and loads.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::file,
    result::LoadResult,
    run::{AgentRecord, Endpoint, Event, RunRecord},
};

use crate::read::{self, Lines};

/// Bytes of a JSON record: a few KiB; the largest has a thousand nodes or a hundred warnings.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// Bytes of `events.jsonl` that are read: a million events.
const EVENTS_BYTES_MAX: u64 = 256 << 20;

/// The folder of one run. Nothing needs to exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The run folder at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The recipe as it was submitted.
    #[must_use]
    pub fn recipe_path(&self) -> PathBuf {
        self.path.join(file::RECIPE)
    }

    /// The recipe as it is run; absent in folders of the first versions.
    #[must_use]
    pub fn resolved_path(&self) -> PathBuf {
        self.path.join(file::RESOLVED)
    }

    /// What the run is and how it ended.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        self.path.join(file::RUN)
    }

    /// What happened when, one JSON object per line.
    #[must_use]
    pub fn events_path(&self) -> PathBuf {
        self.path.join(file::EVENTS)
    }

    /// The token of the run, mode 0600.
    #[must_use]
    pub fn token_path(&self) -> PathBuf {
        self.path.join(file::TOKEN)
    }

    /// The launcher's lock.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.path.join(file::LOCK)
    }

    /// The launcher's log.
    #[must_use]
    pub fn launch_log_path(&self) -> PathBuf {
        self.path.join(file::LAUNCH_LOG)
    }

    /// The report for people.
    #[must_use]
    pub fn report_text_path(&self) -> PathBuf {
        self.path.join(file::REPORT_TEXT)
    }

    /// The report for programs.
    #[must_use]
    pub fn report_json_path(&self) -> PathBuf {
        self.path.join(file::REPORT_JSON)
    }

    /// The folder of the nodes' folders.
    #[must_use]
    pub fn nodes_path(&self) -> PathBuf {
        self.path.join(file::NODES)
    }

    /// The folder of the replicas' folders.
    #[must_use]
    pub fn services_path(&self) -> PathBuf {
        self.path.join(file::SERVICES)
    }

    /// The folder of a node.
    #[must_use]
    pub fn node(&self, node: &str) -> NodeFolder {
        NodeFolder { name: node.to_owned(), path: self.nodes_path().join(node) }
    }

    /// The folder of a service replica, by the folder's name: `llm`, or `llm.1`.
    #[must_use]
    pub fn replica(&self, replica: &str) -> ReplicaFolder {
        ReplicaFolder { name: replica.to_owned(), path: self.services_path().join(replica) }
    }

    /// The folder of one repeat of a load.
    #[must_use]
    pub fn repeat(&self, load: &str, point: u32, repeat: u32) -> RepeatFolder {
        let relative = repeat_path(load, point, repeat);
        let path = self.path.join(file::LOAD).join(relative);
        RepeatFolder { path, load: load.to_owned(), point, repeat }
    }

    /// The nodes' folders that exist, in the order of their names.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeFolder> {
        let found = subfolders(&self.nodes_path()).into_iter();
        found.map(|(name, path)| NodeFolder { name, path }).collect()
    }

    /// The replicas' folders that exist, in the order of their names.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaFolder> {
        let found = subfolders(&self.services_path()).into_iter();
        found.map(|(name, path)| ReplicaFolder { name, path }).collect()
    }

    /// The repeats of all loads that were started, by load, point and repeat. Folders with other
    /// names than `<load>/p<point>/r<repeat>` are left out.
    #[must_use]
    pub fn repeats(&self) -> Vec<RepeatFolder> {
        let mut found = Vec::new();
        for (load, folder) in subfolders(&self.path.join(file::LOAD)) {
            for (point, folder) in numbered(&folder, 'p') {
                for (repeat, path) in numbered(&folder, 'r') {
                    found.push(RepeatFolder { path, load: load.clone(), point, repeat });
                }
            }
        }
        found
    }

    /// The lowest repeat number such that neither it nor a higher one was started.
    #[must_use]
    pub fn next_repeat(&self, load: &str, point: u32) -> u32 {
        let first = self.repeat(load, point, 0);
        let folders = first.path.parent().map(|point| numbered(point, 'r')).unwrap_or_default();
        folders.last().map_or(0, |(number, _)| number.saturating_add(1))
    }

    /// `run.json`.
    ///
    /// # Errors
    /// It cannot be read or is no run record.
    pub fn record(&self) -> io::Result<RunRecord> {
        read::json(&self.record_path(), RECORD_BYTES_MAX)
    }

    /// What happened so far. A missing file has no events.
    ///
    /// # Errors
    /// The system refuses.
    pub fn events(&self) -> io::Result<Lines<Event>> {
        match read::lines(&self.events_path(), EVENTS_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::default()),
            other => other,
        }
    }

    /// Where services answer, by service and replica; replicas that do not answer yet, and those
    /// whose file cannot be read, are left out.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let folders = self.replicas();
        let mut found: Vec<Endpoint> =
            folders.iter().filter_map(|replica| replica.endpoint().ok()).collect();
        found.sort_by(|a, b| (&a.service, a.replica).cmp(&(&b.service, b.replica)));
        found
    }
}

/// `nodes/<node>/`: the files of a node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFolder {
    name: String,
    path: PathBuf,
}

impl NodeFolder {
    /// The node's name as Slurm knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How to reach the agent while it lives.
    #[must_use]
    pub fn agent_path(&self) -> PathBuf {
        self.path.join(file::AGENT)
    }

    /// The agent's own log.
    #[must_use]
    pub fn agent_log_path(&self) -> PathBuf {
        self.path.join(file::AGENT_LOG)
    }

    /// Raw counters.
    #[must_use]
    pub fn samples_path(&self) -> PathBuf {
        self.path.join(file::SAMPLES)
    }

    /// Series sent by remote write that have not ended.
    #[must_use]
    pub fn remote_series_path(&self) -> PathBuf {
        self.path.join(file::REMOTE_SERIES)
    }

    /// How many log lines were sent, quarantined and left over.
    #[must_use]
    pub fn log_ledger_path(&self) -> PathBuf {
        self.path.join(file::LOG_LEDGER)
    }

    /// How far the logs are sent.
    #[must_use]
    pub fn log_checkpoint_path(&self) -> PathBuf {
        self.path.join(file::LOG_CHECKPOINT)
    }

    /// Log lines that the receiver refused for good.
    #[must_use]
    pub fn log_quarantine_path(&self) -> PathBuf {
        self.path.join(file::LOG_QUARANTINE)
    }

    /// `agent.json`.
    ///
    /// # Errors
    /// It cannot be read or is no agent record.
    pub fn agent(&self) -> io::Result<AgentRecord> {
        read::json(&self.agent_path(), RECORD_BYTES_MAX)
    }
}

/// `services/<name>[.<replica>]/`: the files of a service replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaFolder {
    name: String,
    path: PathBuf,
}

impl ReplicaFolder {
    /// Name of the folder: `llm`, or `llm.1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the replica answers; written once it is healthy.
    #[must_use]
    pub fn endpoint_path(&self) -> PathBuf {
        self.path.join(file::ENDPOINT)
    }

    /// Its standard output.
    #[must_use]
    pub fn stdout_path(&self) -> PathBuf {
        self.path.join(file::STDOUT)
    }

    /// Its standard error.
    #[must_use]
    pub fn stderr_path(&self) -> PathBuf {
        self.path.join(file::STDERR)
    }

    /// `endpoint.json`.
    ///
    /// # Errors
    /// It cannot be read or is no endpoint.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        read::json(&self.endpoint_path(), RECORD_BYTES_MAX)
    }
}

/// `load/<name>/p<point>/r<repeat>/`: the files of one repeat of a load. Its [`Display`] is
/// `<name>/p<point>/r<repeat>`.
///
/// [`Display`]: fmt::Display
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatFolder {
    path: PathBuf,
    load: String,
    point: u32,
    repeat: u32,
}

impl fmt::Display for RepeatFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repeat_path(&self.load, self.point, self.repeat))
    }
}

impl RepeatFolder {
    /// Name of the load.
    #[must_use]
    pub fn load(&self) -> &str {
        &self.load
    }

    /// Point of the sweep, from 0.
    #[must_use]
    pub fn point(&self) -> u32 {
        self.point
    }

    /// Repeat of the point, from 0.
    #[must_use]
    pub fn repeat(&self) -> u32 {
        self.repeat
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The repeats of the same point before this one, whether they exist or not.
    pub fn before(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.repeat).filter_map(|repeat| {
            let path = self.path.parent()?.join(format!("r{repeat}"));
            Some(Self { path, load: self.load.clone(), point: self.point, repeat })
        })
    }

    /// The merged result.
    #[must_use]
    pub fn result_path(&self) -> PathBuf {
        worker::result(&self.path)
    }

    /// `result.json`.
    ///
    /// # Errors
    /// It cannot be read or is no result.
    pub fn result(&self) -> io::Result<LoadResult> {
        let result: LoadResult = read::json(&self.result_path(), RECORD_BYTES_MAX)?;
        Ok(result.with_former_operations())
    }
}

/// Names of the files in the folder of a load's workers. Outside a run this folder is any folder
/// that the workers share, so these take its path.
pub mod worker {
    use super::{Path, PathBuf, file};

    /// The merged result.
    #[must_use]
    pub fn result(folder: &Path) -> PathBuf {
        folder.join(file::RESULT)
    }

    /// The seconds of all workers together.
    #[must_use]
    pub fn series(folder: &Path) -> PathBuf {
        folder.join(file::SERIES)
    }

    /// One row for each request of this rank, as an Arrow IPC stream.
    #[must_use]
    pub fn rows(folder: &Path, rank: u32) -> PathBuf {
        folder.join(format!("worker-{rank}.arrows"))
    }

    /// The sums and histograms of this rank, replaced once a second.
    #[must_use]
    pub fn checkpoint(folder: &Path, rank: u32) -> PathBuf {
        folder.join(format!("worker-{rank}.hdr"))
    }

    /// The seconds of this rank, one line each.
    #[must_use]
    pub fn seconds(folder: &Path, rank: u32) -> PathBuf {
        folder.join(format!("worker-{rank}.jsonl"))
    }

    /// Written when this rank is prepared, where workers meet through files.
    #[must_use]
    pub fn prepared(folder: &Path, rank: u32) -> PathBuf {
        folder.join(format!("rank-{rank}.json"))
    }

    /// The common start, where workers meet through files.
    #[must_use]
    pub fn start(folder: &Path) -> PathBuf {
        folder.join("start.json")
    }

    /// Checkpoints that exist, in the order of ranks. Files that are not finished are left out.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoints(folder: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
        ranked(folder, ".hdr")
    }

    /// Row files that exist, in the order of ranks.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn all_rows(folder: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
        ranked(folder, ".arrows")
    }

    fn ranked(folder: &Path, ending: &str) -> std::io::Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let rank = name.to_str().and_then(|name| {
                name.strip_prefix("worker-")?.strip_suffix(ending)?.parse::<u32>().ok()
            });
            found.extend(rank.map(|rank| (rank, entry.path())));
        }
        found.sort();
        Ok(found)
    }
}

/// `<load>/p<point>/r<repeat>`.
fn repeat_path(load: &str, point: u32, repeat: u32) -> String {
    format!("{load}/p{point}/r{repeat}")
}

/// Folders in a folder with their names, in the order of names; none where it cannot be read.
fn subfolders(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<(String, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    found
}

/// Folders named by a letter and a number, in the order of numbers.
fn numbered(path: &Path, letter: char) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<(u32, PathBuf)> = subfolders(path)
        .into_iter()
        .filter_map(|(name, path)| {
            let number: u32 = name.strip_prefix(letter)?.parse().ok()?;
            // Not `p01` or `p+1`, which would be a second folder of the same number.
            (name == format!("{letter}{number}")).then_some((number, path))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        let made = [("a", 0, 0), ("a", 2, 0), ("a", 10, 0), ("a", 10, 1), ("b-c", 0, 7)];
        for (load, point, repeat) in made {
            fs::create_dir_all(run.repeat(load, point, repeat).path()).unwrap();
        }
        for other in ["load/a/x/r0", "load/a/p0/x", "load/a/p01/r0", "load/a/p+3/r0"] {
            fs::create_dir_all(folder.path().join(other)).unwrap();
        }
        fs::write(folder.path().join("load/a/p0/r9"), "no folder").unwrap();
        let found = run.repeats();
        let names: Vec<_> =
            found.iter().map(|one| (one.load(), one.point(), one.repeat())).collect();
        assert_eq!(names, made);
        assert_eq!(found[3].path(), run.repeat("a", 10, 1).path());
        assert_eq!(found[4].to_string(), "b-c/p0/r7");
        assert_eq!(run.repeat("a", 1, 2).path(), folder.path().join("load/a/p1/r2"));
        let before: Vec<String> = found[3].before().map(|one| one.to_string()).collect();
        assert_eq!(before, ["a/p10/r0"]);
        assert_eq!((run.next_repeat("b-c", 0), run.next_repeat("a", 3)), (8, 0));
    }

    #[test]
    fn nodes_and_replicas_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        assert!(run.nodes().is_empty() && run.replicas().is_empty() && run.repeats().is_empty());
        for path in [run.node("n2").path(), run.node("n1").path(), run.replica("llm.1").path()] {
            fs::create_dir_all(path).unwrap();
        }
        let names: Vec<_> = run.nodes().iter().map(|node| node.name().to_owned()).collect();
        assert_eq!(names, ["n1", "n2"]);
        assert_eq!(run.nodes(), [run.node("n1"), run.node("n2")]);
        assert_eq!(run.replicas(), [run.replica("llm.1")]);
        assert_eq!(
            run.node("n1").samples_path(),
            folder.path().join("nodes").join("n1").join("samples.bin")
        );
        assert!(run.endpoints().is_empty());
    }

    #[test]
    fn files_of_workers_are_found_by_rank() {
        let folder = tempfile::tempdir().unwrap();
        for rank in [10, 2, 0] {
            fs::write(worker::rows(folder.path(), rank), "").unwrap();
            fs::write(worker::checkpoint(folder.path(), rank), "").unwrap();
        }
        for other in ["worker-x.hdr", ".worker-3.hdr.1.0.new", "worker-3.hdr.new", "result.json"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let expected = [0, 2, 10].map(|rank| (rank, worker::checkpoint(folder.path(), rank)));
        assert_eq!(worker::checkpoints(folder.path()).unwrap(), expected);
        assert_eq!(worker::all_rows(folder.path()).unwrap().len(), 3);
        assert!(worker::all_rows(&folder.path().join("none")).is_err());
    }

    #[test]
    fn events_end_where_the_file_does() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        assert_eq!(run.events().unwrap(), Lines::default());
        let whole =
            r#"{"epoch_ns":1,"mono_ns":2,"node":"n","kind":"state","subject":"s","message":"m"}"#;
        fs::write(run.events_path(), format!("{whole}\nnonsense\n{whole}\n{{\"epoch_ns\": 17"))
            .unwrap();
        let events = run.events().unwrap();
        assert_eq!((events.values.len(), events.unreadable, events.torn_bytes), (2, 1, 15));
        assert!(run.record().is_err());
    }
}
