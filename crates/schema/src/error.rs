//! Why a text or a file was refused.

use crate::names::{PROTOCOL, limit};

/// A value that a person wrote is not what it should be; says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) String);

impl From<String> for ValueError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What a program wrote cannot be used: damaged, too large, or of another version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A snapshot does not start as one of this version does.
    #[error("not a snapshot of this version of aifb (expected 'aifb1:…')")]
    Prefix,
    /// A snapshot is too large when encoded.
    #[error("recipe and options take {0} bytes when packed; at most {max} fit a job's environment", max = limit::SNAPSHOT_BYTES)]
    TooLarge(usize),
    /// The text of a snapshot is not base64.
    #[error("damaged snapshot: not base64")]
    Base64(#[source] base64::DecodeError),
    /// The compressed data is damaged or unpacks to too much.
    #[error("damaged snapshot: cannot be unpacked")]
    Unpack(#[source] std::io::Error),
    /// The JSON inside is not a snapshot.
    #[error("damaged snapshot: not the expected content")]
    Json(#[source] serde_json::Error),
    /// Written by another major version.
    #[error("snapshot has protocol {0}, this program speaks {PROTOCOL}")]
    Protocol(u32),
    /// The recipe does not match its checksum.
    #[error("damaged snapshot: the recipe does not match its SHA-256")]
    Checksum,
    /// A file of samples does not start as one of this version does.
    #[error("not a samples file of this version (expected it to start with AIFBSMP1)")]
    Samples,
}
