//! Stand-ins for Slurm's commands: small shell scripts that note how they were called.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::programs::Place;

/// Makes a command of this name; `body` is its script, with `$log` for the file it notes in.
pub(crate) fn make(place: &Place, name: &str, body: &str) {
    let folder = folder(place);
    fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\nlog='{}/{name}.log'\nfor word in \"$@\"; do printf '%s\\n' \"$word\" >> \"$log\"; done\n{body}\n",
        folder.display()
    );
    let path = folder.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A place with stand-ins in front of PATH.
pub(crate) fn place() -> Place {
    let mut place = Place::new();
    // Nothing of a real Slurm on this machine: only what the scripts themselves need.
    let tools = place.folder.path().join("tools");
    fs::create_dir_all(&tools).unwrap();
    for tool in ["cat", "sh", "sleep", "env", "grep", "touch", "mkdir", "date"] {
        let real =
            ["/usr/bin", "/bin"].iter().map(|f| PathBuf::from(f).join(tool)).find(|p| p.exists());
        std::os::unix::fs::symlink(real.unwrap(), tools.join(tool)).unwrap();
    }
    place.path = format!("{}:{}", folder(&place).display(), tools.display());
    place
}

fn folder(place: &Place) -> PathBuf {
    place.folder.path().join("slurm")
}

/// The words that a command was called with, all calls together.
pub(crate) fn called(place: &Place, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder(place).join(format!("{name}.log"))).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
