//! What fuzz targets call: the parsers of what servers send. Each takes any bytes, ends in
//! bounded time and memory, and never panics; what it makes of them does not depend on how they
//! are `split` into reads, which the targets check.

use httparse::Header;

use crate::{
    driver::{kserve, ollama_answer, openai_answer},
    record::row::Seen,
    wire::{
        Fields, Head, Reply, ndjson,
        raw::decode::{Broken, Decoder, Progress, Sink},
        sse,
    },
};

/// Why a stream was given up; fuzz targets need only that it was.
#[derive(Debug)]
struct Refused;

impl From<sse::TooLong> for Refused {
    fn from(_: sse::TooLong) -> Self {
        Self
    }
}

impl From<Broken> for Refused {
    fn from(_: Broken) -> Self {
        Self
    }
}

/// The bytes behind the first four, whole or split at the places that those name.
fn pieces(data: &[u8], split: bool) -> Vec<&[u8]> {
    let Some((cuts, mut rest)) = data.split_first_chunk::<4>() else { return vec![data] };
    let mut pieces = Vec::new();
    for cut in cuts.iter().filter(|_| split) {
        let (piece, tail) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// Server-sent events: what they say, and whether the stream was taken.
pub fn sse(data: &[u8], split: bool) -> (Vec<Vec<u8>>, bool) {
    let mut events = Vec::new();
    let mut parser = sse::Parser::default();
    let mut each = |event: &[u8]| -> Result<(), Refused> {
        events.push(event.to_vec());
        Ok(())
    };
    let fed = pieces(data, split).into_iter().try_for_each(|piece| parser.feed(piece, &mut each));
    let taken = fed.and_then(|()| parser.finish(&mut each)).is_ok();
    (events, taken)
}

/// JSON texts, one a line: what they say, and whether the stream was taken.
pub fn ndjson(data: &[u8], split: bool) -> (Vec<Vec<u8>>, bool) {
    let mut lines = Vec::new();
    let mut parser = ndjson::Parser::default();
    let mut each = |line: &[u8]| -> Result<(), Refused> {
        lines.push(line.to_vec());
        Ok(())
    };
    let fed = pieces(data, split).into_iter().try_for_each(|piece| parser.feed(piece, &mut each));
    let taken = fed.and_then(|()| parser.finish(&mut each)).is_ok();
    (lines, taken)
}

/// What a reply makes of a body with this head and these trailers.
fn reply(
    mut reply: impl Reply,
    (head, trailers): (&[Header<'_>], &[Header<'_>]),
    data: &[u8],
    split: bool,
) -> String {
    let mut seen = Seen::default();
    let result = reply
        .head(&Head { status: 200, fields: Fields::List(head) }, &mut seen)
        .and_then(|()| {
            let mut pieces = pieces(data, split).into_iter();
            pieces.try_for_each(|piece| reply.body(piece, 5, &mut seen))
        })
        .and_then(|()| reply.trailers(&Fields::List(trailers), &mut seen))
        .and_then(|()| reply.end(5, &mut seen));
    format!("{result:?} {seen:?}")
}

fn header<'a>(name: &'a str, value: &'a [u8]) -> [Header<'a>; 1] {
    [Header { name, value }]
}

/// A streamed answer of OpenAI's API.
pub fn openai(data: &[u8], split: bool) -> String {
    let head = header("content-type", b"text/event-stream");
    reply(openai_answer::Streamed::default(), (&head, &[]), data, split)
}

/// A streamed answer of Ollama's API.
pub fn ollama(data: &[u8], split: bool) -> String {
    let head = header("content-type", b"application/x-ndjson");
    reply(ollama_answer::Generated::default(), (&head, &[]), data, split)
}

/// An answer to an inference; the last three bytes say in which form: JSON, JSON and raw tensors,
/// a gRPC message or a stream of them.
pub fn kserve(data: &[u8], split: bool) -> String {
    let Some((data, &[form, high, low])) = data.split_last_chunk::<3>() else {
        return String::new();
    };
    let length = u16::from_be_bytes([high, low]).to_string();
    let json = header("inference-header-content-length", length.as_bytes());
    let grpc = header("content-type", b"application/grpc");
    let status = header("grpc-status", b"0");
    match form % 4 {
        0 => reply(kserve::any_http(), (&[], &[]), data, split),
        1 => reply(kserve::any_http(), (&json, &[]), data, split),
        form => reply(kserve::any_grpc(form == 3), (&grpc, &status), data, split),
    }
}

/// Gathers what is decoded.
#[derive(Default)]
struct Gathered {
    text: String,
    body: Vec<u8>,
}

impl Sink for Gathered {
    type Error = Refused;

    fn head(&mut self, head: &Head<'_>) -> Result<(), Refused> {
        self.text.push_str(&format!("{} {:?} ", head.status, head.content_type()));
        Ok(())
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn trailers(&mut self, trailers: &Fields<'_>) -> Result<(), Refused> {
        self.text.push_str(trailers.text("x").unwrap_or("-"));
        Ok(())
    }
}

/// An answer of an HTTP/1.1 server: its head, how it ends, its body.
pub fn http_head(data: &[u8], split: bool) -> (String, Vec<u8>) {
    let mut gathered = Gathered::default();
    let mut decoder = Decoder::default();
    decoder.begin(data.last() == Some(&1));
    let mut end = "more";
    for piece in pieces(data, split) {
        match decoder.feed(piece, &mut gathered) {
            Ok(Progress::More) => continue,
            Ok(Progress::Done { .. }) if decoder.keep_alive() => end = "kept",
            Ok(Progress::Done { .. }) => end = "closed",
            Err(Refused) => end = "refused",
        }
        break;
    }
    (format!("{} {end}", gathered.text), gathered.body)
}

/// An answer of embeddings or of a rerank; gives whether it was taken for a good one.
pub fn lists(data: &[u8]) -> bool {
    crate::driver::fuzz_lists(data)
}
