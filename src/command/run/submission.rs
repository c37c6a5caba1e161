//! What is submitted for a recipe.

use std::{collections::BTreeMap, env, path::PathBuf};

use aifb_schema::{
    names::option,
    recipe::{Recipe, SlurmValue},
};

use super::script;
use crate::{
    cli::RunArgs,
    error::{CommandError, Result},
    programs::Prepared,
    slurm::sbatch::{Script, Submission, option_words},
};

/// Options that a component for clients takes over from the recipe's own section where it says
/// nothing else: whose job it is and how long it may take.
const INHERITED: [&str; 5] = ["account", "partition", "qos", "reservation", "time"];

/// Puts the submission together.
///
/// # Errors
/// If a job script was given that cannot be used.
pub(super) fn build(args: &RunArgs, prepared: &Prepared, plugin: bool) -> Result<Submission> {
    let mut components = components(prepared.resolved.recipe());
    if let Some(first) = components.first_mut() {
        first.extend(args.sbatch.iter().cloned());
        if plugin {
            first.extend(plugin_words(prepared));
        }
    }
    let words = args
        .script
        .iter()
        .map(|word| {
            word.clone().into_string().map_err(|word| {
                CommandError::usage(format!("using '{}'", word.display()), "it is not UTF-8")
            })
        })
        .collect::<Result<Vec<String>>>()?;
    let script = match (words.split_first(), plugin) {
        (None, true) => Script::Text(script::BENCHMARK.to_owned()),
        (Some((path, args)), true) => Script::File { path: path.clone(), args: args.to_vec() },
        (given, false) => {
            let (text, args) = match given {
                None => (script::BENCHMARK.to_owned(), &[][..]),
                Some((path, args)) => (script::read(PathBuf::from(path).as_path())?, args),
            };
            let own = env::current_exe()
                .map_err(|error| CommandError::usage("finding this program", error))?;
            Script::Text(script::with_start(&text, &own, &prepared.line, args))
        }
    };
    Ok(Submission { components, script })
}

/// The options of the plugin, for the first component.
fn plugin_words(prepared: &Prepared) -> Vec<String> {
    let snapshot = &prepared.snapshot;
    let mut words = vec![format!("--{}={}", option::RECIPE, snapshot.recipe_path)];
    words.extend(snapshot.sets.iter().map(|set| format!("--{}={set}", option::SET)));
    words.extend(snapshot.runs.iter().map(|runs| format!("--{}={runs}", option::RUNS)));
    words
}

/// Options by component: the services' own, then one for each load with a section of its own.
fn components(recipe: &Recipe) -> Vec<Vec<String>> {
    let mut first = recipe.slurm.clone();
    first.entry("job-name".into()).or_insert_with(|| SlurmValue::Text(recipe.name.to_string()));
    let mut components = vec![option_words(&first)];
    for load in recipe.load.iter().filter(|load| !load.slurm.is_empty()) {
        let inherited: BTreeMap<String, SlurmValue> = recipe
            .slurm
            .iter()
            .filter(|(name, _)| INHERITED.contains(&name.as_str()))
            .filter(|(name, _)| !load.slurm.contains_key(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let options = inherited.into_iter().chain(load.slurm.clone()).collect();
        components.push(option_words(&options));
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_with_a_section_is_a_component() {
        let text = "\
aifb: 1
name: two
slurm: {partition: gpu, time: \"01:00:00\", nodes: 1, gres: \"gpu:1\"}
services: [{name: s, kind: external, url: 'http://h:1'}]
load:
  - {name: a, driver: http, arrival: {rate: 1/s}, phases: {measure: 1s}}
  - {name: b, driver: http, arrival: {rate: 1/s}, phases: {measure: 1s}, slurm: {partition: cpu, nodes: 2}}
";
        let recipe = aifb_schema::recipe::parse(text, &[]).unwrap();
        assert_eq!(
            components(&recipe),
            [
                vec![
                    "--gres=gpu:1",
                    "--job-name=two",
                    "--nodes=1",
                    "--partition=gpu",
                    "--time=01:00:00"
                ],
                vec!["--nodes=2", "--partition=cpu", "--time=01:00:00"],
            ]
        );
    }
}
