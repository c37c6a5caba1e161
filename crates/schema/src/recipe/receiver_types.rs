//! Where something is sent to, and the secret that opens it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EnvValue;

/// Address of a receiver: a URL, or `{url: URL, token: {secret_file: PATH}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ReceiverText", into = "ReceiverText")]
pub struct Receiver {
    /// `http://` or `https://`, without user and password.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretSource>,
}

/// A URL alone, or with its token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a URL, or {url: URL, token: {secret_file: PATH} or {secret_env: NAME}}"
)]
enum ReceiverText {
    Url(String),
    Whole(ReceiverWhole),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReceiverWhole {
    /// `http://` or `https://`, without user and password.
    url: String,
    /// Sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<SecretSource>,
}

impl From<ReceiverText> for Receiver {
    fn from(text: ReceiverText) -> Self {
        match text {
            ReceiverText::Url(url) => Self { url, token: None },
            ReceiverText::Whole(ReceiverWhole { url, token }) => Self { url, token },
        }
    }
}

impl From<Receiver> for ReceiverText {
    fn from(receiver: Receiver) -> Self {
        match receiver {
            Receiver { url, token: None } => Self::Url(url),
            Receiver { url, token } => Self::Whole(ReceiverWhole { url, token }),
        }
    }
}

/// A reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretSource {
    /// Read on the node from a file of the user.
    File(SecretFile),
    /// Taken on the node from the job's environment.
    Env(SecretEnv),
}

impl From<SecretSource> for EnvValue {
    fn from(source: SecretSource) -> Self {
        match source {
            SecretSource::File(SecretFile { secret_file }) => Self::SecretFile { secret_file },
            SecretSource::Env(SecretEnv { secret_env }) => Self::SecretEnv { secret_env },
        }
    }
}

/// A file with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Its path, `~/` allowed.
    pub secret_file: String,
}

/// A variable with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretEnv {
    /// Its name.
    pub secret_env: String,
}
