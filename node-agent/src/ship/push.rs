//! Sending to Loki: one request, one outcome.

use std::time::Duration;

use aifb_schema::recipe::LokiEncoding;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header::RETRY_AFTER},
};

use crate::http;

/// Where Loki takes logs.
const PATH: &str = "/loki/api/v1/push";

/// Longest time for an answer: what stores a megabyte in more than this is as good as down, and
/// the same bytes are sent again.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest pause that a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Bytes of an answer that are kept as a reason.
const REASON_BYTES: u64 = 1024;

/// A receiver and how it is addressed. The token is in no `Debug` and no message.
#[derive(Clone)]
pub(crate) struct Target {
    /// URL as it was given; it has neither user nor password.
    pub(crate) url: String,
    /// Tenant, sent as `X-Scope-OrgID`.
    pub(crate) tenant: Option<String>,
    /// Bearer token.
    pub(crate) token: Option<String>,
    /// Form of the body.
    pub(crate) encoding: LokiEncoding,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({})", self.url)
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is stored.
    Stored,
    /// It may be stored or not; the same bytes have to be sent again.
    Retry {
        /// Why.
        reason: String,
        /// Pause that the receiver asks for.
        after: Option<Duration>,
    },
    /// Something in it will never be taken.
    Refused(String),
}

/// The connection to a receiver.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    target: Target,
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self { agent: http::agent(ANSWER), url: push_url(&target.url), target }
    }

    pub(super) fn encoding(&self) -> LokiEncoding {
        self.target.encoding
    }

    pub(super) fn url(&self) -> &str {
        &self.target.url
    }

    /// Sends a body of the target's encoding.
    pub(super) fn send(&self, body: &[u8]) -> Outcome {
        let mut request = self.agent.post(&self.url);
        request = match self.target.encoding {
            LokiEncoding::Protobuf => request
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy"),
            LokiEncoding::Json => request.header("content-type", "application/json"),
        };
        if let Some(tenant) = &self.target.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        if let Some(token) = &self.target.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        match request.send(body) {
            Ok(answer) => judge(answer),
            Err(error) => Outcome::Retry { reason: error.to_string(), after: None },
        }
    }
}

/// The address of a Loki, or of its push endpoint.
fn push_url(url: &str) -> String {
    let base = url.trim_end_matches('/');
    if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") }
}

/// Only 204 says that all is stored: 260 means that nothing is, and 200 comes from something that
/// is no Loki. 400 and 413 blame the request; everything else may be gone in a moment.
fn judge(mut answer: Response<Body>) -> Outcome {
    let status = answer.status();
    let after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let text = http::beginning(answer.body_mut(), REASON_BYTES);
    let reason = || format!("status {}: {text}", status.as_u16());
    match status {
        StatusCode::NO_CONTENT => Outcome::Stored,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Outcome::Refused(reason()),
        _ => Outcome::Retry { reason: reason(), after },
    }
}

/// Whether a text can be sent as a bearer token.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_push_endpoint_is_found() {
        for url in ["http://h:3100", "http://h:3100/", "http://h:3100/loki/api/v1/push"] {
            assert_eq!(push_url(url), "http://h:3100/loki/api/v1/push");
        }
        assert_eq!(push_url("https://h/x/"), "https://h/x/loki/api/v1/push");
    }

    #[test]
    fn only_204_is_success() {
        let outcome = |status: u16, after: &str| {
            let answer = Response::builder().status(status).header("retry-after", after);
            judge(answer.body(Body::builder().data("why")).unwrap())
        };
        assert_eq!(outcome(204, ""), Outcome::Stored);
        for status in [200, 202, 260, 301, 401, 404, 429, 500, 503] {
            let reason = format!("status {status}: why");
            let expected = Outcome::Retry { reason, after: Some(Duration::from_secs(7)) };
            assert_eq!(outcome(status, "7"), expected);
        }
        assert!(matches!(outcome(400, ""), Outcome::Refused(_)));
        let Outcome::Retry { after, .. } = outcome(429, "86400") else { panic!() };
        assert_eq!(after, Some(RETRY_AFTER_MAX));
        // Loki names each stream and entry that it refuses.
        let long = "entry too old ".repeat(1000);
        let answer = Response::builder().status(400).body(Body::builder().data(long)).unwrap();
        let Outcome::Refused(reason) = judge(answer) else { panic!() };
        assert!(reason.starts_with("status 400: entry too old"), "{reason}");
        assert!(reason.len() <= 1100, "{}", reason.len());
    }
}
