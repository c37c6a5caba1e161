//! `aifb validate`: the check of a submission, without one.

use aifb_schema::snapshot::Wait;
use serde_json::json;

use crate::{
    cli::ValidateArgs,
    error::Result,
    output,
    programs::{self, Prepared},
};

pub(super) fn run(args: &ValidateArgs) -> Result<i32> {
    let path = &args.input.recipe;
    let checked = programs::prepare(path, &args.input.overrides.sets, None, Wait::Healthy);
    match checked {
        Ok(prepared) if args.json => {
            output::out_json(&accepted(&prepared));
            Ok(0)
        }
        Ok(Prepared { resolved, .. }) => {
            let recipe = resolved.recipe();
            output::out(format!(
                "ok {}: {}, {}, {}",
                recipe.name,
                count(recipe.services.len(), "service"),
                count(recipe.load.len(), "load"),
                count(resolved.points_count(), "point")
            ));
            Ok(0)
        }
        Err(error) if args.json => {
            output::out_json(&json!({"ok": false, "complaints": complaints(&error.text)}));
            Ok(error.code)
        }
        Err(error) => Err(error),
    }
}

fn accepted(prepared: &Prepared) -> serde_json::Value {
    json!({
        "ok": true,
        "recipe": prepared.resolved.written(),
        "sha256": prepared.snapshot.sha256,
        "recipe_path": prepared.snapshot.recipe_path,
        "sets": prepared.snapshot.sets,
    })
}

/// The complaints of `aifb-agent prepare`, each with its hint: a line that starts with `hint:`
/// belongs to the one before it.
fn complaints(text: &str) -> Vec<serde_json::Value> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for line in text.lines() {
        match (line.trim_start().strip_prefix("hint: "), found.last_mut()) {
            (Some(hint), Some((_, slot))) => *slot = Some(hint.to_owned()),
            _ => found.push((line.to_owned(), None)),
        }
    }
    found
        .into_iter()
        .map(|(text, hint)| {
            let place = place(&text);
            json!({
                "text": text,
                "line": place.map(|(line, _)| line),
                "column": place.map(|(_, column)| column),
                "hint": hint,
            })
        })
        .collect()
}

/// Line and column of `file:line:column: message`.
fn place(text: &str) -> Option<(u64, u64)> {
    let (before, _) = text.split_once(": ")?;
    let mut parts = before.rsplitn(3, ':');
    let column = parts.next()?.parse().ok()?;
    let line = parts.next()?.parse().ok()?;
    Some((line, column))
}

pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_keep_place_and_hint() {
        let found = complaints("a:b.yaml:3:5: wrong: x\n  hint: right\n--aifb-set 'x': bad");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["line"], 3);
        assert_eq!(found[0]["column"], 5);
        assert_eq!(found[0]["hint"], "right");
        assert!(found[1]["line"].is_null() && found[1]["hint"].is_null());
    }
}
