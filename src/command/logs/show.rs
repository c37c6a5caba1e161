//! `aifb logs show` and `follow`: the files that services and agents write, their end or as they grow.

use std::{path::PathBuf, thread};

use aifb_runfolder::ReplicaFolder;
use serde_json::json;

use super::tail::{Line, Shown, Tail};

use crate::{
    cli::LogsArgs,
    error::{CommandError, Result},
    observe::follow::{self, Follower},
    output,
    store::{RunFolder, select},
};

pub(super) fn run(args: &LogsArgs, follow: bool) -> Result<i32> {
    let run = select(&args.run)?;
    let shown = Shown {
        first: usize::try_from(args.lines).unwrap_or(usize::MAX),
        level: args.level.map(Into::into),
        // The agents' own lines are JSON, each complete.
        join: !args.agent,
    };
    let mut tails: Vec<Tail> = Vec::new();
    let mut follower = Follower::new(run.clone());
    loop {
        // Asked before the files are read: what was written before the end is shown.
        let over = !follow || follower.look()?.over;
        for (name, path) in files(&run, args)? {
            if !tails.iter().any(|tail| tail.path == path) {
                tails.push(Tail::new(name, path, shown));
            }
        }
        for tail in &mut tails {
            let name = tail.name.clone();
            let read = tail.look(over, |line| print(&name, &line, args.json));
            if let (Err(error), true) = (read, over) {
                let doing = format!("reading the log '{}'", tail.path.display());
                return Err(CommandError::incomplete(doing, error));
            }
        }
        if over {
            return Ok(0);
        }
        thread::sleep(follow::EVERY);
    }
}

fn print(name: &str, Line { text, level }: &Line, json: bool) {
    if !json {
        return output::out(format!("{name}: {text}"));
    }
    let mut line = json!({"file": name, "text": text});
    if let (Some(level), Some(fields)) = (level, line.as_object_mut()) {
        fields.insert("level".into(), level.as_str().into());
    }
    output::out_json_line(&line);
}

/// The requested files: displayed name and path.
fn files(run: &RunFolder, args: &LogsArgs) -> Result<Vec<(String, PathBuf)>> {
    if args.agent {
        let mut found: Vec<(String, PathBuf)> = run
            .files()
            .nodes()
            .into_iter()
            .map(|node| (format!("{}/agent", node.name()), node.agent_log_path()))
            .collect();
        found.insert(0, ("launcher".into(), run.files().launch_log_path()));
        found.retain(|(_, path)| path.is_file());
        return Ok(found);
    }
    let replicas = run.files().replicas();
    let wanted = |name: &str| {
        args.service.as_ref().is_none_or(|service| {
            name == service
                || name.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    if let Some(service) = &args.service
        && !run
            .recipe()?
            .services
            .iter()
            .any(|known| service.split('.').next() == Some(known.name.as_str()))
    {
        let known: Vec<&str> = replicas.iter().map(ReplicaFolder::name).collect();
        return Err(CommandError::usage(
            format!("looking for the logs of service '{service}'"),
            "the run has no such service",
        )
        .hint(format!("services with logs: {}", known.join(", "))));
    }
    let mut found = Vec::new();
    for replica in replicas.iter().filter(|replica| wanted(replica.name())) {
        let name = replica.name();
        if !args.stderr {
            found.push((format!("{name}/stdout"), replica.stdout_path()));
        }
        if !args.stdout {
            found.push((format!("{name}/stderr"), replica.stderr_path()));
        }
    }
    found.retain(|(_, path)| path.is_file());
    Ok(found)
}
