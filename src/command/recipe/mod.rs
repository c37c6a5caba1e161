//! `aifb recipe`: shipped examples, the format, its reference.

mod reference;
mod yaml;

use std::path::Path;

use aifb_schema::{
    recipe::{self, Presets},
    snapshot::Wait,
};
use serde_json::json;

use crate::{
    cli::RecipeCommand,
    error::{CommandError, Result},
    output, programs,
};

/// The examples, as they are in recipes/.
const EXAMPLES: [(&str, &str); 10] = [
    ("capacity", include_str!("../../../recipes/capacity.yaml")),
    ("chat-sessions", include_str!("../../../recipes/chat-sessions.yaml")),
    ("http-program", include_str!("../../../recipes/http-program.yaml")),
    ("llama-server", include_str!("../../../recipes/llama-server.yaml")),
    ("ollama", include_str!("../../../recipes/ollama.yaml")),
    ("postgresql", include_str!("../../../recipes/postgresql.yaml")),
    ("trace-replay", include_str!("../../../recipes/trace-replay.yaml")),
    ("triton", include_str!("../../../recipes/triton.yaml")),
    ("vllm", include_str!("../../../recipes/vllm.yaml")),
    ("demo", include_str!("../../../recipes/demo.yaml")),
];

pub(super) fn run(command: &RecipeCommand) -> Result<i32> {
    match command {
        RecipeCommand::List { json } => list(*json)?,
        RecipeCommand::Show { what, overrides, json } => show(what, &overrides.sets, *json)?,
        RecipeCommand::Schema => output::out_json(&recipe::json_schema()),
        RecipeCommand::Reference => output::out_raw(reference::markdown().as_bytes()),
    }
    Ok(0)
}

fn list(as_json: bool) -> Result<()> {
    let described: Vec<(&str, String)> = EXAMPLES
        .iter()
        .map(|(name, text)| {
            let recipe = recipe::parse(text, &[])
                .map_err(|complaints| programs::explain(name, &complaints))?;
            Ok((*name, recipe.description.unwrap_or_default()))
        })
        .collect::<Result<_>>()?;
    if as_json {
        let examples: Vec<_> = described
            .iter()
            .map(|(name, description)| json!({"name": name, "description": description}))
            .collect();
        output::out_json(&examples);
    } else {
        let rows: Vec<Vec<String>> = described
            .into_iter()
            .map(|(name, description)| vec![name.to_owned(), description])
            .collect();
        output::out(output::table(&rows).trim_end());
    }
    Ok(())
}

fn show(what: &Path, sets: &[String], as_json: bool) -> Result<()> {
    let example = EXAMPLES.iter().find(|(name, _)| Path::new(name) == what && !what.exists());
    let recipe = match example {
        Some((_, text)) if sets.is_empty() && !as_json => {
            output::out_raw(text.as_bytes());
            return Ok(());
        }
        Some((name, text)) => recipe::resolve(text, sets, Presets::built_in())
            .map_err(|complaints| programs::explain(name, &complaints))?
            .written(),
        None => programs::prepare(what, sets, None, Wait::Healthy)
            .map_err(|error| with_examples(what, error))?
            .resolved
            .written(),
    };
    if as_json {
        output::out_json(&recipe);
        return Ok(());
    }
    let value = serde_json::to_value(&recipe)
        .map_err(|error| CommandError::usage("writing the recipe", error))?;
    output::out_raw(yaml::write(&value).as_bytes());
    Ok(())
}

/// A name that is neither file nor example gets the names of the examples.
fn with_examples(what: &Path, error: CommandError) -> CommandError {
    if what.exists() {
        return error;
    }
    let names: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
    CommandError::usage(
        format!("looking for recipe '{}'", what.display()),
        "no such file, and no example of that name",
    )
    .hint(format!("examples: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_recipes_is_an_example() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let mut files: Vec<String> = folder
            .read_dir()
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
            .collect();
        files.sort();
        let mut names: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert_eq!(files, names);
    }

    #[test]
    fn what_show_writes_reads_back() {
        for (name, text) in EXAMPLES {
            let resolved = recipe::resolve(text, &[], Presets::built_in()).unwrap();
            let written = yaml::write(&serde_json::to_value(resolved.written()).unwrap());
            let again = recipe::parse(&written, &[])
                .unwrap_or_else(|error| panic!("{name}: {error:?}\n{written}"));
            assert_eq!(again, *resolved.recipe(), "{name}:\n{written}");
        }
    }
}
