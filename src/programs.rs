//! The other programs of aifb: where they are, and the one check of them before a submission.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use aifb_schema::{
    names,
    recipe::{self, Resolved},
    snapshot::{Snapshot, Wait},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{CommandError, Result},
    slurm::runner::Call,
};

/// The per-node agent.
pub(crate) const AGENT: &str = "aifb-agent";

/// The load generator.
pub(crate) const LOADGEN: &str = "aifb-loadgen";

/// Longest time for `prepare`: it reads one small file, but maybe from a sleepy file server.
const PREPARE_DEADLINE: Duration = Duration::from_secs(60);

/// A recipe that was accepted.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What travels with the job.
    pub(crate) snapshot: Snapshot,
    /// The same, packed into one line.
    pub(crate) line: String,
    /// The recipe that will be run.
    pub(crate) resolved: Resolved,
}

/// Finds one of our programs: beside this one, in `$AIFB_BIN`, on `PATH`.
///
/// # Errors
/// If it is in none of them.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_path_buf));
    let named = env::var_os(names::env::BIN).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(named)
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            CommandError::usage(
                format!("looking for '{name}'"),
                "not in the folder of aifb, in AIFB_BIN or on PATH",
            )
            .hint("install all programs of aifb into one folder: make install")
        })
}

/// Checks a recipe by the very program that sbatch asks (`aifb-agent prepare`), so that all say
/// the same.
///
/// # Errors
/// Its complaints, word for word, with its exit code.
pub(crate) fn prepare(
    recipe: &Path,
    sets: &[String],
    runs: Option<&Path>,
    wait: Wait,
) -> Result<Prepared> {
    // Option and value in one word: a value may begin with '-'.
    let option = |name: &str, value: &OsStr| {
        let mut word = OsString::from(name);
        word.push(value);
        word
    };
    let mut args: Vec<OsString> = vec!["prepare".into(), option("--recipe=", recipe.as_os_str())];
    args.extend(sets.iter().map(|set| option("--set=", set.as_ref())));
    args.extend(runs.map(|runs| option("--runs=", runs.as_os_str())));
    let wait = match wait {
        Wait::Healthy => "healthy",
        Wait::None => "none",
    };
    args.push(option("--wait=", wait.as_ref()));
    args.push("--resolved".into());
    let answer = Call::new(find(AGENT)?).args(args).deadline(PREPARE_DEADLINE).run()?;
    if answer.code != Some(0) {
        let code = answer.code.unwrap_or(names::exit::USAGE);
        return Err(CommandError::relayed(code, answer.stderr));
    }
    let unexpected = |cause: &str| CommandError::usage("reading the answer of aifb-agent", cause);
    let mut lines = answer.stdout.lines();
    let (Some(line), Some(json)) = (lines.next(), lines.next()) else {
        return Err(unexpected("it has not two lines").hint("all programs must be of one version"));
    };
    let resolved =
        Resolved::from_json(json.as_bytes()).map_err(|error| unexpected(&error.to_string()))?;
    Ok(Prepared { snapshot: unpack(line)?, line: line.to_owned(), resolved })
}

/// The kinds of services that recipes can name here: the answer of `aifb-agent presets`.
///
/// # Errors
/// A wrong file in `AIFB_PRESETS`, in the agent's words.
pub(crate) fn presets() -> Result<Vec<Preset>> {
    let answer = Call::new(find(AGENT)?).args(["presets"]).deadline(PREPARE_DEADLINE).run()?;
    if answer.code != Some(0) {
        let code = answer.code.unwrap_or(names::exit::USAGE);
        return Err(CommandError::relayed(code, answer.stderr));
    }
    serde_json::from_str(&answer.stdout)
        .map_err(|error| CommandError::usage("reading the answer of aifb-agent", error))
}

/// A kind of service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Preset {
    pub(crate) kind: String,
    pub(crate) description: String,
    /// `built in`, or the path of its file.
    pub(crate) origin: String,
    /// Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usual_port: Option<u16>,
    /// The preset's file; absent for `container` and `external`, which have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// Reads a snapshot.
///
/// # Errors
/// If it is damaged, forged or of another version.
pub(crate) fn unpack(line: &str) -> Result<Snapshot> {
    Snapshot::decode(line)
        .map_err(|error| CommandError::usage("reading the job's recipe snapshot", error))
}

/// All complaints about a recipe as one error.
pub(crate) fn explain(path: &str, complaints: &[recipe::Diagnostic]) -> CommandError {
    let lines: Vec<String> = complaints.iter().map(|complaint| complaint.render(path)).collect();
    CommandError::relayed(names::exit::USAGE, lines.join("\n"))
}
