//! What the run is and how it ended.

use std::fmt::Write as _;

use aifb_schema::{
    result::Report,
    run::{RunRecord, State},
};

use crate::{
    observe::view,
    report::model::{Cell, Column, Section, Table},
};

/// The first section, which needs no title.
pub(super) fn section(report: &Report, folder: &str) -> Section {
    let run = &report.run;
    let mut tables = vec![
        Table::words("run", format!("{} ({}, {})", run.run_id, run.name, run.mode)),
        Table::words("state", report.state.as_str()),
    ];
    if let Some(failure) = &run.failure {
        let mut table = Table::line("failure", vec![Column::text("text")]);
        let text = failure.render();
        table.rows.extend(text.lines().map(|line| vec![Cell::text(line)]));
        tables.push(table);
    }
    if let Some(job) = job(run) {
        tables.push(Table::words("job", job));
    }
    let nodes: Vec<String> = run.job.components.iter().map(|nodes| nodes.join(" ")).collect();
    tables.push(Table::words("nodes", nodes.join(" : ")));
    tables.push(Table::words("time", times(run)));
    let sets = match run.sets.as_slice() {
        [] => String::new(),
        sets => format!(", with {}", sets.join(" ")),
    };
    tables.push(Table::words("recipe", format!("{}{sets}", run.recipe_path)));
    tables.push(Table::words("folder", folder));
    if report.results.is_empty() {
        tables.push(Table::words("results", "none yet: no load has completed"));
    }
    Section { title: String::new(), tables }
}

fn job(run: &RunRecord) -> Option<String> {
    let mut text = run.job.id?.to_string();
    if let Some(cluster) = &run.job.cluster {
        let _infallible = write!(text, " on {cluster}");
    }
    if let Some(slurm) = &run.slurm {
        let _infallible = write!(text, ": {}", slurm.state);
        if let Some(code) = slurm.exit_code {
            let _infallible = write!(text, ", exit code {code}");
        }
        if let Some(signal) = slurm.signal {
            let _infallible = write!(text, ", signal {signal}");
        }
        if let Some(reason) = &slurm.reason {
            let _infallible = write!(text, ", {reason}");
        }
    }
    Some(text)
}

fn times(run: &RunRecord) -> String {
    let after = |epoch_ns: u64| view::length(epoch_ns.saturating_sub(run.started_epoch_ns));
    let mut text = format!("started {}", view::wall_clock(run.started_epoch_ns));
    if let Some(healthy) = run.healthy_epoch_ns {
        let _infallible = write!(text, ", healthy after {}", after(healthy));
    }
    if let Some(ended) = &run.ended {
        let _infallible = write!(text, ", ended after {}", after(ended.epoch_ns));
        // Slurm ends the agents of every job with a signal: of a completed run it says nothing.
        if let Some(signal) = ended.signal.as_ref().filter(|_| run.state != State::Completed) {
            let _infallible = write!(text, " by {signal}");
        }
    }
    text
}
