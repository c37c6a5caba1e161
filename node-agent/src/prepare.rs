//! `prepare`: reads and checks a recipe as the user, prints its snapshot.

use std::path::{Path, PathBuf};

use aifb_schema::{
    names::{PROTOCOL, env, exit},
    recipe,
    snapshot::{Snapshot, Wait, sha256_hex},
};

use crate::{
    presets,
    problem::{PROGRAM, complain, print},
    recipe_file::read,
};

/// Arguments of `prepare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Recipe file (YAML or JSON).
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Override one field of the recipe, such as load.chat.seed=3; repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Root of the run folders.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// What the job script waits for.
    #[arg(long, default_value = "healthy", value_parser = ["healthy", "none"])]
    wait: String,
    /// Print the resolved recipe, too: a second line of JSON.
    #[arg(long)]
    resolved: bool,
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    match prepare(arguments) {
        Ok(lines) => {
            print(&lines);
            exit::OK
        }
        Err(messages) => {
            complain(&messages);
            exit::USAGE
        }
    }
}

/// The snapshot's line, and that of the resolved recipe where it is asked for; or all that is wrong.
fn prepare(arguments: &Arguments) -> Result<String, String> {
    let shown = arguments.recipe.to_string_lossy().escape_debug().to_string();
    let text = read(&arguments.recipe).map_err(|error| {
        format!("{PROGRAM}: reading recipe '{shown}': {error}\n  hint: {}", error.hint())
    })?;
    let folder = std::env::var_os(env::PRESETS).map(PathBuf::from);
    let presets = presets::known(folder.as_deref())?;
    let resolved = recipe::resolve(&text, &arguments.set, &presets).map_err(|diagnostics| {
        let lines: Vec<String> = diagnostics.iter().map(|found| found.render(&shown)).collect();
        lines.join("\n")
    })?;
    let recipe_path = absolute(&arguments.recipe, "recipe")?;
    let from_variable = || std::env::var_os(env::RUNS).filter(|v| !v.is_empty()).map(PathBuf::from);
    let runs = arguments.runs.clone().or_else(from_variable);
    let runs = runs.map(|folder| absolute(&folder, "run folders")).transpose()?;
    let snapshot = Snapshot {
        protocol: PROTOCOL,
        recipe_path,
        sha256: sha256_hex(text.as_bytes()),
        recipe: text,
        sets: arguments.set.clone(),
        runs,
        wait: if arguments.wait == "none" { Wait::None } else { Wait::Healthy },
    };
    let packing = |error: String| {
        format!("{PROGRAM}: packing recipe '{shown}': {error}\n  hint: shorten it; comments count")
    };
    let mut lines = snapshot.encode().map_err(|error| packing(error.to_string()))?;
    if arguments.resolved {
        let json = serde_json::to_string(&resolved).map_err(|error| packing(error.to_string()))?;
        lines.push('\n');
        lines.push_str(&json);
    }
    Ok(lines)
}

fn absolute(path: &Path, what: &str) -> Result<String, String> {
    let wrong = |cause: &str| {
        let shown = path.to_string_lossy().escape_debug().to_string();
        format!("{PROGRAM}: using path '{shown}' for {what}: {cause}")
    };
    let path = std::path::absolute(path).map_err(|error| wrong(&error.to_string()))?;
    let text = path.to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(wrong("it has control characters"));
    }
    Ok(text.to_owned())
}
