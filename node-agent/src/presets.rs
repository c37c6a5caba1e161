//! The presets of a site: YAML files in the folder that `AIFB_PRESETS` names, one for each kind.
//! `presets` lists all that recipes can name here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::{
    names::{env, exit},
    recipe::{Presets, ServiceKind},
};
use serde_json::json;

use crate::{
    problem::{PROGRAM, complain, print},
    recipe_file::read,
};

/// Most files of the folder: far above any site's services, a bound on what a wrong folder costs.
const FILES_MAX: usize = 256;

/// The presets that are built in, and those of a folder; the folder's own take the place of built-in
/// ones.
///
/// # Errors
/// What is wrong with the folder or its files, in whole lines.
pub(crate) fn known(folder: Option<&Path>) -> Result<Presets, String> {
    let mut presets = Presets::built_in().clone();
    let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(presets);
    };
    for file in files(folder).map_err(|error| wrong(folder, &error.to_string()))? {
        let shown = file.to_string_lossy().escape_debug().to_string();
        let text = read(&file).map_err(|error| wrong(&file, &error.to_string()))?;
        let kind = file.file_stem().unwrap_or_default().to_string_lossy();
        presets.add(&kind, &text, &file.to_string_lossy()).map_err(|found| {
            let lines: Vec<String> = found.iter().map(|one| one.render(&shown)).collect();
            lines.join("\n")
        })?;
    }
    Ok(presets)
}

fn wrong(path: &Path, cause: &str) -> String {
    let shown = path.to_string_lossy().escape_debug().to_string();
    format!(
        "{PROGRAM}: reading presets '{shown}': {cause}\n  hint: {} names a folder with one YAML file \
         for each kind",
        env::PRESETS
    )
}

/// The YAML files of a folder, in the order of their names.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} files")));
        }
    }
    files.sort();
    Ok(files)
}

/// Runs the command `presets`: one JSON document; its exit code.
pub(crate) fn main() -> i32 {
    let folder = std::env::var_os(env::PRESETS).map(PathBuf::from);
    let presets = match known(folder.as_deref()) {
        Ok(presets) => presets,
        Err(messages) => {
            complain(&messages);
            return exit::USAGE;
        }
    };
    let own = ServiceKind::OWN.iter().map(|(kind, description)| {
        json!({"kind": kind, "description": description, "origin": "built in"})
    });
    let listed = presets.iter().map(|(kind, known)| {
        json!({
            "kind": kind,
            "description": known.preset.description,
            "origin": known.origin.to_string(),
            "usual_port": known.preset.usual_port,
            "text": known.text,
        })
    });
    print(&serde_json::Value::Array(listed.chain(own).collect()).to_string());
    exit::OK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_adds_kinds_and_takes_the_place_of_built_in_ones() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("mine.yaml", "description: mine\nimage: mine.sif\n");
        write("vllm.yaml", "description: ours\nimage: /apps/vllm.sif\n");
        write("notes.txt", "not a preset");
        let presets = known(Some(folder.path())).unwrap();
        let origin = |kind: &str| presets.get(kind).unwrap().origin.to_string();
        assert_eq!(origin("ollama"), "built in");
        for kind in ["mine", "vllm"] {
            assert!(origin(kind).ends_with(&format!("{kind}.yaml")), "{}", origin(kind));
        }
        assert_eq!(known(None).unwrap(), *Presets::built_in());
        assert_eq!(known(Some(Path::new(""))).unwrap(), *Presets::built_in());
    }

    #[test]
    fn what_is_wrong_in_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none");
        let cause = known(Some(&none)).unwrap_err();
        assert!(cause.contains("none': No such file") && cause.contains("AIFB_PRESETS"), "{cause}");
        fs::write(folder.path().join("bad.yaml"), "description: d\nimag: x\n").unwrap();
        let cause = known(Some(folder.path())).unwrap_err();
        assert!(cause.contains("bad.yaml:2:1: unknown key 'imag'"), "{cause}");
        fs::remove_file(folder.path().join("bad.yaml")).unwrap();
        fs::create_dir(folder.path().join("dir.yaml")).unwrap();
        let cause = known(Some(folder.path())).unwrap_err();
        assert!(cause.contains("it is a folder, not a regular file"), "{cause}");
    }
}
