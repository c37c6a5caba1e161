//! What follows from the keys of a service.

use std::time::Duration;

use super::{Load, Port, Recipe, Service};
use crate::units::Span;

/// Time between probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Deadline of health without progress: long enough to load a small model.
const DEADLINE: Duration = Duration::from_secs(600);

/// Deadline of health however much progress there is.
const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// How health is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `GET` of this path answers 200 to 399.
    Http(String),
    /// The port accepts a connection.
    Tcp,
    /// This command, run as the service is run, exits 0.
    Exec(Vec<String>),
    /// A line of output contains this text.
    Log(String),
}

impl Service {
    /// Whether it runs already, so that nothing is started.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.kind.is_external()
    }

    /// How its health is probed.
    #[must_use]
    pub fn probe(&self) -> Probe {
        let health = &self.health;
        match (&health.http, &health.exec, &health.log) {
            (Some(path), ..) => Probe::Http(path.clone()),
            (None, Some(command), _) => Probe::Exec(command.clone()),
            (None, None, Some(text)) => Probe::Log(text.clone()),
            (None, None, None) => Probe::Tcp,
        }
    }

    /// Time between probes; 100 ms unless the recipe says otherwise.
    #[must_use]
    pub fn probe_every(&self) -> Duration {
        self.health.every.map_or(PROBE_EVERY, Span::get)
    }

    /// Deadline of health without progress; 10 minutes unless recipe or preset say otherwise.
    #[must_use]
    pub fn health_deadline(&self) -> Duration {
        self.health.deadline.map_or(DEADLINE, Span::get)
    }

    /// Deadline of health however much progress there is; 60 minutes unless the recipe says
    /// otherwise, and never below the ordinary deadline.
    #[must_use]
    pub fn health_max(&self) -> Duration {
        self.health.max.map_or(DEADLINE_MAX, Span::get).max(self.health_deadline())
    }

    /// Puts in the defaults that depend on other keys.
    pub(super) fn fill_in(&mut self) {
        let (every, deadline, max) =
            (self.probe_every(), self.health_deadline(), self.health_max());
        let tcp = self.probe() == Probe::Tcp;
        let health = &mut self.health;
        (health.every, health.deadline, health.max) =
            (Some(Span(every)), Some(Span(deadline)), Some(Span(max)));
        if tcp {
            health.tcp = Some(true);
        }
        if !self.is_external() {
            self.scheme.get_or_insert_with(|| "http".to_owned());
        }
    }

    /// Program and arguments with their placeholders, before any is filled in. With an image and
    /// no `command` it starts with the arguments: the image's own entry point runs.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let program = self.program.iter().chain(&self.command);
        program.chain(&self.args).cloned().collect()
    }

    /// The port, if the recipe fixes one.
    #[must_use]
    pub fn fixed_port(&self) -> Option<u16> {
        match self.port {
            Port::Auto => None,
            Port::Fixed(port) => Some(port),
        }
    }
}

impl Recipe {
    /// The service that a load is for: the one it names, else the first.
    #[must_use]
    pub fn service_of(&self, load: &Load) -> Option<&Service> {
        match &load.service {
            Some(name) => self.services.iter().find(|service| service.name == *name),
            None => self.services.first(),
        }
    }
}
