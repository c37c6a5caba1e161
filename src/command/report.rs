//! `aifb report`.

use aifb_schema::recipe::{ReportFormat, VerdictPolicy};

use crate::{
    cli::ReportArgs,
    error::Result,
    observe::{Liveness, liveness},
    output,
    report::{self, Life},
    store::select,
};

pub(super) fn run(args: &ReportArgs) -> Result<i32> {
    let run = select(&args.run)?;
    let mut record = run.record()?;
    let life = match liveness(&run, &mut record) {
        Liveness::Ended | Liveness::Lost => Life::Over,
        Liveness::Alive(_) => Life::GoesOn,
        Liveness::Silent(reason) => Life::Silent(reason),
    };
    let report = report::build(&run, record, &life, &|repeat| report::rebuild(&run, repeat));
    let text = report::text(&report, &run.path().to_string_lossy());
    let recipe = run.recipe().ok();
    let text_asked =
        recipe.as_ref().is_some_and(|recipe| recipe.report.contains(&ReportFormat::Text));
    if let Err(reason) = report::write(run.path(), &report, text_asked.then_some(text.as_str())) {
        output::note(format!("aifb: {reason}"));
    }
    if args.json {
        output::out_json(&report);
    } else {
        output::out_raw(text.as_bytes());
    }
    let fails = |load: &str| {
        args.strict
            || recipe.as_ref().is_some_and(|recipe| {
                recipe
                    .load
                    .iter()
                    .any(|one| one.name.as_str() == load && one.verdicts == VerdictPolicy::Fail)
            })
    };
    Ok(report::exit_code(&report, fails))
}
