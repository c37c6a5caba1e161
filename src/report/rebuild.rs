//! A result that no leader wrote, because the coordinator or all workers were lost: the load
//! generator makes it again from the workers' files (`aifb-loadgen merge`).

use std::path::Path;

use aifb_schema::{control::LoadPlan, names::exit, result::LoadResult};

use crate::{programs, slurm::runner::Call, store::RunFolder};

/// Makes the result of the repeat `<load>/p<point>/r<repeat>` from what is in `folder`.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn rebuild(run: &RunFolder, folder: &Path, name: &str) -> Result<LoadResult, String> {
    let plan = plan(run, folder, name)?;
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
fn plan(run: &RunFolder, folder: &Path, name: &str) -> Result<LoadPlan, String> {
    let mut parts = name.split('/');
    let (load, point, repeat) =
        (parts.next(), number(parts.next(), 'p'), number(parts.next(), 'r'));
    let (Some(load), Some(point), Some(repeat)) = (load, point, repeat) else {
        return Err(format!("'{name}' is no <load>/p<point>/r<repeat>"));
    };
    let resolved = run.resolved().map_err(|error| error.text)?;
    let chosen = resolved.point(usize::try_from(point).unwrap_or(usize::MAX))?;
    let load = chosen.recipe.load.into_iter().find(|one| one.name.as_str() == load);
    Ok(LoadPlan {
        run_id: run.record().map_err(|error| error.text)?.run_id,
        folder: folder.to_string_lossy().into_owned(),
        load: load.ok_or_else(|| format!("the recipe has no load for '{name}'"))?,
        point,
        settings: chosen.settings,
        repeat,
        // The workers' records know it.
        size: 0,
        rank: None,
        endpoints: run.endpoints(),
        model: None,
        secrets: std::collections::BTreeMap::new(),
    })
}

fn number(part: Option<&str>, letter: char) -> Option<u32> {
    part?.strip_prefix(letter)?.parse().ok()
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
        let found = plan(&run, Path::new("/x"), "chat/p0/r3").unwrap();
        assert_eq!((found.load.name.as_str(), found.point, found.repeat), ("chat", 0, 3));
        assert_eq!(found.load.seed, 42, "the run's overrides hold");
        for (name, reason) in [
            ("chat", "is no <load>"),
            ("chat/0/r0", "is no <load>"),
            ("chat/p1/r0", "has no point 1"),
            ("other/p0/r0", "has no load"),
        ] {
            assert!(plan(&run, Path::new("/x"), name).unwrap_err().contains(reason), "{name}");
        }
    }
}
