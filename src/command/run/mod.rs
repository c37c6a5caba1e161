//! `aifb run`: a whole benchmark with one command, as a Slurm job or on this machine.

mod follow;
mod local;
mod script;
mod submission;

use std::path::Path;

use aifb_schema::{names::exit, snapshot::Wait};
use serde_json::json;

use crate::{
    cli::{PluginUse, ReportArgs, RunArgs, RunSelector, RunsDir},
    error::{CommandError, Result},
    output,
    programs::{self, Prepared},
    shell,
    slurm::sbatch::{self, Script, Submission},
};

pub(super) fn run(args: &RunArgs) -> Result<i32> {
    let mut sets = args.input.overrides.sets.clone();
    if args.sequential {
        sets.push("start=sequential".into());
    }
    sets.extend(args.pushgateway.iter().map(|url| format!("monitor.pushgateway={url}")));
    let prepared =
        programs::prepare(&args.input.recipe, &sets, args.root.runs.as_deref(), Wait::Healthy);
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return refused(error, args.json),
    };
    if args.local {
        return local::run(args, &prepared);
    }
    in_slurm(args, &prepared).or_else(|error| match error.code {
        exit::SLURM | exit::USAGE => refused(error, args.json),
        _ => Err(error),
    })
}

fn in_slurm(args: &RunArgs, prepared: &Prepared) -> Result<i32> {
    let plugin = use_plugin(args)?;
    let submission = submission::build(args, prepared, plugin)?;
    if args.dry_run {
        show(&submission, plugin, args.json);
        return Ok(0);
    }
    let job = submission.submit()?;
    if args.no_wait {
        if args.json {
            output::out_json(&json!({"ok": true, "job_id": job}));
        } else {
            output::out(format!("ok {job}"));
        }
        return Ok(0);
    }
    if !args.json {
        output::out(format!("ok {job}"));
    }
    follow::follow(job, prepared, args.json)
}

/// Whether the plugin starts the run.
fn use_plugin(args: &RunArgs) -> Result<bool> {
    match args.plugin {
        PluginUse::Never => Ok(false),
        PluginUse::Auto => match sbatch::knows_plugin("sbatch") {
            Err(error) if args.dry_run => {
                output::note(format!("{error}\naifb: showing the submission without the plugin"));
                Ok(false)
            }
            known => known,
        },
        PluginUse::Always if sbatch::knows_plugin("sbatch")? => Ok(true),
        PluginUse::Always => Err(CommandError::slurm(
            "submitting with the plugin",
            "sbatch does not know --aifb-recipe here",
        )
        .hint("the plugin is not in plugstack.conf of this node: aifb doctor; or --plugin auto")),
    }
}

/// Answers `ko` and the reason.
fn refused(error: CommandError, as_json: bool) -> Result<i32> {
    if as_json {
        output::out_json(&json!({"ok": false, "reason": error.text, "hint": error.hint}));
    } else {
        output::out("ko");
        output::note(&error);
    }
    Ok(error.code)
}

/// Prints exactly what would be submitted: a command that can be pasted into a shell.
fn show(submission: &Submission, plugin: bool, as_json: bool) {
    let argv = submission.argv();
    if as_json {
        let script = match &submission.script {
            Script::Text(text) => Some(text),
            Script::File { .. } => None,
        };
        output::out_json(&json!({"argv": argv, "script": script, "plugin": plugin}));
        return;
    }
    let line = shell::line(&argv);
    match &submission.script {
        Script::File { .. } => output::out(line),
        Script::Text(text) => {
            output::out(format!("{line} <<'END_OF_JOB_SCRIPT'"));
            output::out(format!("{}\nEND_OF_JOB_SCRIPT", text.trim_end()));
        }
    }
}

/// Prints the report of a run that has ended; a run without results has none worth failing for.
fn report(folder: &Path) {
    let args = ReportArgs {
        run: RunSelector {
            run: Some(folder.to_string_lossy().into_owned()),
            root: RunsDir::default(),
        },
        json: false,
        strict: false,
    };
    if let Err(error) = super::report::run(&args) {
        output::note(error);
    }
}
