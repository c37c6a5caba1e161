//! The agents' HTTP interface, as far as the user's command needs it.

use std::time::Duration;

use aifb_schema::{
    control::{LINE_MAX, RunStatus},
    logs::LoggingChange,
    recipe::Logging,
};
use ureq::{Agent, Body, http::Response};

use crate::{
    error::{CommandError, Result},
    store::RunFolder,
};

/// Longest time for one question. The coordinator answers from memory; a node that swaps is slow.
const DEADLINE: Duration = Duration::from_secs(5);

/// Talks to an agent of one run, mostly to its coordinator.
#[derive(Debug)]
pub(crate) struct AgentClient {
    agent: Agent,
    address: String,
    token: String,
}

impl AgentClient {
    /// Of this run.
    ///
    /// # Errors
    /// If no coordinator has reported yet, or the run is somebody else's.
    pub(crate) fn of(run: &RunFolder) -> Result<Self> {
        let coordinator = run.coordinator().ok_or_else(|| {
            CommandError::incomplete("looking for the run's coordinator", "no agent has reported")
        })?;
        Ok(Self::at(coordinator.address, run.token()?))
    }

    /// Of the agent at this address.
    pub(crate) fn at(address: String, token: String) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { agent: config.into(), address, token }
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// If the coordinator does not answer or refuses.
    pub(crate) fn status(&self) -> Result<RunStatus> {
        let answer = self.agent.get(self.url("/v1/status")).header("authorization", self.bearer());
        let text = self.text(answer.call())?;
        serde_json::from_str(&text).map_err(|error| {
            CommandError::incomplete(format!("reading the status from '{}'", self.address), error)
        })
    }

    /// `POST /v1/stop`.
    ///
    /// # Errors
    /// If the coordinator does not answer or refuses.
    pub(crate) fn stop(&self) -> Result<()> {
        let answer = self.agent.post(self.url("/v1/stop")).header("authorization", self.bearer());
        self.text(answer.send_empty()).map(drop)
    }

    /// `PUT /v1/logging`; what holds from now on.
    ///
    /// # Errors
    /// If the agent does not answer or refuses.
    pub(crate) fn set_logging(&self, change: LoggingChange) -> Result<Logging> {
        let answer = self.agent.put(self.url("/v1/logging")).header("authorization", self.bearer());
        let doing = || format!("asking the agent at '{}'", self.address);
        let body = serde_json::to_vec(&change)
            .map_err(|error| CommandError::incomplete(doing(), error))?;
        let text = self.text(answer.send(&body))?;
        serde_json::from_str(&text).map_err(|error| CommandError::incomplete(doing(), error))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    fn text(&self, answer: std::result::Result<Response<Body>, ureq::Error>) -> Result<String> {
        let doing = || format!("asking the agent at '{}'", self.address);
        let mut answer = answer.map_err(|error| CommandError::incomplete(doing(), error))?;
        let text = answer
            .body_mut()
            .with_config()
            .limit(LINE_MAX as u64)
            .read_to_string()
            .map_err(|error| CommandError::incomplete(doing(), error))?;
        if !answer.status().is_success() {
            return Err(CommandError::incomplete(
                doing(),
                format!("{}: {}", answer.status(), text.trim()),
            ));
        }
        Ok(text)
    }
}
