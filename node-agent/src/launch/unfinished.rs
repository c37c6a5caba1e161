//! What agents that were killed have left undone, and their launcher does in their place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::{
    control::AgentStart,
    names::file,
    recipe::{Receiver, Recipe},
};

use crate::{
    export::{remote, targets},
    run::secrets::{self, Resolver},
};

/// What is needed for it; nothing while no agent was started.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    remote_write: Option<(Receiver, Resolver)>,
    /// The file that tells Prometheus where the agents are.
    targets: Option<PathBuf>,
}

impl Unfinished {
    /// Of the agents that are started so.
    pub(super) fn new(recipe: &Recipe, start: AgentStart) -> Self {
        let AgentStart { token, environment, run, .. } = start;
        let submit_dir = Path::new(&run.submit_dir);
        let folder = recipe.monitor.targets.as_ref();
        let folder = folder.map(|folder| secrets::expand(folder, submit_dir, &environment));
        let targets = folder.map(|folder| targets::file_of(&folder, &run.run_id));
        let receiver = recipe.monitor.remote_write.clone();
        let resolver = || Resolver::outside(token, environment, submit_dir.to_owned());
        Self { remote_write: receiver.map(|receiver| (receiver, resolver())), targets }
    }

    /// Does what the agents have not done, once all of them have ended; what went wrong.
    pub(super) fn finish(&self, run_dir: &Path) -> Vec<String> {
        let undone = [self.withdraw_targets(), self.end_series(run_dir)];
        undone.into_iter().filter_map(Result::err).collect()
    }

    fn withdraw_targets(&self) -> Result<(), String> {
        let Some(file) = &self.targets else { return Ok(()) };
        match fs::remove_file(file) {
            // The coordinator has removed it, or the folder was never there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| format!("removing '{}': {error}", file.display())),
        }
    }

    fn end_series(&self, run_dir: &Path) -> Result<(), String> {
        let Some((receiver, resolver)) = &self.remote_write else { return Ok(()) };
        let nodes = fs::read_dir(run_dir.join(file::NODES)).into_iter().flatten().flatten();
        let stale =
            remote::StaleSeries::of(nodes.map(|node| node.path().join(file::REMOTE_SERIES)));
        if stale.is_empty() {
            return Ok(());
        }
        let to = resolver.receiver("monitor.remote_write", receiver);
        let to = to.map_err(|error| format!("ending the series of killed agents: {error:#}"))?;
        stale.end(to);
        Ok(())
    }
}
