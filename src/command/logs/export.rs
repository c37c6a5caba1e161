//! `aifb logs export`: copies of a run's logs under the names that scripts of others expect.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aifb_schema::{run::RunRecord, time::When};
use serde_json::json;

use crate::{
    cli::LogsExportArgs,
    error::{CommandError, Result},
    output,
    store::{RunFolder, select},
};

pub(super) fn run(args: &LogsExportArgs) -> Result<i32> {
    let run = select(&args.run)?;
    let record = run.record()?;
    let folder =
        args.to.clone().unwrap_or_else(|| PathBuf::from(format!("logs-{}", record.run_id)));
    let failed = |error| {
        CommandError::incomplete(format!("exporting logs to '{}'", folder.display()), error)
    };
    let written = export(&run, &record, &folder).map_err(failed)?;
    if args.json {
        output::out_json(&json!({ "folder": folder, "files": written }));
    } else {
        for name in written {
            output::out(folder.join(name).display());
        }
    }
    Ok(0)
}

/// Makes all files; their names, relative to the folder.
fn export(run: &RunFolder, record: &RunRecord, folder: &Path) -> std::io::Result<Vec<String>> {
    fs::create_dir_all(folder.join("logs"))?;
    let job = record.job.id.map_or_else(|| record.run_id.clone(), |id| id.to_string());
    let mut written = Vec::new();
    let mut copy = |from: &Path, names: [String; 2]| -> std::io::Result<()> {
        for name in names.into_iter().filter(|name| !name.is_empty() && from.is_file()) {
            let to = folder.join(&name);
            remove(&to)?;
            fs::copy(from, &to)?;
            written.push(name);
        }
        Ok(())
    };
    for replica in run.files().replicas() {
        let name = replica.name();
        let pair =
            |short: &str| [format!("{name}_{short}.log"), format!("logs/{name}_{job}.{short}")];
        copy(&replica.stdout_path(), pair("out"))?;
        copy(&replica.stderr_path(), pair("err"))?;
    }
    if record.job.id.is_some() {
        // Where sbatch puts the output of a job script that names no other place (sbatch(1),
        // --output).
        let name = match record.job.array {
            Some((array, task)) => format!("slurm-{array}_{task}.out"),
            None => format!("slurm-{job}.out"),
        };
        let script = Path::new(&record.submit_dir).join(name);
        copy(&script, [format!("logs/benchmark_{job}.out"), String::new()])?;
    }
    let own = format!("logs/{}.log", record.run_id);
    let events: String = run
        .events()
        .iter()
        .map(|event| {
            let when = When { epoch_ns: event.epoch_ns };
            format!("{when} {} {} {}: {}\n", event.node, event.kind, event.subject, event.message)
        })
        .collect();
    remove(&folder.join(&own))?;
    fs::write(folder.join(&own), events)?;
    written.push(own);
    Ok(written)
}

/// Removes what is in the place of a copy: it may be a link to a file that must not change.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
