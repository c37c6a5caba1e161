//! What is announced about the run while it is active: where its agents show their metrics, and its
//! results.

use std::{path::PathBuf, time::Duration};

use aifb_schema::{gateway, names::file};

use super::{Coordinator, nodes::NodeState};
use crate::{
    export::{
        gateway::Gateway,
        remote::StaleSeries,
        targets::{self, Group},
    },
    run::{
        context::Context,
        secrets::{self, Resolver},
    },
};

/// Longest time for the last word to the Pushgateway; the agents have ended by then.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The receivers of announcements.
pub(super) struct Announced {
    gateway: Option<Gateway>,
    /// The file of targets.
    file: Option<PathBuf>,
    /// What is in it.
    written: Vec<Group>,
}

impl Announced {
    pub(super) fn new(context: &Context) -> Self {
        let monitor = &context.recipe.monitor;
        let run_id = &context.record.run_id;
        let folder = monitor
            .targets
            .as_ref()
            .map(|folder| secrets::expand(folder, context.submit_dir(), &context.environment));
        Self {
            gateway: gateway_url(context).map(|url| Gateway::start(&url, run_id, &context.run_dir)),
            file: folder.map(|folder| targets::file_of(&folder, run_id)),
            written: Vec::new(),
        }
    }

    /// A load has written its result.
    pub(super) fn result_written(&self) {
        if let Some(gateway) = &self.gateway {
            gateway.push();
        }
    }

    /// The run is not completed, but ends: what it pushed is no result of a run.
    pub(super) fn take_back(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.delete();
        }
    }

    /// Waits a little for the gateway.
    pub(super) async fn finish(self) {
        if let Some(gateway) = self.gateway {
            gateway.finish(LAST_WORD).await;
        }
    }
}

fn gateway_url(context: &Context) -> Option<String> {
    let recipe = context.recipe.monitor.pushgateway.as_deref();
    gateway::url(recipe, |name| context.environment.get(name).cloned())
}

impl Coordinator {
    /// Where the agents that are up show their metrics; nowhere once the run ends, so that who asks
    /// in that moment forgets them.
    pub(super) fn targets(&self) -> Vec<Group> {
        if self.over() {
            return Vec::new();
        }
        let up = self.nodes.iter().filter(|node| node.state == NodeState::Up);
        targets::list(&self.record, up.map(|node| node.http.clone()).collect())
    }

    /// Keeps the file of targets up to date.
    pub(super) fn announce_targets(&mut self) {
        let Some(file) = self.announced.file.clone() else { return };
        let targets = self.targets();
        if self.over() || targets == self.announced.written {
            return; // The file goes as a whole, at the end.
        }
        if let Ok(json) = serde_json::to_vec(&targets) {
            self.context.files.replace(&file, 0o644, json);
            self.announced.written = targets;
        }
    }

    /// Ends what a lost agent has sent by remote write, which it cannot do itself any more. On a
    /// thread: file systems and receivers may hang.
    pub(super) fn end_series_of(&self, node: &str) {
        let Some(receiver) = self.context.recipe.monitor.remote_write.clone() else { return };
        let resolver = Resolver::new(&self.context);
        let folder = self.context.run_dir.join(file::NODES).join(node);
        let end = move || {
            let left = StaleSeries::of([folder.join(file::REMOTE_SERIES)]);
            match resolver.receiver("monitor.remote_write", &receiver) {
                _ if left.is_empty() => {}
                Ok(to) => left.end(to),
                Err(error) => tracing::warn!("ending the series of a lost agent: {error:#}"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("lost-agent".into()).spawn(end) {
            tracing::warn!(%error, "no thread to end the series of a lost agent");
        }
    }

    /// Nobody should look for this run's agents any more.
    pub(super) fn withdraw_targets(&self) {
        if let Some(file) = &self.announced.file {
            self.context.files.remove(file);
        }
    }
}
