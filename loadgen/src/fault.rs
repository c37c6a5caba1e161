//! Classes of failures, one list for all drivers.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        /// Why a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub(crate) enum Class {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl Class {
            /// Every class.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in files.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The class of a word.
            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

classes! {
    /// The name of the server has no address.
    Dns = "dns",
    /// Nothing listens there.
    ConnectRefused = "connect_refused",
    /// No connection within the limit.
    ConnectTimeout = "connect_timeout",
    /// No connection for another reason: no route, no free port.
    ConnectFailed = "connect_failed",
    /// The TLS handshake failed.
    Tls = "tls",
    /// The request could not be written.
    Send = "send",
    /// The connection ended before the first byte of an answer.
    ResetBeforeResponse = "reset_before_response",
    /// A redirection or an informational answer where none is expected.
    Status3xx = "status_3xx",
    /// The server blames the request.
    Status4xx = "status_4xx",
    /// The server blames itself.
    Status5xx = "status_5xx",
    /// No byte of an answer within the limit.
    TimeoutFirstByte = "timeout_first_byte",
    /// Nothing more for too long.
    TimeoutIdle = "timeout_idle",
    /// Not over within the limit.
    TimeoutTotal = "timeout_total",
    /// The answer broke off.
    TruncatedStream = "truncated_stream",
    /// An error event inside an answer of status 200.
    ErrorEventIn200 = "error_event_in_200",
    /// The answer is not what the protocol says.
    Parse = "parse",
    /// A complete answer without any content.
    EmptyResponse = "empty_response",
    /// The content is not what was stored or asked for.
    VerifyMismatch = "verify_mismatch",
    /// Ended by us.
    CancelledAtEnd = "cancelled_at_end",
    /// The command could not be started.
    Spawn = "spawn",
    /// The command ended with another code than 0.
    ExitStatus = "exit_status",
    /// The database refused the statement.
    Sql = "sql",
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed request: its class, and one line about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Class.
    pub(crate) class: Class,
    /// What happened.
    pub(crate) message: String,
}

/// Bytes of a fault's message that are kept: enough for a server's error text.
const MESSAGE_MAX: usize = 500;

impl Fault {
    /// A fault; of a long message both ends are kept.
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        let message = message.into();
        match shortened(&message, MESSAGE_MAX) {
            Cow::Borrowed(_) => Self { class, message },
            Cow::Owned(message) => Self { class, message },
        }
    }

    /// The fault of a failed connect.
    pub(crate) fn connect(error: &std::io::Error, address: &dyn fmt::Display) -> Self {
        let class = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Class::ConnectRefused,
            std::io::ErrorKind::TimedOut => Class::ConnectTimeout,
            _ => Class::ConnectFailed,
        };
        Self::new(class, format!("connecting to {address}: {error}"))
    }
}

/// A text of at most about `most` bytes: of a longer one the middle is left out, for a Python
/// traceback says what happened at its end.
pub(crate) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let (head, _) = text.split_at(text.floor_char_boundary(most / 2));
    let (_, tail) = text.split_at(text.ceil_char_boundary(text.len() - most / 2));
    format!("{head}…{tail}").into()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for class in Class::ALL {
            assert_eq!(Class::from_word(class.as_str()), Some(*class));
            let json = serde_json::to_string(class).unwrap();
            assert_eq!(json, format!("\"{class}\""));
        }
        assert_eq!(Class::from_word("no"), None);
    }

    #[test]
    fn of_long_messages_both_ends_are_kept() {
        let text = format!("first{}last", "ä".repeat(400));
        let fault = Fault::new(Class::Parse, text);
        assert!(fault.message.len() <= MESSAGE_MAX + '…'.len_utf8());
        assert!(fault.message.starts_with("firstä") && fault.message.ends_with("älast"));
        assert!(fault.message.contains("ä…ä"), "{fault}");
        let short = "ä".repeat(MESSAGE_MAX / 2);
        assert_eq!(Fault::new(Class::Parse, short.clone()).message, short);
    }
}
