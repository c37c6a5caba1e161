//! Checks of this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use aifb_schema::{names, run::State};
use nix::sys::statvfs::statvfs;

use super::Check;
use crate::{
    cli::RunsDir,
    error::CommandError,
    programs,
    slurm::runner::Call,
    store::{self, Roots},
};

/// Free space of a run root below which there is a warning: a day of samples and request rows of
/// a large run.
const SPACE_BYTES: u64 = 1 << 30;

/// Our own programs: there, and of one version.
pub(super) fn programs() -> Vec<Check> {
    let own = aifb_schema::version_line("aifb");
    let mut checks = vec![Check::ok("aifb", own.clone())];
    for name in [programs::AGENT, programs::LOADGEN] {
        let fix = "install all programs of aifb into one folder: make install";
        let expected = own.replacen("aifb", name, 1);
        let found = programs::find(name)
            .and_then(|path| Call::new(path.clone()).args(["--version"]).run().map(|a| (path, a)));
        checks.push(match found {
            Err(error) => Check::fail(name, error.text, fix),
            Ok((path, answer)) if answer.stdout.trim() == expected => {
                Check::ok(name, format!("{expected} in {}", path.display()))
            }
            Ok((path, answer)) => Check::fail(
                name,
                format!(
                    "{} reports '{}', expected '{expected}'",
                    path.display(),
                    answer.stdout.trim()
                ),
                fix,
            ),
        });
    }
    checks
}

/// What containers need.
pub(super) fn machine() -> Vec<Check> {
    vec![runtime(), image_mounts(), user_namespaces(), instances(), modules()]
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn runtime() -> Check {
    let name = "container runtime";
    for program in ["apptainer", "singularity"] {
        let Some(path) = on_path(program) else { continue };
        let version = Call::new(path.clone()).args(["--version"]).run();
        return match version {
            Ok(answer) if answer.code == Some(0) => {
                Check::ok(name, format!("{} ({})", answer.stdout.trim(), path.display()))
            }
            Ok(answer) => Check::fail(
                name,
                format!("{}: {}", path.display(), answer.complaint()),
                "repair or reinstall it",
            ),
            Err(error) => Check::fail(name, error.text, "repair or reinstall it"),
        };
    }
    let fix = if has_modules() {
        "module load Apptainer (or Singularity) before submitting; services with program: need none"
    } else {
        "install Apptainer; services with program: need none"
    };
    Check::warn(name, "neither apptainer nor singularity on PATH", fix)
}

/// Without both, each start of a SIF unpacks it first.
fn image_mounts() -> Check {
    let name = "image mounts";
    let fuse = Path::new("/dev/fuse");
    let usable = fs::OpenOptions::new().read(true).write(true).open(fuse).is_ok();
    match (on_path("squashfuse").or_else(|| on_path("squashfuse_ll")), usable) {
        (Some(path), true) => Check::ok(name, format!("{} and /dev/fuse", path.display())),
        (None, _) => Check::warn(
            name,
            "squashfuse is not on PATH",
            "install squashfuse on the compute nodes; without it each start unpacks the image \
             first",
        ),
        (Some(_), false) => Check::warn(
            name,
            "/dev/fuse cannot be opened",
            "chmod 666 /dev/fuse on the compute nodes; without it each start unpacks the image \
             first",
        ),
    }
}

fn user_namespaces() -> Check {
    let name = "user namespaces";
    let number =
        |file: &str| fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let most = number("/proc/sys/user/max_user_namespaces");
    let clone = number("/proc/sys/kernel/unprivileged_userns_clone");
    if most == Some(0) || clone == Some(0) {
        return Check::warn(
            name,
            "ordinary users cannot create them",
            "sysctl user.max_user_namespaces=15000 (and kernel.unprivileged_userns_clone=1), or \
             Apptainer's setuid installation",
        );
    }
    Check::ok(name, most.map_or_else(|| "no limit found".into(), |most| format!("at most {most}")))
}

/// Left-over instances of the user keep ports and memory.
fn instances() -> Check {
    let name = "container instances";
    let Some(program) = on_path("apptainer").or_else(|| on_path("singularity")) else {
        return Check::ok(name, "no runtime, no instances");
    };
    let answer = Call::new(program).args(["instance", "list", "--json"]).run();
    let found = answer
        .ok()
        .and_then(|answer| serde_json::from_str::<serde_json::Value>(&answer.stdout).ok())
        .and_then(|value| value.get("instances").and_then(|list| list.as_array().cloned()))
        .unwrap_or_default();
    let names: Vec<&str> =
        found.iter().filter_map(|one| one.get("instance").and_then(|name| name.as_str())).collect();
    if names.is_empty() {
        return Check::ok(name, "none of yours on this machine");
    }
    Check::warn(
        name,
        format!("running: {}", names.join(", ")),
        "aifb does not use instances; stop those that you no longer need: apptainer instance stop \
         NAME",
    )
}

fn has_modules() -> bool {
    ["LMOD_CMD", "MODULESHOME", "MODULES_CMD"].iter().any(|name| env::var_os(name).is_some())
}

fn modules() -> Check {
    let name = "module command";
    if has_modules() {
        Check::ok(name, "there")
    } else {
        Check::ok(name, "none on this machine (not needed when the runtime is on PATH)")
    }
}

/// Where run folders go.
pub(super) fn run_root(given: &RunsDir) -> Vec<Check> {
    let name = "run folders";
    let root = given.runs.clone().unwrap_or_else(Roots::default_root);
    // The nearest folder that is there is where the root would be made.
    let absolute = std::path::absolute(&root).unwrap_or_else(|_| root.clone());
    let there =
        absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or_else(|| Path::new("/"));
    let fix = "name another folder: --runs DIR, or AIFB_RUNS";
    let writable = try_to_write(there);
    let mut checks = Vec::new();
    checks.push(match (writable, statvfs(there)) {
        (Err(error), _) => {
            Check::fail(name, format!("'{}' cannot be written: {error}", there.display()), fix)
        }
        (_, Err(error)) => Check::fail(name, format!("'{}': {error}", there.display()), fix),
        (Ok(()), Ok(space)) => {
            let free = space.blocks_available().saturating_mul(space.fragment_size());
            let seen = format!("'{}', {} GiB free", absolute.display(), free >> 30);
            if free < SPACE_BYTES { Check::warn(name, seen, fix) } else { Check::ok(name, seen) }
        }
    });
    checks.extend(last_run(given));
    checks
}

/// Permissions are not sufficient: quotas, read-only mounts and special file systems do not show.
fn try_to_write(folder: &Path) -> std::io::Result<()> {
    let file = folder.join(format!(".aifb-doctor-{}", std::process::id()));
    fs::write(&file, b"aifb")?;
    fs::remove_file(&file)
}

/// The newest run, where it failed.
fn last_run(given: &RunsDir) -> Option<Check> {
    let run = store::list(&Roots::of(given)).into_iter().next()?;
    let mut record = run.record().ok()?;
    crate::observe::liveness(&run, &mut record);
    let name = "newest run";
    let memory = record.slurm.as_ref().is_some_and(|slurm| slurm.state == "OUT_OF_MEMORY");
    match &record.failure {
        Some(failure) => {
            let error = CommandError::of_run(&record.run_id, failure);
            let seen = error.text.lines().next().unwrap_or_default().to_owned();
            let fix = match (&failure.hint, memory) {
                (_, true) => "the job ran out of memory: request more (slurm: {mem: …})".to_owned(),
                (Some(hint), false) => hint.clone(),
                (None, false) => format!("aifb logs show {}", record.run_id),
            };
            Some(Check::warn(name, seen, &fix))
        }
        None if memory => Some(Check::warn(
            name,
            format!("{}: ended by Slurm, out of memory", record.run_id),
            "request more memory (slurm: {mem: …})",
        )),
        None if record.state == State::Failed => {
            Some(Check::warn(name, format!("{} failed", record.run_id), "aifb status"))
        }
        None => Some(Check::ok(name, format!("{} {}", record.run_id, record.state.as_str()))),
    }
}

/// Whether the variables of a run that this shell has are those of its job.
pub(super) fn inherited() -> Option<Check> {
    let folder = env::var(names::env::RUN_DIR).ok()?;
    if store::present().is_some() {
        return None;
    }
    Some(Check::warn(
        "inherited run",
        format!("AIFB_RUN_DIR is '{folder}', a run of another job: it is ignored"),
        "no action needed; unset the AIFB_ variables to silence this",
    ))
}
