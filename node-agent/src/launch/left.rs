//! What agents that were killed have left undone, and their launcher does in their place.

use std::path::Path;

use aifb_schema::{
    control::AgentStart,
    names::file,
    recipe::{Receiver, Recipe},
};

use crate::{export::remote, run::secrets::Resolver};

/// What is needed for it.
#[derive(Debug, Default)]
pub(super) struct Left(Option<(Receiver, Resolver)>);

impl Left {
    /// Of the agents that are started so.
    pub(super) fn new(recipe: &Recipe, start: AgentStart) -> Self {
        let AgentStart { token, environment, run, .. } = start;
        let resolver = || Resolver::outside(token, environment, run.submit_dir.into());
        Self(recipe.monitor.remote_write.clone().map(|receiver| (receiver, resolver())))
    }

    /// Ends the series of all nodes whose agents have not, once all agents have ended; what went
    /// wrong.
    pub(super) fn finish(&self, run_dir: &Path) -> Option<String> {
        let (receiver, resolver) = self.0.as_ref()?;
        let nodes = std::fs::read_dir(run_dir.join(file::NODES)).into_iter().flatten().flatten();
        let left = remote::Left::of(nodes.map(|node| node.path().join(file::REMOTE_SERIES)));
        if left.is_empty() {
            return None;
        }
        match resolver.receiver("monitor.remote_write", receiver) {
            Ok(to) => {
                left.end(to);
                None
            }
            Err(error) => Some(format!("ending the series of killed agents: {error:#}")),
        }
    }
}
