//! `aifb services`: the kinds of services that a recipe can name, and what each brings along.

use crate::{
    cli::{ServicesArgs, ServicesCommand},
    error::{CommandError, Result},
    output,
    programs::{self, Preset},
};

pub(super) fn run(args: &ServicesArgs) -> Result<i32> {
    let presets = programs::presets()?;
    match &args.command {
        Some(ServicesCommand::Show { kind }) => show(&presets, kind)?,
        None if args.json => output::out_json(&presets),
        None => output::out(list(&presets).trim_end()),
    }
    Ok(0)
}

fn list(presets: &[Preset]) -> String {
    let title = ["KIND", "PORT", "ORIGIN", "DESCRIPTION"].map(str::to_owned).to_vec();
    let row = |preset: &Preset| {
        let port = preset.usual_port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        vec![preset.kind.clone(), port, preset.origin.clone(), preset.description.clone()]
    };
    output::table(&std::iter::once(title).chain(presets.iter().map(row)).collect::<Vec<_>>())
}

/// Prints the preset's file with its origin on top: it can be changed and used as one's own.
fn show(presets: &[Preset], kind: &str) -> Result<()> {
    let unknown = || {
        let kinds: Vec<&str> = presets.iter().map(|preset| preset.kind.as_str()).collect();
        CommandError::usage(format!("looking for service kind '{kind}'"), "there is none")
            .hint(format!("kinds: {}", kinds.join(", ")))
    };
    let preset = presets.iter().find(|preset| preset.kind == kind).ok_or_else(unknown)?;
    let Preset { origin, description, .. } = preset;
    match &preset.text {
        Some(text) => output::out_raw(format!("# {kind}: {origin}\n{text}").as_bytes()),
        None => output::out(format!("# {kind}: {origin}, without a preset\n# {description}")),
    }
    Ok(())
}
