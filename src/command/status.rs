//! `aifb status`.

use crate::{
    cli::StatusArgs,
    error::Result,
    observe::view::{self, RunView},
    output,
    store::select,
};

pub(super) fn run(args: &StatusArgs) -> Result<i32> {
    let view = RunView::of(&select(&args.run)?)?;
    if args.json {
        output::out_json(&view);
    } else {
        output::out(output::table(&rows(&view)).trim_end());
    }
    Ok(0)
}

fn rows(view: &RunView) -> Vec<Vec<String>> {
    let run = &view.run;
    let mut rows = Vec::new();
    let mut row = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
    row("run", format!("{} ({}, {})", run.run_id, run.name, run.mode));
    row("state", state_text(view));
    if let Some(silence) = &view.silence {
        row("silent", silence.clone());
    }
    row("started", view::wall_clock(run.started_epoch_ns));
    if let Some(healthy) = run.healthy_epoch_ns {
        let after = view::length(healthy.saturating_sub(run.started_epoch_ns));
        row("healthy", format!("{after} after the start"));
    }
    if let Some(ended) = &run.ended {
        let by = ended.signal.as_ref().map_or(String::new(), |signal| format!(", by {signal}"));
        row("ended", format!("{}{by}", view::wall_clock(ended.epoch_ns)));
    }
    if let Some(job) = run.job.id {
        let state = run.slurm.as_ref().map_or(String::new(), |slurm| {
            let code = slurm.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
            format!(": {}{code}", slurm.state)
        });
        row("job", format!("{job}{state}"));
    }
    row("folder", view.folder.clone());
    for node in &view.nodes {
        row("node", format!("{} {} {}", node.node, node.state, node.http));
    }
    for service in &view.services {
        let restarts = match service.restarts {
            0 => String::new(),
            1 => ", 1 restart".to_owned(),
            count => format!(", {count} restarts"),
        };
        let url = service.url.as_deref().unwrap_or("no address yet");
        let name = if service.replica == 0 {
            service.service.clone()
        } else {
            format!("{}.{}", service.service, service.replica)
        };
        row("service", format!("{name} {} {url} ({}){restarts}", service.state, service.node));
    }
    for load in &view.loads {
        let name = view::load_name(&load.load, load.point, load.repeat);
        row("load", format!("{name} {}", view::progress_text(load)));
    }
    for warning in &run.warnings {
        row("warning", warning.clone());
    }
    rows
}

/// The state, and why it failed.
pub(super) fn state_text(view: &RunView) -> String {
    match &view.run.failure {
        Some(failure) => format!(
            "{}: {}: {} (cause: {})",
            view.run.state.as_str(),
            failure.part,
            failure.reason,
            failure.owner.as_str()
        ),
        None => view.run.state.as_str().to_owned(),
    }
}
