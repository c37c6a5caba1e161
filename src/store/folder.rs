//! Reading one run folder. Every file may be missing or half there: the run may have just started,
//! or ended in the middle.

use std::{io, path::Path};

use aifb_runfolder::read;
use aifb_schema::{
    names::{PROTOCOL, file, limit},
    recipe::{self, Recipe, Resolved},
    result::LoadResult,
    run::{AgentRecord, Event, RunRecord},
};

use crate::{
    error::{CommandError, Result},
    programs,
};

/// Bytes of a token: 32 in hexadecimal, and a line end.
const TOKEN_BYTES_MAX: u64 = 1024;

/// The folder of a run that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunFolder {
    files: aifb_runfolder::RunFolder,
}

impl RunFolder {
    /// Takes a folder that has a run.json.
    ///
    /// # Errors
    /// If it has none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(|error| {
            CommandError::usage(format!("opening run folder '{}'", path.display()), error)
        })?;
        let files = aifb_runfolder::RunFolder::new(path);
        if !files.record_path().is_file() {
            return Err(CommandError::usage(
                format!("opening run folder '{}'", files.path().display()),
                format!("it has no {}", file::RUN),
            ));
        }
        Ok(Self { files })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    /// Its files.
    pub(crate) fn files(&self) -> &aifb_runfolder::RunFolder {
        &self.files
    }

    /// run.json.
    ///
    /// # Errors
    /// If it cannot be read or another major version wrote it.
    pub(crate) fn record(&self) -> Result<RunRecord> {
        let path = self.files.record_path();
        let record = self.files.record().map_err(|error| {
            CommandError::incomplete(format!("reading '{}'", path.display()), error)
        })?;
        if record.protocol != PROTOCOL {
            return Err(CommandError::usage(
                format!("reading '{}'", path.display()),
                format!(
                    "written with protocol {}, this program supports {PROTOCOL}",
                    record.protocol
                ),
            )
            .hint(format!("use aifb {}", record.version)));
        }
        // It becomes a part of paths, and the folder may be somebody else's.
        let id = &record.run_id;
        if id.is_empty() || id.starts_with('.') || id.chars().any(|c| c == '/' || c.is_control()) {
            let what = format!("its run id {id:?} is not the name of a folder");
            return Err(CommandError::usage(format!("reading '{}'", path.display()), what));
        }
        Ok(record)
    }

    /// The recipe that is run, without what its points are made from.
    ///
    /// # Errors
    /// As [`Self::resolved`].
    pub(crate) fn recipe(&self) -> Result<Recipe> {
        self.resolved().map(Resolved::into_recipe)
    }

    /// The recipe that is run, as the launcher wrote it. Folders of the first versions have the
    /// submitted recipe only, which is resolved again.
    ///
    /// # Errors
    /// If it is gone or not readable by this version.
    pub(crate) fn resolved(&self) -> Result<Resolved> {
        let path = self.files.resolved_path();
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            CommandError::incomplete(format!("reading '{}'", path.display()), error.to_string())
        };
        match read::text(&path, limit::RESOLVED_BYTES) {
            Ok(json) => Resolved::from_json(json.as_bytes()).map_err(|error| failed(&path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.files.recipe_path();
                let text = read::text(&path, limit::RECIPE_BYTES)
                    .map_err(|error| failed(&path, &error))?;
                recipe::resolve_kept(&text, &self.record()?.sets)
                    .map_err(|complaints| programs::explain(&path.to_string_lossy(), &complaints))
            }
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// The agents that have reported, the coordinator first, then by name.
    pub(crate) fn agents(&self) -> Vec<AgentRecord> {
        let nodes = self.files.nodes();
        let mut agents: Vec<AgentRecord> =
            nodes.iter().filter_map(|node| node.agent().ok()).collect();
        agents.sort_by(|a, b| b.coordinator.cmp(&a.coordinator).then(a.node.cmp(&b.node)));
        agents
    }

    /// The agent that holds the run together.
    pub(crate) fn coordinator(&self) -> Option<AgentRecord> {
        self.agents().into_iter().find(|agent| agent.coordinator)
    }

    /// The run's token, for its owner.
    ///
    /// # Errors
    /// If it cannot be read: the run is somebody else's.
    pub(crate) fn token(&self) -> Result<String> {
        let path = self.files.token_path();
        read::text(&path, TOKEN_BYTES_MAX).map(|text| text.trim().to_owned()).map_err(|error| {
            CommandError::incomplete(format!("reading the run's token '{}'", path.display()), error)
                .hint("only the owner of a run can contact its agents")
        })
    }

    /// All results that are written, by load, point and repeat.
    pub(crate) fn results(&self) -> Vec<LoadResult> {
        self.files.repeats().iter().filter_map(|repeat| repeat.result().ok()).collect()
    }

    /// What has happened so far; lines that cannot be read and a torn last one are left out.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.files.events().map(|events| events.values).unwrap_or_default()
    }
}
