//! The logs of a run folder: which there are, with the labels that the agents give them.

use std::{collections::BTreeMap, path::Path};

use aifb_runfolder::{NodeFolder, RunFolder};
use aifb_schema::{names::file, run::RunRecord};
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
    pub(super) folder: NodeFolder,
    /// Its logs.
    pub(super) sources: Vec<Source>,
}

/// All logs of a run, by node. A replica belongs to the node whose agent has started to send its
/// logs, else to the one where it answered, else to the first.
///
/// # Errors
/// It is no run folder.
pub(super) fn nodes(run_dir: &Path) -> anyhow::Result<Vec<NodeLogs>> {
    let run = RunFolder::new(run_dir);
    let path = run.record_path();
    let record = run.record().with_context(|| format!("reading '{}'", path.display()))?;
    let folders = run.nodes();
    let known: Vec<Vec<String>> =
        folders.iter().map(|node| Checkpoint::names(&node.log_checkpoint_path())).collect();
    let mut nodes: Vec<NodeLogs> = folders
        .iter()
        .map(|node| NodeLogs {
            folder: node.clone(),
            sources: vec![agent_source(run_dir, &record, node.name())],
        })
        .collect();
    for replica in run.replicas() {
        let prefix = format!("{}/{}/", file::SERVICES, replica.name());
        let started = known.iter().position(|files| files.iter().any(|f| f.starts_with(&prefix)));
        let index = started.or_else(|| {
            let endpoint = replica.endpoint().ok()?;
            folders.iter().position(|node| node.name() == endpoint.node)
        });
        let index = index.unwrap_or(0);
        let Some(node) = nodes.get_mut(index) else { continue };
        let sources = service_sources(run_dir, &record, node.folder.name(), replica.name());
        node.sources.extend(sources);
    }
    Ok(nodes)
}
