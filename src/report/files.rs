//! `report.json` and `report.txt` in the run folder, always replaced by rename.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::result::Report;

/// Name of the report for programs.
const JSON: &str = "report.json";

/// Name of the report for people.
const TEXT: &str = "report.txt";

/// Writes `report.json` and, where there is one, `report.txt`.
///
/// # Errors
/// The file that could not be written, and why. The folder may be somebody else's: a report can
/// still be shown.
pub(crate) fn write(folder: &Path, report: &Report, text: Option<&str>) -> Result<(), String> {
    let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())? + "\n";
    replace(&folder.join(JSON), json.as_bytes())?;
    text.map_or(Ok(()), |text| replace(&folder.join(TEXT), text.as_bytes()))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let complain = |error: io::Error| format!("writing '{}': {error}", path.display());
    let mut fresh: PathBuf = path.to_owned();
    fresh.set_file_name(format!(".report.{}", std::process::id()));
    let written = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        drop(fs::remove_file(&fresh));
    }
    written.map_err(complain)
}
