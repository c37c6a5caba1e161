//! Where this run's agents show their metrics, as Prometheus' service discovery reads it: a file
//! of the run in a folder (file_sd), or an answer of the coordinator (http_sd).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aifb_schema::run::RunRecord;
use serde::Serialize;

/// Addresses, and labels of all that is scraped from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Group {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

/// The list of a run: one group, or none while no agent is up.
pub(crate) fn list(record: &RunRecord, addresses: Vec<String>) -> Vec<Group> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let mut labels =
        BTreeMap::from([("run_id", record.run_id.clone()), ("role", "node-agent".to_owned())]);
    labels.extend(record.job.id.map(|job| ("job_id", job.to_string())));
    vec![Group { targets: addresses, labels }]
}

/// The file of a run: its name ends as Prometheus' usual pattern `*.json` wants it.
pub(crate) fn file_of(folder: &Path, run_id: &str) -> PathBuf {
    folder.join(format!("aifb-{run_id}.json"))
}
