//! The one error type of this program: what was tried, why it failed, what helps, exit code.

use std::fmt;

use aifb_schema::{names::exit, run::Failure};

/// A failed command. Printed as `aifb: doing what 'value': cause`, then `hint: …`.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// Exit code ([`aifb_schema::names::exit`]).
    pub(crate) code: i32,
    /// What was tried and why it failed; may have several lines.
    pub(crate) text: String,
    /// What would help, where known.
    pub(crate) hint: Option<String>,
    /// Whether `text` is another program's own message, already complete.
    relayed: bool,
}

/// Result of everything here.
pub(crate) type Result<T, E = CommandError> = std::result::Result<T, E>;

impl CommandError {
    /// `doing` failed because of `cause`.
    pub(crate) fn new(code: i32, doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { code, text: format!("{doing}: {cause}"), hint: None, relayed: false }
    }

    /// Wrong usage, a wrong recipe, a run that is not there.
    pub(crate) fn usage(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(exit::USAGE, doing, cause)
    }

    /// Slurm refused, or one of its commands is missing.
    pub(crate) fn slurm(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(exit::SLURM, doing, cause)
    }

    /// A part of the run is lost or does not answer.
    pub(crate) fn incomplete(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(exit::INCOMPLETE, doing, cause)
    }

    /// Another program's complete message, passed on as it is.
    pub(crate) fn relayed(code: i32, text: impl Into<String>) -> Self {
        Self { code, text: text.into().trim_end().to_owned(), hint: None, relayed: true }
    }

    /// A recorded failure of a run.
    pub(crate) fn of_run(run_id: &str, failure: &Failure) -> Self {
        let text = format!("run '{run_id}' failed: {}", failure.render());
        Self { code: failure.exit_code, text, hint: None, relayed: false }
    }

    /// Adds what would help.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.relayed {
            f.write_str("aifb: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}
