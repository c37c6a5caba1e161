//! From a service of the recipe to programs that can be started.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aifb_schema::{
    recipe::Service,
    run::{Failure, Owner},
};

use super::{folders::Folders, port::Ports, program::executable, supervisor::Launchable};
use crate::run::{
    context::Context,
    secrets::{self, Value},
};

/// Where a replica stands among its service's nodes.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// Replica number; the node's rank for a service across nodes.
    pub(crate) replica: u32,
    /// Addresses of the service's nodes, the head first.
    pub(crate) addresses: Vec<String>,
}

/// All that is needed to start a replica's programs.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    pub(crate) context: &'a Context,
    pub(crate) service: &'a Service,
    pub(crate) position: &'a Position,
    pub(crate) folders: &'a Folders,
    pub(crate) values: &'a BTreeMap<String, Value>,
    pub(crate) gpus: &'a [String],
    pub(crate) ports: &'a Ports,
}

impl Commands<'_> {
    /// The environment that the recipe names, placeholders filled in.
    pub(crate) fn named_environment(&self) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = self
            .values
            .iter()
            .map(|(name, value)| {
                let text = match value {
                    Value::Plain(text) => self.fill(text),
                    Value::Secret(secret) => secret.clone(),
                };
                (name.clone(), text)
            })
            .collect();
        if !self.gpus.is_empty() || self.service.gpus.is_some() {
            env.entry("CUDA_VISIBLE_DEVICES".to_owned()).or_insert_with(|| self.gpus.join(","));
        }
        env
    }

    /// The model as it is passed to the service: an existing path is made absolute.
    pub(crate) fn model_path(&self) -> Option<PathBuf> {
        let path = self.path(self.service.model.as_deref()?);
        path.exists().then_some(path)
    }

    /// A path of the recipe on this node.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        secrets::expand(text, self.context.submit_dir(), &self.context.environment)
    }

    /// Puts values in the place of placeholders; all other braces stay.
    pub(crate) fn fill(&self, text: &str) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        let model = match (self.model_path(), &self.service.model) {
            (Some(path), _) => path.to_string_lossy().into_owned(),
            (None, name) => name.clone().unwrap_or_default(),
        };
        let host = self.context.address.to_string();
        let head = self.position.addresses.first().unwrap_or(&host);
        let mut filled = text.to_owned();
        for (placeholder, value) in [
            ("{port}", self.ports.main.to_string()),
            ("{data}", self.folders.data.to_string_lossy().into_owned()),
            ("{model}", model),
            ("{node_rank}", self.position.replica.to_string()),
            ("{nodes}", self.position.addresses.len().to_string()),
            ("{head}", head.clone()),
            ("{host}", host.clone()),
        ] {
            filled = filled.replace(placeholder, &value);
        }
        for (name, port) in &self.ports.further {
            filled = filled.replace(&format!("{{port:{name}}}"), &port.to_string());
        }
        for name in self.values.keys() {
            let path = self.folders.secrets.join(name);
            filled = filled.replace(&format!("{{secret:{name}}}"), &path.to_string_lossy());
        }
        filled
    }

    /// The same in each of these words.
    pub(crate) fn fill_all(&self, words: &[String]) -> Vec<String> {
        words.iter().map(|word| self.fill(word)).collect()
    }

    /// A program without a container, in the job's own environment.
    ///
    /// # Errors
    /// The program is not there.
    pub(crate) fn bare(&self, mut words: Vec<String>) -> Result<Launchable, Failure> {
        if words.is_empty() {
            return Err(self.wrong("there is no program to start".to_owned()));
        }
        let name = words.remove(0);
        let mut env = self.context.environment.clone();
        env.extend(self.named_environment());
        let program = self.find(&name, &env)?;
        let submit_dir = self.context.submit_dir();
        // Not there on this node: then nothing of the recipe is relative to it either.
        let folder = if submit_dir.is_dir() { submit_dir } else { &self.folders.own };
        Ok(Launchable {
            program,
            args: words,
            env,
            folder: folder.to_owned(),
            scratch: None,
            secrets: Some(self.folders.secrets.clone()),
        })
    }

    /// A program by its path, or on PATH and beside the service's own program.
    fn find(&self, name: &str, env: &BTreeMap<String, String>) -> Result<PathBuf, Failure> {
        let missing = |what: String| {
            self.wrong(what).with_hint(format!("it must exist on node {}", self.context.node))
        };
        if name.contains('/') {
            let path = self.path(name);
            return match executable(&path) {
                Ok(()) => Ok(path),
                Err(cause) => Err(missing(format!("program '{}': {cause}", path.display()))),
            };
        }
        let beside = self.service.program.as_ref().filter(|own| own.contains('/'));
        let beside = beside.and_then(|own| self.path(own).parent().map(Path::to_owned));
        let listed = env.get("PATH").map_or("/usr/bin:/bin", String::as_str);
        let folders = beside.into_iter().chain(listed.split(':').map(PathBuf::from));
        folders
            .map(|folder| folder.join(name))
            .find(|path| executable(path).is_ok())
            .ok_or_else(|| missing(format!("program '{name}' is not on PATH")))
    }

    fn wrong(&self, reason: String) -> Failure {
        Failure::new(Owner::Recipe, self.service.name.as_str(), reason)
    }
}
