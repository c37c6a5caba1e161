//! The answers of an HTTP/1.1 server, as a state machine: bytes in, head, body and trailers out.
//!
//! Knows no sockets. Strict where leniency has been abused (RFC 9112): folded header lines,
//! lengths that contradict each other, codings other than chunked and bare line feeds between
//! chunks are refused. Every part is bounded.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Response, Status};

use super::super::{Fields, Head};

/// Longest head, or trailer: what usual servers allow at most for a request.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header fields, or trailers.
pub(crate) const FIELDS_MAX: usize = 128;

/// Longest line with a chunk's size: extensions are hardly ever used.
pub(crate) const CHUNK_LINE_MAX: usize = 4 * 1024;

/// Most interim answers (1xx) before the real one.
pub(crate) const INTERIM_MAX: u32 = 16;

/// Takes what is decoded.
pub(crate) trait Sink {
    /// Why it wants no more; the decoder's own complaints become one too.
    type Error: From<Broken>;

    /// Status and headers.
    fn head(&mut self, head: &Head<'_>) -> Result<(), Self::Error>;

    /// A part of the body.
    fn body(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Fields after a chunked body.
    fn trailers(&mut self, fields: &Fields<'_>) -> Result<(), Self::Error>;
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More has to come.
    More,
    /// The answer is complete.
    Done {
        /// Unsolicited bytes came after it.
        surplus: bool,
    },
}

/// The answer to one request after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// A head, or trailer, whose end has not come yet.
    kept: Vec<u8>,
    /// The request was HEAD: no body follows whatever the head says.
    bodiless: bool,
    interim: u32,
    /// The connection may be used again after this answer.
    keep_alive: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before the end of the head.
    #[default]
    Head,
    /// This many bytes of the body are to come.
    Length(u64),
    /// The body ends with the connection.
    UntilClose,
    /// In the line with a chunk's size.
    Size { size: u64, length: usize, part: SizePart },
    /// This many bytes of a chunk are to come.
    Chunk(u64),
    /// Before the line end after a chunk's data; its first byte was seen.
    ChunkEnd(bool),
    /// After the last chunk.
    Trailers,
    /// Complete.
    Done,
}

/// Where in the line with a chunk's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SizePart {
    /// Before the first digit.
    Start,
    Digits,
    /// Blanks after the digits.
    Blank,
    Extension,
    /// After CR.
    End,
}

const NEXT_SIZE: State = State::Size { size: 0, length: 0, part: SizePart::Start };

impl Decoder {
    /// A request was sent; `bodiless` where its answer has no body (HEAD).
    pub(crate) fn begin(&mut self, bodiless: bool) {
        self.state = State::Head;
        self.kept.clear();
        self.bodiless = bodiless;
        self.interim = 0;
        self.keep_alive = false;
    }

    /// Whether the connection may be used again, once the answer is complete.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// If it is no answer that is understood, or the sink's first error.
    pub(crate) fn feed<S: Sink>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut S,
    ) -> Result<Progress, S::Error> {
        loop {
            match self.state {
                State::Done => return Ok(Progress::Done { surplus: !bytes.is_empty() }),
                _ if bytes.is_empty() => return Ok(Progress::More),
                State::Head => bytes = self.head(bytes, sink)?,
                State::Length(left) => {
                    let (now, rest) = cut(bytes, left);
                    sink.body(now)?;
                    bytes = rest;
                    self.state = match left - length(now) {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                }
                State::UntilClose => {
                    sink.body(bytes)?;
                    return Ok(Progress::More);
                }
                State::Size { size, length, part } => {
                    bytes = self.size(bytes, size, length, part)?;
                }
                State::Chunk(left) => {
                    let (now, rest) = cut(bytes, left);
                    sink.body(now)?;
                    bytes = rest;
                    self.state = match left - length(now) {
                        0 => State::ChunkEnd(false),
                        left => State::Chunk(left),
                    };
                }
                State::ChunkEnd(after_cr) => {
                    let (first, rest) = bytes.split_at(1);
                    bytes = rest;
                    self.state = match (after_cr, first) {
                        (false, b"\r") => State::ChunkEnd(true),
                        (true, b"\n") => NEXT_SIZE,
                        _ => return Err(Broken("a chunk is longer than its size says").into()),
                    };
                }
                State::Trailers => bytes = self.trailers(bytes, sink)?,
            }
        }
    }

    /// The connection has ended; whether the answer is complete with that.
    pub(crate) fn eof(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// However the bytes come: until the empty line only the begin of the first line is looked at.
    fn head<'b, S: Sink>(&mut self, bytes: &'b [u8], sink: &mut S) -> Result<&'b [u8], S::Error> {
        if self.kept.is_empty() {
            match self.parse(bytes, sink) {
                Ok(Some(used)) => return Ok(bytes.get(used..).unwrap_or_default()),
                Err(error) if is_whole(bytes) => return Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        let before = self.kept.len();
        let room = HEAD_BYTES_MAX.saturating_sub(before).min(bytes.len());
        let (taken, _) = bytes.split_at(room);
        self.kept.extend_from_slice(taken);
        let head = without_blanks(&self.kept);
        let blanks = self.kept.len() - head.len();
        if !begins_answer(head) {
            return Err(Broken("invalid HTTP version").into());
        }
        // Parsing begins anew each time, so only where an end may have come.
        if before == 0 || !ends_within(head, before.saturating_sub(blanks)) {
            return self.bounded(room, bytes);
        }
        let kept = std::mem::take(&mut self.kept);
        let used = self.parse(&kept, sink)?;
        self.kept = kept;
        match used {
            Some(used) => {
                self.kept.clear();
                // What came before this read belongs to the head.
                Ok(bytes.get(used.saturating_sub(before)..).unwrap_or_default())
            }
            None => self.bounded(room, bytes),
        }
    }

    fn bounded<'b, E: From<Broken>>(&self, room: usize, bytes: &'b [u8]) -> Result<&'b [u8], E> {
        if self.kept.len() >= HEAD_BYTES_MAX {
            return Err(Broken("the message head is too large").into());
        }
        Ok(bytes.get(room..).unwrap_or_default())
    }

    /// Reads a head; `None` when its end has not come.
    fn parse<S: Sink>(&mut self, bytes: &[u8], sink: &mut S) -> Result<Option<usize>, S::Error> {
        let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_MAX];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        let used = match parsed {
            Ok(Status::Complete(used)) => used,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(Broken(complaint(error)).into()),
        };
        if used > HEAD_BYTES_MAX {
            return Err(Broken("the message head is too large").into());
        }
        let status = response.code.unwrap_or(0);
        if status == 101 {
            return Err(Broken("the server switches to another protocol").into());
        }
        if (100..200).contains(&status) {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Broken("too many interim responses").into());
            }
            return Ok(Some(used));
        }
        let fields = &*response.headers;
        let framing = Framing::of(fields)?;
        let old = response.version == Some(0);
        self.keep_alive = if old { framing.keep } else { !framing.close };
        self.state = if self.bodiless || status == 204 || status == 304 {
            State::Done
        } else if framing.chunked {
            if old {
                return Err(Broken("a chunked HTTP/1.0 response").into());
            }
            NEXT_SIZE
        } else {
            match framing.length {
                Some(0) => State::Done,
                Some(length) => State::Length(length),
                None => {
                    self.keep_alive = false;
                    State::UntilClose
                }
            }
        };
        sink.head(&Head { status, fields: Fields::List(fields) })?;
        Ok(Some(used))
    }

    fn size<'b, E: From<Broken>>(
        &mut self,
        bytes: &'b [u8],
        mut size: u64,
        mut length: usize,
        mut part: SizePart,
    ) -> Result<&'b [u8], E> {
        let mut left = bytes.iter();
        while let Some(&byte) = left.next() {
            length += 1;
            if length > CHUNK_LINE_MAX {
                return Err(Broken("the line of a chunk's size is too long").into());
            }
            part = match (part, byte) {
                (SizePart::Start | SizePart::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = char::from(byte).to_digit(16).unwrap_or(0);
                    size = size
                        .checked_mul(16)
                        .map(|size| size | u64::from(digit))
                        .ok_or(Broken("a chunk's size is too large"))?;
                    SizePart::Digits
                }
                (SizePart::Digits | SizePart::Blank, b' ' | b'\t') => SizePart::Blank,
                (SizePart::Digits | SizePart::Blank, b';') => SizePart::Extension,
                (SizePart::Digits | SizePart::Blank | SizePart::Extension, b'\r') => SizePart::End,
                (SizePart::End, b'\n') => {
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                    return Ok(left.as_slice());
                }
                // A bare LF hides the end of the line from others.
                (SizePart::Extension, byte) if byte != b'\n' => SizePart::Extension,
                _ => return Err(Broken("a chunk has no valid size").into()),
            };
        }
        self.state = State::Size { size, length, part };
        Ok(&[])
    }

    fn trailers<'b, S: Sink>(
        &mut self,
        bytes: &'b [u8],
        sink: &mut S,
    ) -> Result<&'b [u8], S::Error> {
        if self.kept.is_empty()
            && let Some(rest) = bytes.strip_prefix(b"\r\n")
        {
            self.state = State::Done;
            return Ok(rest);
        }
        let before = self.kept.len();
        let room = HEAD_BYTES_MAX.saturating_sub(before).min(bytes.len());
        let (taken, _) = bytes.split_at(room);
        self.kept.extend_from_slice(taken);
        if !ends_within(&self.kept, before) && !self.kept.starts_with(b"\r\n") {
            return self.bounded(room, bytes);
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(&self.kept, &mut fields) {
            Ok(Status::Complete((used, fields))) => {
                if !fields.is_empty() {
                    sink.trailers(&Fields::List(fields))?;
                }
                self.kept.clear();
                self.state = State::Done;
                Ok(bytes.get(used.saturating_sub(before)..).unwrap_or_default())
            }
            Ok(Status::Partial) => self.bounded(room, bytes),
            Err(error) => Err(Broken(complaint(error)).into()),
        }
    }
}

/// What a head says about its body.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
}

impl Framing {
    fn of(fields: &[Header<'_>]) -> Result<Self, Broken> {
        let mut framing = Self::default();
        let mut coded = false;
        for Header { name, value } in fields {
            // Most fields differ in length.
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    for part in value.split(|byte| *byte == b',') {
                        let length = number(part.trim_ascii())
                            .ok_or(Broken("the content length is not a number"))?;
                        if framing.length.is_some_and(|before| before != length) {
                            return Err(Broken("content lengths contradict each other"));
                        }
                        framing.length = Some(length);
                    }
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if coded || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(Broken("a transfer coding that is not just chunked"));
                    }
                    coded = true;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in value.split(|byte| *byte == b',') {
                        let token = token.trim_ascii();
                        framing.close |= token.eq_ignore_ascii_case(b"close");
                        framing.keep |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        if coded && framing.length.is_some() {
            return Err(Broken("both a content length and chunks"));
        }
        framing.chunked = coded;
        framing.keep &= !framing.close;
        Ok(framing)
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The first `most` bytes, and the rest.
fn cut(bytes: &[u8], most: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at(at)
}

/// The bytes without the empty lines that some servers send ahead of an answer.
fn without_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    bytes.get(blanks..).unwrap_or_default()
}

/// Whether an answer of HTTP/1 can begin so.
fn begins_answer(head: &[u8]) -> bool {
    head.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected)
}

/// Whether these bytes begin an answer and have the end of its head.
fn is_whole(bytes: &[u8]) -> bool {
    let head = without_blanks(bytes);
    begins_answer(head) && ends_within(head, 0)
}

/// Whether an empty line ends at or after `from`.
fn ends_within(bytes: &[u8], from: usize) -> bool {
    let tail = bytes.get(from.saturating_sub(3)..).unwrap_or_default();
    memchr::memchr_iter(b'\n', tail).any(|at| {
        let before = tail.get(..at).unwrap_or_default();
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    })
}

fn complaint(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => "invalid HTTP header",
        httparse::Error::TooManyHeaders => "too many header fields",
        httparse::Error::Version => "invalid HTTP version",
        httparse::Error::Status => "invalid HTTP status",
        _ => "invalid HTTP",
    }
}

#[cfg(test)]
mod tests;
