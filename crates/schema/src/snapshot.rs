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

use crate::{
    error::FormatError,
    names::{PROTOCOL, limit},
};

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

/// SHA-256 as 64 hexadecimal digits.
#[must_use]
pub fn sha256_hex(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// Bytes as hexadecimal digits, two for each.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

impl Snapshot {
    /// The one-line form.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] when it would not fit.
    pub fn encode(&self) -> Result<String, FormatError> {
        let json = serde_json::to_vec(self).map_err(FormatError::Json)?;
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&json).map_err(FormatError::Unpack)?;
        let packed = packer.finish().map_err(FormatError::Unpack)?;
        let line = format!("{PREFIX}{}", STANDARD_NO_PAD.encode(packed));
        if line.len() > limit::SNAPSHOT_BYTES {
            return Err(FormatError::TooLarge(line.len()));
        }
        Ok(line)
    }

    /// Reads the one-line form, trusting nothing in it.
    ///
    /// # Errors
    /// Each way in which it can be damaged or forged.
    pub fn decode(line: &str) -> Result<Self, FormatError> {
        if line.len() > limit::SNAPSHOT_BYTES {
            return Err(FormatError::TooLarge(line.len()));
        }
        let body = line.trim_end().strip_prefix(PREFIX).ok_or(FormatError::Prefix)?;
        let packed = STANDARD_NO_PAD.decode(body).map_err(FormatError::Base64)?;
        let mut json = Vec::new();
        ZlibDecoder::new(packed.as_slice())
            .take(UNPACKED_BYTES)
            .read_to_end(&mut json)
            .map_err(FormatError::Unpack)?;
        let snapshot: Self = serde_json::from_slice(&json).map_err(FormatError::Json)?;
        if snapshot.protocol != PROTOCOL {
            return Err(FormatError::Protocol(snapshot.protocol));
        }
        if sha256_hex(snapshot.recipe.as_bytes()) != snapshot.sha256 {
            return Err(FormatError::Checksum);
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
        assert!(matches!(Snapshot::decode(&line), Err(FormatError::Checksum)));
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
        assert!(matches!(Snapshot::decode(&line), Err(FormatError::Json(_))));
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
        assert!(matches!(sample(&noise).encode(), Err(FormatError::TooLarge(_))));
    }
}
