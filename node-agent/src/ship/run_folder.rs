//! The logs of a run folder: which there are, with the labels that the agents give them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::file,
    run::{Endpoint, RunRecord},
};
use anyhow::Context as _;

use super::{checkpoint::Checkpoint, source::Source};

/// Labels that every stream of a node has.
fn labels(record: &RunRecord, node: &str) -> BTreeMap<String, String> {
    let cluster = record.job.cluster.clone().unwrap_or_else(|| "local".into());
    [
        ("cluster", cluster),
        ("job", "aifb".into()),
        ("node", node.into()),
        ("run_id", record.run_id.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The log of a node's agent.
pub(crate) fn agent_source(run_dir: &Path, record: &RunRecord, node: &str) -> Source {
    let mut labels = labels(record, node);
    let own = [
        ("role", "agent"),
        ("service", "aifb-agent"),
        ("service_name", "aifb-agent"),
        ("stream", "log"),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let name = format!("{}/{node}/{}", file::NODES, file::AGENT_LOG);
    let metadata = BTreeMap::new();
    Source { path: run_dir.join(&name), name, labels, metadata, join: false, rotates: false }
}

/// The logs of a service replica, named as its folder: `llm`, or `llm.1`.
pub(crate) fn service_sources(
    run_dir: &Path,
    record: &RunRecord,
    node: &str,
    replica: &str,
) -> Vec<Source> {
    let (service, number) = replica.split_once('.').unwrap_or((replica, "0"));
    let of = |stream: &str, log: &str| {
        let mut labels = labels(record, node);
        let own = [
            ("role", "service"),
            ("service", replica),
            ("service_name", service),
            ("stream", stream),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let name = format!("{}/{replica}/{log}", file::SERVICES);
        let metadata = BTreeMap::from([("replica".to_owned(), number.to_owned())]);
        Source { path: run_dir.join(&name), name, labels, metadata, join: true, rotates: false }
    };
    vec![of("stdout", file::STDOUT), of("stderr", file::STDERR)]
}

/// What is to be sent of one node.
#[derive(Debug)]
pub(super) struct NodeLogs {
    /// The node's folder.
    pub(super) folder: PathBuf,
    /// Its logs.
    pub(super) sources: Vec<Source>,
}

/// All logs of a run, by node. A replica belongs to the node whose agent has started to send its
/// logs, else to the one where it answered, else to the first.
///
/// # Errors
/// It is no run folder.
pub(super) fn nodes(run_dir: &Path) -> anyhow::Result<Vec<NodeLogs>> {
    let path = run_dir.join(file::RUN);
    let text = fs::read(&path).with_context(|| format!("reading '{}'", path.display()))?;
    let record: RunRecord =
        serde_json::from_slice(&text).with_context(|| format!("reading '{}'", path.display()))?;
    let names = folders(&run_dir.join(file::NODES));
    let known: Vec<Vec<String>> = names
        .iter()
        .map(|node| {
            let folder = run_dir.join(file::NODES).join(node);
            Checkpoint::names(&folder.join(file::LOG_CHECKPOINT))
        })
        .collect();
    let mut nodes: Vec<NodeLogs> = names
        .iter()
        .map(|node| NodeLogs {
            folder: run_dir.join(file::NODES).join(node),
            sources: vec![agent_source(run_dir, &record, node)],
        })
        .collect();
    for replica in folders(&run_dir.join(file::SERVICES)) {
        let prefix = format!("{}/{replica}/", file::SERVICES);
        let begun = known.iter().position(|files| files.iter().any(|f| f.starts_with(&prefix)));
        let index = begun.or_else(|| {
            let text = fs::read(run_dir.join(&prefix).join(file::ENDPOINT)).ok()?;
            let endpoint: Endpoint = serde_json::from_slice(&text).ok()?;
            names.iter().position(|node| *node == endpoint.node)
        });
        let index = index.unwrap_or(0);
        let (Some(node), Some(name)) = (nodes.get_mut(index), names.get(index)) else { continue };
        node.sources.extend(service_sources(run_dir, &record, name, &replica));
    }
    Ok(nodes)
}

/// Names of the folders in a folder, sorted.
fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
