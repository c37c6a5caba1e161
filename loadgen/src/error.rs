//! What ends the program: a failure with its owner, its cause and what would help.

use std::fmt;

use aifb_schema::{
    names::exit,
    run::{Failure, Owner},
};

/// A failure that ends the load (or the program).
#[derive(Debug, Clone)]
pub(crate) struct Fatal(pub(crate) Failure);

impl Fatal {
    fn new(owner: Owner, exit_code: i32, reason: impl Into<String>) -> Self {
        let part = "aifb-loadgen".to_owned();
        let reason = reason.into();
        Self(Failure { owner, part, reason, hint: None, log_tail: None, exit_code })
    }

    /// Wrong usage, or a recipe that cannot be carried out.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self::new(Owner::Recipe, exit::USAGE, reason)
    }

    /// The service refuses or does not answer.
    pub(crate) fn service(reason: impl Into<String>) -> Self {
        Self::new(Owner::Service, exit::SERVICE, reason)
    }

    /// The node or its agent.
    pub(crate) fn node(reason: impl Into<String>) -> Self {
        Self::new(Owner::Node, exit::INCOMPLETE, reason)
    }

    /// This program.
    pub(crate) fn loadgen(reason: impl Into<String>) -> Self {
        Self::new(Owner::Loadgen, exit::INCOMPLETE, reason)
    }

    /// Adds what would help.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { owner, part, reason, hint, .. } = &self.0;
        write!(f, "{part}: {reason} (cause: {})", owner.as_str())?;
        match hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fatal {}
