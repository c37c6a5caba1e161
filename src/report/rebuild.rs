//! A result that no leader wrote, because the coordinator or all workers were lost: the load
//! generator makes it again from the workers' files (`aifb-loadgen merge`).

use aifb_runfolder::RepeatFolder;
use aifb_schema::{control::LoadPlan, names::exit, result::LoadResult};

use crate::{programs, slurm::runner::Call, store::RunFolder};

/// Makes the result of a repeat from what is in its folder.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn rebuild(run: &RunFolder, repeat: &RepeatFolder) -> Result<LoadResult, String> {
    let plan = plan(run, repeat)?;
    let input = serde_json::to_vec(&plan).map_err(|error| error.to_string())?;
    let program = programs::find(programs::LOADGEN).map_err(|error| error.text)?;
    let answer =
        Call::new(program).args(["merge"]).input(input).run().map_err(|error| error.text)?;
    if answer.code != Some(exit::OK) {
        return Err(answer.complaint());
    }
    serde_json::from_str(&answer.stdout).map_err(|error| error.to_string())
}

/// The plan as the recipe has it. What only a running load needs is left out: the merge opens no
/// connection.
fn plan(run: &RunFolder, repeat: &RepeatFolder) -> Result<LoadPlan, String> {
    let (load, point) = (repeat.load(), repeat.point());
    let resolved = run.resolved().map_err(|error| error.text)?;
    let chosen = resolved.point(usize::try_from(point).unwrap_or(usize::MAX))?;
    let load = chosen.recipe.load.into_iter().find(|one| one.name.as_str() == load);
    Ok(LoadPlan {
        run_id: run.record().map_err(|error| error.text)?.run_id,
        folder: repeat.path().to_string_lossy().into_owned(),
        load: load.ok_or_else(|| format!("the recipe has no load '{}'", repeat.load()))?,
        point,
        settings: chosen.settings,
        repeat: repeat.repeat(),
        // The workers' records know it.
        size: 0,
        rank: None,
        endpoints: run.files().endpoints(),
        model: None,
        secrets: std::collections::BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_plan_comes_from_the_recipe() {
        let temporary = tempfile::tempdir().unwrap();
        let (_, folder) = fixture::all().into_iter().next().unwrap();
        folder.write(temporary.path());
        let run = RunFolder::open(temporary.path()).unwrap();
        let found = plan(&run, &run.files().repeat("chat", 0, 3)).unwrap();
        assert_eq!((found.load.name.as_str(), found.point, found.repeat), ("chat", 0, 3));
        assert!(found.folder.ends_with("load/chat/p0/r3"));
        assert_eq!(found.load.seed, 42, "the run's overrides hold");
        for (load, point, reason) in [("chat", 1, "has no point 1"), ("other", 0, "has no load")] {
            let repeat = run.files().repeat(load, point, 0);
            assert!(plan(&run, &repeat).unwrap_err().contains(reason), "{repeat}");
        }
    }
}
