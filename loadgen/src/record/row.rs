//! What was seen of one request, and the times that follow from it.

use std::borrow::Cow;

use crate::{fault::Class, plan::Phase};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered as it should be.
    Ok,
    /// Answered with an error, or not at all.
    Failed,
    /// Ended by us at the end of the drain, or because the load was stopped.
    Cancelled,
}

impl Outcome {
    /// The word in files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of a word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Ok, Self::Failed, Self::Cancelled].into_iter().find(|one| one.as_str() == word)
    }
}

/// Where the number of output tokens comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// The server's own count.
    Usage,
    /// Content events.
    Chunks,
}

impl TokenSource {
    /// The word in files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Chunks => "chunks",
        }
    }

    /// The source of a word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Usage, Self::Chunks].into_iter().find(|one| one.as_str() == word)
    }
}

/// Gaps in nanoseconds, as LEB128: 20 ms take 4 bytes, and ten thousand streams of a thousand
/// tokens stay below 50 MB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps(Vec<u8>);

impl Gaps {
    /// Without gaps, with room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends a gap.
    pub(crate) fn push(&mut self, mut ns: u64) {
        while ns >= 0x80 {
            self.0.push(u8::try_from(ns & 0x7f).unwrap_or(0) | 0x80);
            ns >>= 7;
        }
        self.0.push(u8::try_from(ns).unwrap_or(0));
    }

    /// Memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// All gaps, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut bytes = self.0.iter();
        std::iter::from_fn(move || {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = *bytes.next()?;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return Some(value);
                }
                shift += 7;
            }
        })
    }
}

/// What a driver saw of one request. Stamps are CLOCK_MONOTONIC in nanoseconds; those of
/// received data are taken once for each read(), before parsing. Absent: did not happen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// A connection was opened for this request: how long that took.
    pub(crate) connect_ns: Option<u64>,
    /// Of it, the TLS handshake.
    pub(crate) tls_ns: Option<u64>,
    /// The first byte was handed to the system.
    pub(crate) first_write_ns: Option<u64>,
    /// The first byte of the answer was read.
    pub(crate) first_byte_ns: Option<u64>,
    /// The first non-empty content was read.
    pub(crate) first_content_ns: Option<u64>,
    /// The last non-empty content was read.
    pub(crate) last_content_ns: Option<u64>,
    /// The first content that is neither reasoning nor empty was read: the first output.
    pub(crate) first_output_ns: Option<u64>,
    /// The first event of the answer was read, whatever is in it.
    pub(crate) first_event_ns: Option<u64>,
    /// The last event of the answer was read; the mark that ends a stream is not one.
    pub(crate) last_event_ns: Option<u64>,
    /// The first event with a choice was read, also an empty one (OpenAI's protocols only).
    pub(crate) first_choice_ns: Option<u64>,
    /// The last event with a choice was read.
    pub(crate) last_choice_ns: Option<u64>,
    /// The mark that ends the answer was read: `[DONE]`, or the object that says done.
    pub(crate) done_ns: Option<u64>,
    /// The end of the answer was read.
    pub(crate) end_ns: Option<u64>,
    /// Between content events.
    pub(crate) gaps: Gaps,
    /// From a content event's stamp of its server to its read, where it has one: servers of ours,
    /// and true only on their own node.
    pub(crate) receive_lags: Gaps,
    /// Content events.
    pub(crate) content_events: u32,
    /// Tokens of the first content event, where the server counts them event by event.
    pub(crate) first_chunk_tokens: Option<u64>,
    /// Reads that brought data.
    pub(crate) reads: u32,
    /// Status of the answer, where the protocol has one.
    pub(crate) status: Option<u16>,
    /// Bytes written.
    pub(crate) bytes_sent: u64,
    /// Bytes read.
    pub(crate) bytes_received: u64,
    /// Output tokens.
    pub(crate) output_tokens: Option<u64>,
    /// Input tokens, as the server counted them.
    pub(crate) input_tokens: Option<u64>,
    /// Input tokens that the server took from its prefix cache, where it says so.
    pub(crate) cached_tokens: Option<u64>,
    /// Where `output_tokens` comes from.
    pub(crate) token_source: Option<TokenSource>,
    /// Sent again on a new connection, because the kept one turned out to be closed.
    pub(crate) resent: bool,
    /// Things that the request did, where it is more than one thing: texts, rows.
    pub(crate) items: Option<u64>,
    /// Bytes of the user's own data that were moved, without protocol.
    pub(crate) payload_bytes: Option<u64>,
    /// Share of the true nearest neighbours that the answer has, 0 to 1.
    pub(crate) recall: Option<f64>,
}

impl Seen {
    /// Notes when the content read at `at` was sent, if it says so.
    pub(crate) fn received(&mut self, at: u64, sent: Option<u64>) {
        if let Some(lag) = sent.and_then(|sent| at.checked_sub(sent)) {
            self.receive_lags.push(lag);
        }
    }

    /// Notes an event of the answer read at `at`.
    pub(crate) fn event(&mut self, at: u64) {
        self.first_event_ns.get_or_insert(at);
        self.last_event_ns = Some(at);
    }

    /// Notes an event with a choice read at `at`.
    pub(crate) fn choice(&mut self, at: u64) {
        self.first_choice_ns.get_or_insert(at);
        self.last_choice_ns = Some(at);
    }

    /// Notes non-empty content read at `at`.
    pub(crate) fn content(&mut self, at: u64) {
        match self.last_content_ns {
            None => self.first_content_ns = Some(at),
            Some(before) => self.gaps.push(at.saturating_sub(before)),
        }
        self.last_content_ns = Some(at);
        self.content_events = self.content_events.saturating_add(1);
    }
}

/// One request, as a row of `worker-<rank>.arrows`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Whether it counts.
    pub(crate) phase: Phase,
    /// Number within the phase, over all workers.
    pub(crate) id: u64,
    /// Operation.
    pub(crate) operation: Cow<'static, str>,
    /// When it was due.
    pub(crate) planned_ns: u64,
    /// When the loop took it up.
    pub(crate) dequeued_ns: u64,
    /// When it was over: the end of the answer, or when it was given up.
    pub(crate) end_ns: u64,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// Class of the failure.
    pub(crate) error: Option<Class>,
    /// What was seen.
    pub(crate) seen: Seen,
}

impl Row {
    /// A row of which nothing is known yet.
    pub(crate) fn blank() -> Self {
        Self {
            phase: Phase::Measure,
            id: 0,
            operation: Cow::Borrowed(""),
            planned_ns: 0,
            dequeued_ns: 0,
            end_ns: 0,
            outcome: Outcome::Ok,
            error: None,
            seen: Seen::default(),
        }
    }

    /// Planned instant to first content.
    pub(crate) fn ttft(&self) -> Option<u64> {
        self.seen.first_content_ns?.checked_sub(self.planned_ns)
    }

    /// Planned instant to first output: content that is not reasoning.
    pub(crate) fn ttfo(&self) -> Option<u64> {
        self.seen.first_output_ns?.checked_sub(self.planned_ns)
    }

    /// (last content − first content) / (output tokens − 1); absent below two tokens, where there
    /// is no gap.
    pub(crate) fn tpot(&self) -> Option<u64> {
        let gaps = self.seen.output_tokens?.checked_sub(1)?;
        self.seen.last_content_ns?.checked_sub(self.seen.first_content_ns?)?.checked_div(gaps)
    }

    /// Planned instant to last content; to the end of the answer where it has no content events.
    pub(crate) fn e2e(&self) -> Option<u64> {
        self.seen.last_content_ns.unwrap_or(self.end_ns).checked_sub(self.planned_ns)
    }

    /// Planned instant to the end of the answer.
    pub(crate) fn total(&self) -> Option<u64> {
        self.end_ns.checked_sub(self.planned_ns)
    }

    /// First byte written to the end of the answer.
    pub(crate) fn service(&self) -> Option<u64> {
        self.end_ns.checked_sub(self.seen.first_write_ns?)
    }

    /// Planned instant to first byte written.
    pub(crate) fn client_lag(&self) -> Option<u64> {
        self.seen.first_write_ns?.checked_sub(self.planned_ns)
    }

    /// The client lag without the time to connect, which is the network's and the server's: what
    /// a verdict may blame the client for.
    pub(crate) fn own_lag(&self) -> Option<u64> {
        Some(self.client_lag()?.saturating_sub(self.seen.connect_ns.unwrap_or(0)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request due at 1 s that streamed three tokens.
    pub(crate) fn streamed() -> Row {
        let mut seen = Seen {
            first_write_ns: Some(1_000_000_500),
            first_byte_ns: Some(1_050_000_000),
            status: Some(200),
            output_tokens: Some(3),
            token_source: Some(TokenSource::Usage),
            ..Seen::default()
        };
        for at in [1_060_000_000, 1_080_000_000, 1_110_000_000] {
            seen.event(at);
            seen.choice(at);
            seen.content(at);
        }
        seen.first_output_ns = Some(1_080_000_000);
        seen.first_chunk_tokens = Some(1);
        seen.done_ns = Some(1_110_500_000);
        Row {
            phase: Phase::Measure,
            id: 7,
            operation: "chat".into(),
            planned_ns: 1_000_000_000,
            dequeued_ns: 1_000_000_100,
            end_ns: 1_111_000_000,
            outcome: Outcome::Ok,
            error: None,
            seen,
        }
    }

    #[test]
    fn times_follow_from_the_stamps() {
        let row = streamed();
        assert_eq!((row.ttft(), row.ttfo()), (Some(60_000_000), Some(80_000_000)));
        assert_eq!(row.seen.gaps.iter().collect::<Vec<_>>(), [20_000_000, 30_000_000]);
        assert_eq!(row.tpot(), Some(25_000_000));
        assert_eq!(row.e2e(), Some(110_000_000));
        assert_eq!(row.total(), Some(111_000_000));
        assert_eq!(row.service(), Some(110_999_500));
        assert_eq!((row.client_lag(), row.own_lag()), (Some(500), Some(500)));
        let seen = Seen { connect_ns: Some(300), ..row.seen.clone() };
        let row = Row { seen, ..row };
        assert_eq!((row.client_lag(), row.own_lag()), (Some(500), Some(200)));
    }

    #[test]
    fn first_and_last_events_are_kept() {
        let mut seen = Seen::default();
        for at in [5, 6, 9] {
            seen.event(at);
        }
        seen.choice(6);
        assert_eq!((seen.first_event_ns, seen.last_event_ns), (Some(5), Some(9)));
        assert_eq!((seen.first_choice_ns, seen.last_choice_ns), (Some(6), Some(6)));
        assert_eq!(seen.first_content_ns, None);
    }

    #[test]
    fn what_did_not_happen_is_absent() {
        let mut row = streamed();
        row.seen.output_tokens = Some(1);
        assert_eq!(row.tpot(), None);
        row.seen = Seen::default();
        assert_eq!(
            (row.ttft(), row.tpot(), row.service(), row.client_lag()),
            (None, None, None, None)
        );
        assert_eq!(row.e2e(), row.total());
    }

    #[test]
    fn gaps_of_any_size_read_back() {
        let values =
            [0, 1, 127, 128, 16_383, 16_384, 20_000_000, u64::from(u32::MAX) + 1, u64::MAX];
        let mut gaps = Gaps::default();
        for value in values {
            gaps.push(value);
        }
        assert_eq!(gaps.iter().collect::<Vec<_>>(), values);
    }
}
