//! Reading one run folder. Every file may be missing or half there: the run may have just begun,
//! or ended in the middle.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::{PROTOCOL, file},
    recipe::{self, Presets, Recipe, Resolved},
    result::LoadResult,
    run::{AgentRecord, Endpoint, Event, RunRecord, repeat_folder},
};
use serde::de::DeserializeOwned;

use crate::{
    error::{CommandError, Result},
    programs,
};

/// The folder of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunFolder {
    path: PathBuf,
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
        if !path.join(file::RUN).is_file() {
            return Err(CommandError::usage(
                format!("opening run folder '{}'", path.display()),
                format!("it has no {}", file::RUN),
            ));
        }
        Ok(Self { path })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// run.json.
    ///
    /// # Errors
    /// If it cannot be read or another major version wrote it.
    pub(crate) fn record(&self) -> Result<RunRecord> {
        let path = self.path.join(file::RUN);
        let text = fs::read(&path).map_err(|error| {
            CommandError::incomplete(format!("reading '{}'", path.display()), error)
        })?;
        let record: RunRecord = serde_json::from_slice(&text).map_err(|error| {
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
        let path = self.path.join(file::RESOLVED);
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            CommandError::incomplete(format!("reading '{}'", path.display()), error.to_string())
        };
        match fs::read(&path) {
            Ok(json) => Resolved::from_json(&json).map_err(|error| failed(&path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.path.join(file::RECIPE);
                let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
                recipe::resolve(&text, &self.record()?.sets, Presets::built_in())
                    .map_err(|complaints| programs::explain(&path.to_string_lossy(), &complaints))
            }
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// The agents that have reported, the coordinator first, then by name.
    pub(crate) fn agents(&self) -> Vec<AgentRecord> {
        let mut agents: Vec<AgentRecord> = subfolders(&self.path.join(file::NODES))
            .into_iter()
            .filter_map(|node| read_json(&node.join(file::AGENT)))
            .collect();
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
        let path = self.path.join(file::TOKEN);
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|error| {
            CommandError::incomplete(format!("reading the run's token '{}'", path.display()), error)
                .hint("only the owner of a run can contact its agents")
        })
    }

    /// Where services answer, by service and replica.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = self
            .service_folders()
            .into_iter()
            .filter_map(|(_, folder)| read_json(&folder.join(file::ENDPOINT)))
            .collect();
        endpoints.sort_by(|a, b| a.service.cmp(&b.service).then(a.replica.cmp(&b.replica)));
        endpoints
    }

    /// Folders of service replicas with their names, in the order of names.
    pub(crate) fn service_folders(&self) -> Vec<(String, PathBuf)> {
        named(subfolders(&self.path.join(file::SERVICES)))
    }

    /// Folders of nodes with their names.
    pub(crate) fn node_folders(&self) -> Vec<(String, PathBuf)> {
        named(subfolders(&self.path.join(file::NODES)))
    }

    /// Folder of one repeat of a load.
    pub(crate) fn repeat_folder(&self, load: &str, point: u32, repeat: u32) -> PathBuf {
        self.path.join(repeat_folder(load, point, repeat))
    }

    /// The result of one repeat of a load, once it is written.
    pub(crate) fn result(&self, load: &str, point: u32, repeat: u32) -> Option<LoadResult> {
        read_json(&self.repeat_folder(load, point, repeat).join(file::RESULT))
    }

    /// All results that are written, by load, point and repeat.
    pub(crate) fn results(&self) -> Vec<LoadResult> {
        let mut results: Vec<LoadResult> = subfolders(&self.path.join(file::LOAD))
            .iter()
            .flat_map(|load| subfolders(load))
            .flat_map(|point| subfolders(&point))
            .filter_map(|repeat| read_json(&repeat.join(file::RESULT)))
            .collect();
        results.sort_by(|a, b| (&a.load, a.point, a.repeat).cmp(&(&b.load, b.point, b.repeat)));
        results
    }

    /// The lowest repeat number from which on none was started.
    pub(crate) fn next_repeat(&self, load: &str, point: u32) -> u32 {
        let first = self.repeat_folder(load, point, 0);
        let folders = first.parent().map(subfolders).unwrap_or_default();
        named(folders)
            .iter()
            .filter_map(|(name, _)| name.strip_prefix('r')?.parse::<u32>().ok())
            .map(|number| number + 1)
            .max()
            .unwrap_or(0)
    }

    /// What has happened so far; a torn last line is left out.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.path.join(file::EVENTS)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut folders: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn named(folders: Vec<PathBuf>) -> Vec<(String, PathBuf)> {
    folders
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)))
        .collect()
}
