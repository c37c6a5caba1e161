//! One run as a person or a script wants to see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aifb_schema::{
    control::{Delta, LoadStatus, NodeStatus, ReplicaStatus, RunStatus},
    run::RunRecord,
};
use serde::Serialize;

use crate::{
    observe::{Liveness, liveness},
    store::RunFolder,
};

/// All that is known about a run now.
#[derive(Debug, Serialize)]
pub(crate) struct RunView {
    /// Absolute path of the run folder.
    pub(crate) folder: String,
    /// `ended`, `alive`, `silent` (should be alive, does not answer) or `lost`.
    pub(crate) liveness: &'static str,
    /// Why it is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) silence: Option<String>,
    /// run.json, with what only a reader can know.
    pub(crate) run: RunRecord,
    /// Agents; for a run that has ended its nodes, without a state.
    pub(crate) nodes: Vec<NodeStatus>,
    /// Service replicas.
    pub(crate) services: Vec<ReplicaStatus>,
    /// Loads that run or ran.
    pub(crate) loads: Vec<LoadStatus>,
}

impl RunView {
    /// Looks at a run.
    ///
    /// # Errors
    /// If its run.json cannot be read.
    pub(crate) fn of(run: &RunFolder) -> crate::error::Result<Self> {
        let mut record = run.record()?;
        let (liveness, silence, status) = match liveness(run, &mut record) {
            Liveness::Ended => ("ended", None, None),
            Liveness::Alive(status) => ("alive", None, Some(status)),
            Liveness::Silent(reason) => ("silent", Some(reason), None),
            Liveness::Lost => ("lost", None, None),
        };
        let folder = run.path().to_string_lossy().into_owned();
        let (nodes, services, loads) = match status {
            Some(status) => {
                let RunStatus { run: _, nodes, services, loads } = *status;
                (nodes, services, loads)
            }
            None => (nodes_of(run), services_of(run), loads_of(run)),
        };
        Ok(Self { folder, liveness, silence, run: record, nodes, services, loads })
    }
}

/// Nodes from files; their state is not known any more.
fn nodes_of(run: &RunFolder) -> Vec<NodeStatus> {
    run.agents()
        .into_iter()
        .map(|agent| NodeStatus { node: agent.node, state: "gone".into(), http: agent.address })
        .collect()
}

fn services_of(run: &RunFolder) -> Vec<ReplicaStatus> {
    run.files()
        .endpoints()
        .into_iter()
        .map(|endpoint| ReplicaStatus {
            service: endpoint.service,
            replica: endpoint.replica,
            node: endpoint.node,
            state: "gone".into(),
            restarts: 0,
            url: Some(endpoint.url),
        })
        .collect()
}

/// Loads from their results.
fn loads_of(run: &RunFolder) -> Vec<LoadStatus> {
    run.results()
        .into_iter()
        .map(|result| LoadStatus {
            load: result.load,
            point: result.point,
            repeat: result.repeat,
            state: if result.complete { "done".into() } else { "incomplete".into() },
            workers: (
                result.plan.workers,
                result.plan.workers,
                u32::try_from(result.lost_workers.len()).unwrap_or(u32::MAX),
            ),
            progress: Delta {
                phase: "ended".into(),
                sent: result.counts.sent,
                ok: result.counts.ok,
                failed: result.counts.failed,
                output_tokens: result.metrics.output_tokens.unwrap_or(0),
                planned: result.counts.planned,
                ..Delta::default()
            },
        })
        .collect()
}

/// `chat p0 r1`: one repeat of a load, for people.
pub(crate) fn load_name(load: &str, point: u32, repeat: u32) -> String {
    format!("{load} p{point} r{repeat}")
}

/// How far a load came, for people.
pub(crate) fn progress_text(load: &LoadStatus) -> String {
    let Delta { phase, sent, ok, failed, in_flight, output_tokens, planned, .. } = &load.progress;
    let (asked, joined, lost) = load.workers;
    if load.state == "joining" {
        return format!("joining, {joined} of {asked} clients");
    }
    let mut text = if phase.is_empty() || load.state != "running" {
        load.state.clone()
    } else {
        phase.clone()
    };
    let of = planned.map_or(String::new(), |planned| format!(" of {planned}"));
    text.push_str(&format!(": {sent}{of} sent, {ok} ok, {failed} failed"));
    if *in_flight > 0 {
        text.push_str(&format!(", {in_flight} in flight"));
    }
    if *output_tokens > 0 {
        text.push_str(&format!(", {output_tokens} tokens"));
    }
    if lost > 0 {
        text.push_str(&format!(", {lost} clients lost"));
    }
    text
}

/// Wall clock as `2026-01-31 12:00:00Z`.
pub(crate) fn wall_clock(epoch_ns: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_nanos(epoch_ns);
    humantime::format_rfc3339_seconds(at).to_string().replacen('T', " ", 1)
}

/// A length of time for people: `1h 2m 3s`, below a minute `3.4s`.
pub(crate) fn length(nanoseconds: u64) -> String {
    let length = Duration::from_nanos(nanoseconds);
    if length < Duration::from_secs(60) {
        return format!("{:.1}s", length.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(length.as_secs())).to_string()
}

/// Nanoseconds since 1970, now.
pub(crate) fn now_epoch_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(wall_clock(1_700_000_000_000_000_000), "2023-11-14 22:13:20Z");
        assert_eq!(length(3_440_000_000), "3.4s");
        assert_eq!(length(3_723_000_000_000), "1h 2m 3s");
    }

    #[test]
    fn progress_says_what_is_known() {
        let mut load = LoadStatus {
            load: "chat".into(),
            point: 0,
            repeat: 0,
            state: "joining".into(),
            workers: (4, 1, 0),
            progress: Delta::default(),
        };
        assert_eq!(progress_text(&load), "joining, 1 of 4 clients");
        load.state = "running".into();
        load.progress = Delta {
            phase: "measure".into(),
            sent: 10,
            ok: 8,
            failed: 1,
            in_flight: 1,
            planned: Some(20),
            ..Delta::default()
        };
        assert_eq!(progress_text(&load), "measure: 10 of 20 sent, 8 ok, 1 failed, 1 in flight");
    }
}
