//! `report.json` and `report.txt` in the run folder, always replaced by rename.

use std::{io, path::Path};

use aifb_runfolder::{RunFolder, write};
use aifb_schema::result::Report;

/// Writes `report.json` and, where there is one, `report.txt`.
///
/// # Errors
/// The file that could not be written, and why. The folder may be another user's: a report can
/// still be shown.
pub(crate) fn write(folder: &Path, report: &Report, text: Option<&str>) -> Result<(), String> {
    let run = RunFolder::new(folder);
    let failed = |path: &Path, error: io::Error| format!("writing '{}': {error}", path.display());
    let json = run.report_json_path();
    write::replace_json(&json, write::MODE, report).map_err(|error| failed(&json, error))?;
    let Some(text) = text else { return Ok(()) };
    let path = run.report_text_path();
    write::replace(&path, write::MODE, text.as_bytes()).map_err(|error| failed(&path, error))
}
