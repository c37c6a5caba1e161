//! `aifb list`.

use crate::{
    cli::ListArgs,
    error::Result,
    observe::view::{self, RunView},
    output,
    store::{self, Roots},
};

pub(super) fn run(args: &ListArgs) -> Result<i32> {
    let roots = Roots::of(&args.root);
    // A folder that cannot be read is somebody else's, or not a run.
    let runs: Vec<RunView> = store::list(&roots)
        .iter()
        .filter_map(|run| RunView::of(run).ok())
        .filter(|view| !args.active || matches!(view.liveness, "alive" | "silent"))
        .collect();
    if args.json {
        output::out_json(&runs);
        return Ok(0);
    }
    if runs.is_empty() {
        let shown: Vec<String> =
            roots.paths().iter().map(|root| format!("'{}'", root.display())).collect();
        output::note(format!("no runs in {}", shown.join(", ")));
        return Ok(0);
    }
    let mut rows =
        vec![["RUN", "NAME", "STATE", "STARTED", "LENGTH", "LOADS"].map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(row));
    output::out(output::table(&rows).trim_end());
    Ok(0)
}

fn row(view: &RunView) -> Vec<String> {
    let run = &view.run;
    let end = match (&run.ended, view.liveness) {
        (Some(ended), _) => Some(ended.epoch_ns),
        (None, "alive") => Some(view::now_epoch_ns()),
        (None, _) => None,
    };
    vec![
        run.run_id.clone(),
        run.name.clone(),
        run.state.as_str().to_owned(),
        view::wall_clock(run.started_epoch_ns),
        end.map_or_else(
            || "unknown".into(),
            |end| view::length(end.saturating_sub(run.started_epoch_ns)),
        ),
        view.loads.len().to_string(),
    ]
}
