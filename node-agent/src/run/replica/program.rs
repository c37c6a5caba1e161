//! Programs of this node.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Whether a path can be executed.
pub(super) fn executable(path: &Path) -> Result<(), String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        Err("it is a folder".to_owned())
    } else if metadata.permissions().mode() & 0o111 == 0 {
        Err("it is not executable".to_owned())
    } else {
        Ok(())
    }
}

/// Finds a program on the PATH of the job.
pub(super) fn on_path(environment: &BTreeMap<String, String>, name: &str) -> Option<PathBuf> {
    let listed = environment.get("PATH").map_or("/usr/bin:/bin", String::as_str);
    let mut paths = listed.split(':').map(|folder| Path::new(folder).join(name));
    paths.find(|path| path.is_absolute() && executable(path).is_ok())
}
