//! What became of a run's log lines on their way to Loki.

use aifb_runfolder::read;
use aifb_schema::{logs::LogLedger, names::file};

use super::Life;
use crate::store::RunFolder;

/// Bytes of a ledger: a line for each log.
const LEDGER_BYTES_MAX: u64 = 16 << 20;

/// Warns of lines that were not sent. What a run that goes on has not sent yet is no news.
pub(super) fn unsent(run: &RunFolder, life: &Life, warnings: &mut Vec<String>) {
    let asked = run.recipe().is_ok_and(|recipe| recipe.monitor.loki.is_some());
    if !asked || *life == Life::GoesOn {
        return;
    }
    let resend = format!("aifb logs resend {}", run.path().display());
    for folder in run.files().nodes() {
        let node = folder.name();
        let Ok(ledger) = read::json::<LogLedger>(&folder.log_ledger_path(), LEDGER_BYTES_MAX)
        else {
            warnings.push(format!(
                "node {node}: how many of its log lines were sent is not known: its agent was \
                 killed; {resend} sends the rest"
            ));
            continue;
        };
        let (bytes, lines) = (ledger.bytes_unsent(), ledger.lines_quarantined());
        let trouble = ledger.trouble.map(|reason| format!(" ({reason})")).unwrap_or_default();
        if bytes > 0 || !trouble.is_empty() {
            warnings.push(format!(
                "node {node}: {bytes} bytes of its logs were not sent{trouble}; {resend} sends them"
            ));
        }
        if lines > 0 {
            warnings.push(format!(
                "node {node}: Loki refused {lines} log lines; they are in {}",
                file::LOG_QUARANTINE
            ));
        }
        if ledger.files_left_out > 0 {
            warnings.push(format!("node {node}: {} logs were not sent", ledger.files_left_out));
        }
    }
}
