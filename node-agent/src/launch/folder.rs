//! The run folder: made once, by the launcher.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::file,
    recipe::Resolved,
    run::{Failure, Owner, RunRecord},
};

use crate::event;

/// A run folder of ours.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    text: String,
}

/// What goes into the folder at once.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    /// The recipe as submitted.
    pub(crate) recipe: &'a str,
    /// The recipe as it is run.
    pub(crate) resolved: &'a Resolved,
    /// The run's token.
    pub(crate) token: &'a str,
}

impl RunFolder {
    /// Makes `root`/`run_id` with its first files.
    ///
    /// # Errors
    /// If it exists already (the job has a run), or the system refuses.
    pub(crate) fn create(root: &Path, run_id: &str, content: &Content) -> Result<Self, Failure> {
        let path = root.join(run_id);
        let failed = |doing: &str, path: &Path, error: &io::Error| {
            Failure::new(Owner::Node, "launcher", format!("{doing} '{}': {error}", path.display()))
                .with_hint("choose a writable folder with --aifb-runs or AIFB_RUNS")
        };
        let text = path.to_str().map(str::to_owned).ok_or_else(|| {
            failed("using run folder", &path, &io::Error::other("the path is not UTF-8"))
        })?;
        fs::create_dir_all(root).map_err(|error| failed("making folder", root, &error))?;
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                Failure::new(
                    Owner::Recipe,
                    "launcher",
                    format!("this job already has a run: '{text}' exists"),
                )
                .with_hint("a job has one run; `aifb status` shows it")
            } else {
                failed("making run folder", &path, &error)
            }
        })?;
        let pid = format!("{}\n", std::process::id());
        let mut resolved = serde_json::to_string_pretty(content.resolved)
            .map_err(|error| failed("writing", &path.join(file::RESOLVED), &error.into()))?;
        resolved.push('\n');
        for (name, mode, text) in [
            (file::LOCK, 0o600, pid.as_str()),
            (file::TOKEN, 0o600, content.token),
            (file::RECIPE, 0o644, content.recipe),
            (file::RESOLVED, 0o644, &resolved),
        ] {
            write_new(&path.join(name), mode, text)
                .map_err(|error| failed("writing", &path.join(name), &error))?;
        }
        Ok(Self { path, text })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same as text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Replaces run.json.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn write_record(&self, record: &RunRecord) -> io::Result<()> {
        let temporary = self.path.join(".run.json.launch");
        let mut json = serde_json::to_vec_pretty(record)?;
        json.push(b'\n');
        fs::write(&temporary, json)?;
        fs::rename(&temporary, self.path.join(file::RUN))
    }

    /// run.json as it is; `None` if it cannot be read.
    pub(crate) fn read_record(&self) -> Option<RunRecord> {
        serde_json::from_slice(&fs::read(self.path.join(file::RUN)).ok()?).ok()
    }

    /// Appends a line to events.jsonl.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn event(
        &self,
        node: &str,
        kind: &str,
        subject: &str,
        message: &str,
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(&event::now(node, kind, subject, message))?;
        line.push(b'\n');
        let path = self.path.join(file::EVENTS);
        OpenOptions::new().append(true).create(true).open(path)?.write_all(&line)
    }

    /// The launcher's log, to append to.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn log(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(self.path.join(file::LAUNCH_LOG))
    }
}

/// Writes a file that must not exist yet.
fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::recipe::{Presets, resolve};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_run_of_a_job_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let text = "aifb: 1\nname: t\nservices: [{name: a, kind: container, program: /x}]\n";
        let resolved = resolve(text, &[], Presets::built_in()).unwrap();
        let content = Content { recipe: text, resolved: &resolved, token: "t" };
        let folder = RunFolder::create(root.path(), "c-1", &content).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join(file::TOKEN)), 0o600);
        let failure = RunFolder::create(root.path(), "c-1", &content).unwrap_err();
        assert!(failure.reason.contains("already has a run"), "{}", failure.reason);
    }
}
