//! What goes wrong, and how often; each fault says what a client should make of it.

use std::{fmt::Write as _, str::FromStr};

use crate::fault::Class;

/// What a client that is right reports for an answer with a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// A success; the tokens are the server's count.
    Usage,
    /// A success; the tokens are the number of content events, and it says so.
    Chunks,
    /// A failure of this class.
    Fails(Class),
}

impl Expect {
    /// The word in the table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "ok",
            Self::Chunks => "ok-chunks",
            Self::Fails(class) => class.as_str(),
        }
    }
}

/// Answers that a fault has a meaning for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// Any answer.
    All,
    /// Any answer that is streamed.
    Streams,
    /// Server-sent events.
    Sse,
    /// A chat as server-sent events.
    Chat,
    /// A chat of any protocol.
    Chats,
    /// Answers with a vector or a score for each input.
    Lists,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal, $on:ident, $expect:expr;)+) => {
        /// A fault, or an oddity that a client has to understand.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// Every fault with its name, what it applies to, what is expected, and what it is.
        const TABLE: &[(Fault, &str, On, Expect, &str)] = {
            use Expect::{Chunks, Fails, Usage};
            &[$((Fault::$variant, $word, On::$on, $expect, concat!($($doc),+)),)+]
        };
    };
}

faults! {
    /// Only the role, with an empty text, long before the first token.
    RoleFirst = "role-first", Chat, Usage;
    /// null as content, usage and finish reason, long before the first token.
    NullFirst = "null-first", Chat, Usage;
    /// The first half is `reasoning_content` (Ollama: `thinking`), the rest content.
    Reasoning = "reasoning", Chats, Usage;
    /// The first half is `reasoning`, as newer servers name it, the rest content.
    ReasoningNew = "reasoning-new", Chat, Usage;
    /// A tool call in pieces instead of text.
    Tools = "tools", Chats, Usage;
    /// Four tokens in each event.
    MultiToken = "multi-token", Streams, Usage;
    /// Four events in each write.
    Coalesced = "coalesced", Streams, Usage;
    /// The usage in an event of its own, with a finishing event without one before it.
    UsageOnly = "usage-only", Sse, Usage;
    /// The usage in the finishing event.
    UsageInFinish = "usage-in-finish", Sse, Usage;
    /// The usage so far in every event.
    UsageInEach = "usage-in-each", Sse, Usage;
    /// No usage.
    NoUsage = "no-usage", Streams, Chunks;
    /// Lines end with CRLF.
    Crlf = "crlf", Streams, Usage;
    /// Lines end with CR.
    Cr = "cr", Sse, Usage;
    /// Comments, other fields and empty lines between events.
    Pings = "pings", Streams, Usage;
    /// The mark of UTF-8 at the start of the stream.
    Bom = "bom", Sse, Usage;
    /// No blank after `data:`.
    NoSpace = "no-space", Sse, Usage;
    /// Each event in two `data:` lines.
    MultiLine = "multi-line", Sse, Usage;
    /// Every write ends inside a character.
    SplitUtf8 = "split-utf8", Streams, Usage;
    /// An event of 1 MiB.
    Fat = "fat", Streams, Usage;
    /// Compressed, although not requested.
    Gzip = "gzip", All, Usage;
    /// Chunk sizes with leading zeros, capital digits and extensions.
    ChunkExtensions = "chunk-extensions", All, Usage;
    /// Headers after the body.
    Trailers = "trailers", All, Usage;
    /// A body that ends with the connection.
    CloseDelimited = "close-delimited", All, Usage;
    /// Header names in capitals, blanks around the values.
    OddHead = "odd-head", All, Usage;
    /// The head in single bytes.
    SlowHead = "slow-head", All, Usage;
    /// Informational answers before the real one.
    Informational = "informational", All, Usage;
    /// The body in single bytes.
    Drip = "drip", All, Usage;
    /// The connection ends right after the answer, without a word before.
    Stale = "stale", All, Usage;
    /// The stream breaks off in the middle.
    EarlyEof = "early-eof", Streams, Fails(Class::TruncatedStream);
    /// Neither the mark of the end nor a reason to finish.
    NoDone = "no-done", Streams, Fails(Class::TruncatedStream);
    /// All of the stream but the last chunk, which ends the body.
    NoLastChunk = "no-last-chunk", Streams, Fails(Class::TruncatedStream);
    /// An error inside an answer of status 200, in the middle.
    ErrorEvent = "error-event", Streams, Fails(Class::ErrorEventIn200);
    /// An error object as the whole answer, with status 200.
    ErrorBody = "error-body", All, Fails(Class::ErrorEventIn200);
    /// A complete answer without content.
    Empty = "empty", All, Fails(Class::EmptyResponse);
    /// What is not JSON.
    Garbage = "garbage", All, Fails(Class::Parse);
    /// Bytes that are not UTF-8.
    BadUtf8 = "bad-utf8", All, Fails(Class::Parse);
    /// A page of HTML with status 200.
    Html = "html", All, Fails(Class::Parse);
    /// Headers without end.
    EndlessHead = "endless-head", All, Fails(Class::Parse);
    /// A line of 1 GiB.
    LongLine = "long-line", All, Fails(Class::Parse);
    /// A few kilobytes that unpack to gigabytes.
    ZipBomb = "zip-bomb", All, Fails(Class::Parse);
    /// A byte of the body every 50 ms.
    SlowBody = "slow-body", All, Fails(Class::TimeoutTotal);
    /// Never answers.
    Hang = "hang", All, Fails(Class::TimeoutFirstByte);
    /// Closes the connection instead of answering.
    Drop = "drop", All, Fails(Class::ResetBeforeResponse);
    /// Status 429.
    Status429 = "status-429", All, Fails(Class::Status4xx);
    /// Status 500.
    Status500 = "status-500", All, Fails(Class::Status5xx);
    /// One vector or score less than requested.
    ShortList = "short-list", Lists, Fails(Class::VerifyMismatch);
    /// One vector shorter than the others, or one score twice.
    OddList = "odd-list", Lists, Fails(Class::VerifyMismatch);
}

/// The faults of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults(u64);

impl Faults {
    /// Whether `fault` is among them.
    pub(super) fn has(self, fault: Fault) -> bool {
        self.0 & bit(fault) != 0
    }

    /// Whether any of `faults` is among them.
    pub(super) fn any(self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.has(*fault))
    }

    /// With one more.
    pub(super) fn with(self, fault: Fault) -> Self {
        Self(self.0 | bit(fault))
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<T: IntoIterator<Item = Fault>>(faults: T) -> Self {
        faults.into_iter().fold(Self::default(), Self::with)
    }
}

/// The place of a fault in the set; there are fewer than 64 (checked by a test).
fn bit(fault: Fault) -> u64 {
    1 << (fault as u32)
}

/// A fault in every Nth request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FaultRule {
    fault: Fault,
    every: u64,
}

impl FaultRule {
    /// The fault, if request `number` (from 1) has it.
    pub(super) fn applies(self, number: u64) -> Option<Fault> {
        number.is_multiple_of(self.every).then_some(self.fault)
    }
}

impl FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, every) = text.split_once('/').unwrap_or((text, "1"));
        let fault = TABLE.iter().find(|(_, name, ..)| *name == word).map(|(fault, ..)| *fault);
        let every: Option<u64> = every.parse().ok().filter(|every| *every > 0);
        match (fault, every) {
            (Some(fault), Some(every)) => Ok(Self { fault, every }),
            (None, _) => {
                let names: Vec<&str> = TABLE.iter().map(|(_, name, ..)| *name).collect();
                Err(format!("unknown fault '{word}': expected one of {}", names.join(", ")))
            }
            (Some(_), None) => Err(format!("'{text}': expected NAME or NAME/N with N above 0")),
        }
    }
}

/// The table of faults, a line each: name, answers it applies to, what a client should report
/// (`ok`: tokens as the server counted them; `ok-chunks`: content events counted; or the class of
/// the failure), description; separated by tabs.
pub(super) fn list() -> String {
    let mut text = String::new();
    for (_, name, on, expect, what) in TABLE {
        let on = match on {
            On::All => "all",
            On::Streams => "streams",
            On::Sse => "sse",
            On::Chat => "sse-chat",
            On::Chats => "chat",
            On::Lists => "embeddings,rerank",
        };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{name}\t{on}\t{}\t{}", expect.as_str(), what.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let rule: FaultRule = "early-eof/3".parse().unwrap();
        let hit: Vec<u64> = (1..=9).filter(|n| rule.applies(*n).is_some()).collect();
        assert_eq!(hit, [3, 6, 9]);
        let always: FaultRule = "drop".parse().unwrap();
        assert_eq!(always.applies(1), Some(Fault::Drop));
        assert!("dorp".parse::<FaultRule>().unwrap_err().contains("expected one of"));
        assert!("drop/0".parse::<FaultRule>().is_err());
    }

    #[test]
    fn every_fault_has_a_place_of_its_own() {
        assert!(TABLE.len() < 64);
        let mut all = Faults::default();
        for (fault, name, ..) in TABLE {
            assert!(!all.has(*fault), "{name}");
            all = all.with(*fault);
            assert!(all.has(*fault) && all.any(&[*fault]));
        }
        let names: std::collections::BTreeSet<&str> =
            TABLE.iter().map(|(_, name, ..)| *name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert_eq!(list().lines().count(), TABLE.len());
        assert!(list().lines().all(|line| line.split('\t').count() == 4));
    }
}
