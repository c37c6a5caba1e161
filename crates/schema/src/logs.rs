//! What became of the log lines: `log-ledger.json`, and the request that changes which are sent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    recipe::{LogLevel, Logging},
    time::When,
};

/// `nodes/<node>/log-ledger.json`: what became of the log lines that one node's agent read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLedger {
    /// Where they were sent.
    pub url: String,
    /// One for each file.
    pub streams: Vec<LogStream>,
    /// Files that were left out: there were too many, or they, or their folder, could not be looked at.
    #[serde(default)]
    pub files_left_out: u64,
    /// The last reason why something could not be sent; absent once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The ledger of one file. `lines_read` = `lines_acknowledged` + `lines_quarantined` +
/// `lines_spooled` + `lines_filtered`, always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogStream {
    /// The file, relative to the folder that is shipped.
    pub file: String,
    /// Its size when it was last looked at.
    pub bytes: u64,
    /// Bytes of it that are dealt with: acknowledged, quarantined or filtered.
    pub bytes_done: u64,
    /// Lines read so far. Lines behind are in `bytes` only: the file itself is their spool.
    pub lines_read: u64,
    /// Lines that the receiver has stored.
    pub lines_acknowledged: u64,
    /// Lines that it refused for good; they are in the quarantine file with its reason.
    pub lines_quarantined: u64,
    /// Lines that are being sent.
    pub lines_spooled: u64,
    /// Lines left out by `logging`.
    pub lines_filtered: u64,
    /// Pieces made of lines too long for the receiver.
    #[serde(default)]
    pub pieces: u64,
    /// How often another file took its place, or it became shorter.
    #[serde(default)]
    pub replaced: u64,
}

impl LogStream {
    /// Whether every line is in exactly one place.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.lines_read
            == self.lines_acknowledged
                + self.lines_quarantined
                + self.lines_spooled
                + self.lines_filtered
    }

    /// Bytes that are not dealt with yet.
    #[must_use]
    pub fn bytes_unsent(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes_done)
    }
}

impl LogLedger {
    /// Bytes that are not dealt with yet.
    #[must_use]
    pub fn bytes_unsent(&self) -> u64 {
        self.streams.iter().map(LogStream::bytes_unsent).sum()
    }

    /// Whether all that was to be sent is dealt with.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bytes_unsent() == 0 && self.files_left_out == 0 && self.trouble.is_none()
    }

    /// Lines that were refused for good.
    #[must_use]
    pub fn lines_quarantined(&self) -> u64 {
        self.streams.iter().map(|stream| stream.lines_quarantined).sum()
    }
}

/// Body of `PUT /v1/logging`: fields that are absent stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoggingChange {
    /// Lowest level, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// The same as a number: 0 info, 1 warning, 2 error.
    #[serde(default, rename = "logLevel", skip_serializing_if = "Option::is_none")]
    pub number: Option<LevelNumber>,
    /// When logging ends; null: never.
    #[serde(
        default,
        alias = "expiry",
        alias = "expires",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub until: Option<Option<When>>,
}

/// A field that is there, null or not.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<When>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A level as the older form of the request has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
pub struct LevelNumber(LogLevel);

impl TryFrom<u8> for LevelNumber {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Self(LogLevel::Info)),
            1 => Ok(Self(LogLevel::Warning)),
            2 => Ok(Self(LogLevel::Error)),
            _ => Err(format!("logLevel {number}: expected 0 (info), 1 (warning) or 2 (error)")),
        }
    }
}

impl From<LevelNumber> for u8 {
    fn from(number: LevelNumber) -> Self {
        match number.0 {
            LogLevel::Debug | LogLevel::Info => 0,
            LogLevel::Warning => 1,
            LogLevel::Error => 2,
        }
    }
}

impl LoggingChange {
    /// `logging` with this change; the name of a level counts before its number.
    #[must_use]
    pub fn applied_to(self, logging: Logging) -> Logging {
        let numbered = self.number.map(|number| number.0);
        Logging {
            level: self.level.or(numbered).unwrap_or(logging.level),
            until: self.until.unwrap_or(logging.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(change: &str) -> Result<Logging, serde_json::Error> {
        let before =
            Logging { level: LogLevel::Warning, until: "2026-01-01T00:00:00Z".parse().ok() };
        serde_json::from_str::<LoggingChange>(change).map(|change| change.applied_to(before))
    }

    #[test]
    fn both_forms_of_the_request_are_taken() {
        let until = |text: &str| text.parse().ok();
        let old = until("2026-01-01T00:00:00Z");
        for (change, level, expected) in [
            ("{}", LogLevel::Warning, old),
            (r#"{"level": "debug"}"#, LogLevel::Debug, old),
            (r#"{"level": "warn"}"#, LogLevel::Warning, old),
            (r#"{"logLevel": 0}"#, LogLevel::Info, old),
            (r#"{"logLevel": 2, "until": null}"#, LogLevel::Error, None),
            (
                r#"{"logLevel": 1, "expiry": "2027-01-01T00:00:00+01:00"}"#,
                LogLevel::Warning,
                until("2026-12-31T23:00:00Z"),
            ),
        ] {
            assert_eq!(applied(change).unwrap(), Logging { level, until: expected }, "{change}");
        }
        for wrong in [r#"{"logLevel": 3}"#, r#"{"level": "loud"}"#, r#"{"untill": null}"#] {
            assert!(applied(wrong).is_err(), "{wrong}");
        }
    }
}
