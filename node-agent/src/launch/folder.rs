//! The run folder: made once, by the launcher.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use aifb_runfolder::write;
use aifb_schema::{
    recipe::Resolved,
    run::{Failure, Owner, RunRecord},
};

use crate::event;

/// A run folder of ours.
#[derive(Debug)]
pub(crate) struct RunFolder {
    files: aifb_runfolder::RunFolder,
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
        let files = aifb_runfolder::RunFolder::new(path);
        let mut resolved = serde_json::to_string_pretty(content.resolved)
            .map_err(|error| failed("writing", &files.resolved_path(), &error.into()))?;
        resolved.push('\n');
        for (path, mode, text) in [
            (files.lock_path(), write::MODE_PRIVATE, pid.as_str()),
            (files.token_path(), write::MODE_PRIVATE, content.token),
            (files.recipe_path(), 0o644, content.recipe),
            (files.resolved_path(), 0o644, &resolved),
        ] {
            write::create(&path, mode, text.as_bytes())
                .map_err(|error| failed("writing", &path, &error))?;
        }
        Ok(Self { files, text })
    }

    /// Its absolute path.
    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    /// Its files.
    pub(crate) fn files(&self) -> &aifb_runfolder::RunFolder {
        &self.files
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
        write::replace_json(&self.files.record_path(), write::MODE, record)
    }

    /// run.json as it is; `None` if it cannot be read.
    pub(crate) fn read_record(&self) -> Option<RunRecord> {
        self.files.record().ok()
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
        let line = write::line(&event::now(node, kind, subject, message))?;
        write::append(&self.files.events_path(), write::MODE)?.write_all(&line)
    }

    /// The launcher's log, to append to.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn log(&self) -> io::Result<File> {
        write::append(&self.files.launch_log_path(), write::MODE)
    }
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
        assert_eq!(mode(&folder.files().token_path()), 0o600);
        let failure = RunFolder::create(root.path(), "c-1", &content).unwrap_err();
        assert!(failure.reason.contains("already has a run"), "{}", failure.reason);
    }
}
