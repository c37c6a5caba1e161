//! The snapshot: the recipe and the options as they were at submission, in one printable line
//! that travels in an environment variable.
//!
//! Form: `aifb1:` + base64(zlib(JSON of [`Snapshot`])). Whoever decodes it treats it as hostile:
//! the variable is the user's to forge.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::{PROTOCOL, limit};

/// Prefix and version of the encoded form.
const PREFIX: &str = "aifb1:";

/// Bytes of JSON that a snapshot may unpack to: the recipe, escaped (at most six bytes for one),
/// and room for the other fields. Stops a compression bomb.
const UNPACKED_BYTES: u64 = 6 * limit::RECIPE_BYTES + 64 * 1024;

/// What the job's script waits for before its first line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Until every service is healthy (or one failed).
    #[default]
    Healthy,
    /// Not at all.
    None,
}

/// The recipe and the options as submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`PROTOCOL`] of the writer.
    pub protocol: u32,
    /// Absolute path the recipe was read from, for messages.
    pub recipe_path: String,
    /// The recipe's text, byte for byte.
    pub recipe: String,
    /// SHA-256 of `recipe`, hexadecimal.
    pub sha256: String,
    /// `PATH=VALUE` overrides in their order.
    pub sets: Vec<String>,
    /// Absolute root of the run folders, where an option or variable named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<String>,
    /// What the script waits for.
    #[serde(default)]
    pub wait: Wait,
}

/// Why a snapshot cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It does not start as a snapshot of this version does.
    #[error("not a snapshot of this version of aifb (expected '{PREFIX}…')")]
    Prefix,
    /// Too large when encoded.
    #[error("recipe and options take {0} bytes when packed; at most {max} fit a job's environment", max = limit::SNAPSHOT_BYTES)]
    TooLarge(usize),
    /// The text is not base64.
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
}

/// SHA-256 as 64 hexadecimal digits.
#[must_use]
pub fn sha256_hex(data: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(data).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

impl Snapshot {
    /// The one-line form.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`] when it would not fit.
    pub fn encode(&self) -> Result<String, SnapshotError> {
        let json = serde_json::to_vec(self).map_err(SnapshotError::Json)?;
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&json).map_err(SnapshotError::Unpack)?;
        let packed = packer.finish().map_err(SnapshotError::Unpack)?;
        let line = format!("{PREFIX}{}", STANDARD_NO_PAD.encode(packed));
        if line.len() > limit::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge(line.len()));
        }
        Ok(line)
    }

    /// Reads the one-line form, trusting nothing in it.
    ///
    /// # Errors
    /// Each way in which it can be damaged or forged.
    pub fn decode(line: &str) -> Result<Self, SnapshotError> {
        if line.len() > limit::SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge(line.len()));
        }
        let body = line.trim_end().strip_prefix(PREFIX).ok_or(SnapshotError::Prefix)?;
        let packed = STANDARD_NO_PAD.decode(body).map_err(SnapshotError::Base64)?;
        let mut json = Vec::new();
        ZlibDecoder::new(packed.as_slice())
            .take(UNPACKED_BYTES)
            .read_to_end(&mut json)
            .map_err(SnapshotError::Unpack)?;
        let snapshot: Self = serde_json::from_slice(&json).map_err(SnapshotError::Json)?;
        if snapshot.protocol != PROTOCOL {
            return Err(SnapshotError::Protocol(snapshot.protocol));
        }
        if sha256_hex(snapshot.recipe.as_bytes()) != snapshot.sha256 {
            return Err(SnapshotError::Checksum);
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(recipe: &str) -> Snapshot {
        Snapshot {
            protocol: PROTOCOL,
            recipe_path: "/home/a/x.yaml".into(),
            recipe: recipe.into(),
            sha256: sha256_hex(recipe.as_bytes()),
            sets: vec!["load.chat.seed=3".into()],
            runs: None,
            wait: Wait::Healthy,
        }
    }

    #[test]
    fn a_snapshot_reads_back() {
        let snapshot = sample("aifb: 1\nname: é\n");
        let line = snapshot.encode().unwrap();
        assert!(line.is_ascii() && !line.contains('\n'));
        assert_eq!(Snapshot::decode(&line).unwrap(), snapshot);
    }

    #[test]
    fn forged_snapshots_are_refused() {
        let mut forged = sample("aifb: 1\n");
        forged.recipe.push(' ');
        let line = forged.encode().unwrap();
        assert!(matches!(Snapshot::decode(&line), Err(SnapshotError::Checksum)));
        for line in ["", "aifb1:", "aifb1:!!!!", "aifb1:AAAA", "aifb2:AAAA", "aifb1:é"] {
            assert!(Snapshot::decode(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_compression_bomb_stays_bounded() {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&vec![b' '; 10_000_000]).unwrap();
        let line = format!("{PREFIX}{}", STANDARD_NO_PAD.encode(packer.finish().unwrap()));
        assert!(line.len() < limit::SNAPSHOT_BYTES);
        assert!(matches!(Snapshot::decode(&line), Err(SnapshotError::Json(_))));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut state = 1_u32;
        let noise: String = (0..40_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                char::from(b'!' + (state % 64) as u8)
            })
            .collect();
        assert!(matches!(sample(&noise).encode(), Err(SnapshotError::TooLarge(_))));
    }
}
