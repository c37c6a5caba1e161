//! `kserve-grpc`: one inference a request over gRPC; decoupled models stream their answers.
//!
//! Framing and status are read here and the messages by prost, above our own HTTP/2 connection,
//! instead of by a gRPC library with a channel of its own: so each part of an answer has the
//! stamp of the read that brought it, as with every other protocol. A stream carries one request,
//! after which our side of it is closed; the server sends what it has and its status.

use std::rc::Rc;

use aifb_schema::recipe::{HttpVersion, Kserve, KserveOutput};
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, TE};
use prost::Message;
use serde_json::Value;

use super::{
    Inputs,
    answer::{Held, Output, check},
    frames::{Frames, frame},
    model::{self, Described, Metadata},
    proto::{
        AskedOutput, Choice, InferAnswer, InferRequest, ModelConfigAnswer, ModelMetadata,
        ModelName, ModelReady, Parameter, RAW_INPUT_KEY, SERVICE, StreamAnswer, Tensor,
    },
    tensor::Form,
};
use crate::{
    driver::protocol::Protocol,
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    record::row::{Seen, TokenSource},
    wire::{Fields, Head, Reply, Request, Route, Wire},
};

/// The driver.
pub(crate) struct Grpc {
    route: Rc<Route>,
    inputs: Inputs,
    /// The request without its raw inputs.
    message: Vec<u8>,
    outputs: Rc<[KserveOutput]>,
    stream: bool,
}

/// Parameter that asks Triton for a last, empty answer, so that the end is seen in the stream.
const ASK_FINAL: &str = "triton_enable_empty_final_response";

/// Parameter of an answer that says whether it is the last one.
const IS_FINAL: &str = "triton_final_response";

impl Protocol for Grpc {
    const HTTP: Option<HttpVersion> = Some(HttpVersion::Http2);
    const PORT: Option<&'static str> = Some("grpc");

    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let kserve = load.kserve.clone().unwrap_or_default();
        let name = model::name(load)?;
        let version = kserve.version.clone().unwrap_or_default();
        let asked = ModelName { name: name.to_owned(), version };
        for target in 0..wire.targets() {
            model::wait_until_ready(name, async || {
                let answer: ModelReady = call(wire, target, "ModelReady", &asked).await?;
                let not_yet = || Fault::new(Class::Status5xx, "the server says it is not");
                answer.ready.then_some(()).ok_or_else(not_yet)
            })
            .await?;
        }
        let metadata = if model::needs_metadata(&kserve) {
            metadata(wire, &asked).await?
        } else {
            Metadata::default()
        };
        let stream = match load.llm().stream {
            Some(stream) => stream,
            None => is_decoupled(wire, &asked).await?,
        };
        let wanted = model::inputs(load, &kserve, &metadata)?;
        let inputs = Inputs::new(job, &wanted, Form::Raw)?;
        let message = message(&asked, &kserve, &inputs, stream)?.encode_to_vec();
        let route = route(if stream { "ModelStreamInfer" } else { "ModelInfer" });
        Ok(Self { route, inputs, message, outputs: kserve.outputs.into(), stream })
    }

    fn operation(&self, _: Ask) -> &'static str {
        if self.stream { "stream_infer" } else { "infer" }
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        Ok(self.route.request(self.body(ask)))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        let kind = if self.stream { Kind::Stream } else { Kind::Single };
        Unframed::new(Answers { kind, expected: Rc::clone(&self.outputs), last: None })
    }
}

impl Grpc {
    fn body(&self, ask: Ask) -> Bytes {
        let own = self.inputs.own(ask);
        let mut message = self.message.clone();
        for tensor in &self.inputs.tensors {
            message.push(RAW_INPUT_KEY);
            let length = u64::try_from(tensor.raw_bytes(&own)).unwrap_or(u64::MAX);
            prost::encoding::encode_varint(length, &mut message);
            tensor.push(&mut message, &own);
        }
        frame(&message).into()
    }
}

fn route(method: &str) -> Rc<Route> {
    Route::post(format!("/{SERVICE}/{method}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .ready()
}

/// A request without its raw inputs.
fn message(
    asked: &ModelName,
    kserve: &Kserve,
    inputs: &Inputs,
    stream: bool,
) -> Result<InferRequest, Fatal> {
    let mut parameters = std::collections::HashMap::new();
    for (name, value) in &kserve.parameters {
        let choice = match value {
            Value::Bool(value) => Some(Choice::Bool(*value)),
            Value::String(text) => Some(Choice::Text(text.clone())),
            _ => value.as_i64().map(Choice::Int64),
        };
        if choice.is_none() {
            return Err(Fatal::usage(format!("kserve: parameter '{name}' is {value}"))
                .hint("over gRPC: a text, a whole number, true or false"));
        }
        parameters.insert(name.clone(), Parameter { choice });
    }
    if stream {
        let choice = Some(Choice::Bool(true));
        parameters.entry(ASK_FINAL.to_owned()).or_insert(Parameter { choice });
    }
    let inputs = inputs.tensors.iter().map(|tensor| Tensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.iter().map(|size| i64::from(*size)).collect(),
        ..Tensor::default()
    });
    let outputs = kserve.outputs.iter().map(|output| AskedOutput { name: output.name.clone() });
    Ok(InferRequest {
        model_name: asked.name.clone(),
        model_version: asked.version.clone(),
        parameters,
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        ..InferRequest::default()
    })
}

/// One question before the start.
async fn call<M: Message + Default + 'static>(
    wire: &Wire,
    target: usize,
    method: &str,
    message: &impl Message,
) -> Result<M, Fault> {
    let request = route(method).request(frame(&message.encode_to_vec()));
    let answer = Unframed::new(One { message: M::default() });
    let answer = wire.ask(target, &request, answer, model::ANSWER_MAX).await?;
    Ok(answer.messages.message)
}

async fn metadata(wire: &Wire, asked: &ModelName) -> Result<Metadata, Fatal> {
    let answer: ModelMetadata = call(wire, 0, "ModelMetadata", asked).await.map_err(|fault| {
        Fatal::service(format!(
            "requesting the metadata of model '{}': {}",
            asked.name, fault.message
        ))
        .hint("with datatype and shape of each input the metadata is not needed")
    })?;
    let inputs = answer.inputs.into_iter().map(|tensor| Described {
        name: tensor.name,
        datatype: tensor.datatype,
        shape: tensor.shape,
    });
    Ok(Metadata { inputs: inputs.collect() })
}

/// Whether a request of the model can have several answers. Servers other than Triton have no
/// such models, and no `ModelConfig` to ask.
async fn is_decoupled(wire: &Wire, asked: &ModelName) -> Result<bool, Fatal> {
    match call::<ModelConfigAnswer>(wire, 0, "ModelConfig", asked).await {
        Ok(answer) => {
            let transactions = answer.config.and_then(|config| config.transactions);
            Ok(transactions.is_some_and(|transactions| transactions.decoupled))
        }
        Err(fault) if matches!(fault.class, Class::Status4xx) => Ok(false),
        Err(fault) => Err(Fatal::service(format!(
            "requesting the configuration of model '{}': {}",
            asked.name, fault.message
        ))
        .hint("with llm: {stream: false} or {stream: true} the configuration is not needed")),
    }
}

/// What the messages of an answer mean.
trait Messages {
    /// A message is complete; `at_ns` is when its last byte was read.
    fn message(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault>;

    /// All have come, `count` of them, and the status is good.
    fn end(&mut self, count: u64, seen: &mut Seen) -> Result<(), Fault>;
}

/// An answer: framed messages, then a status.
struct Unframed<M> {
    frames: Frames,
    messages: M,
    count: u64,
    status: Option<Status>,
}

impl<M: Messages> Unframed<M> {
    fn new(messages: M) -> Self {
        Self { frames: Frames::default(), messages, count: 0, status: None }
    }

    fn note(&mut self, fields: Fields<'_>) -> Result<(), Fault> {
        if let Some(status) = Status::read(fields)? {
            self.status = Some(status);
        }
        Ok(())
    }
}

impl<M: Messages> Reply for Unframed<M> {
    fn head(&mut self, head: &Head<'_>, _: &mut Seen) -> Result<(), Fault> {
        let kind = head.content_type().unwrap_or_default();
        if !kind.starts_with("application/grpc") {
            return Err(Fault::new(
                Class::Parse,
                format!("the response is '{kind}', expected application/grpc"),
            ));
        }
        // An answer without messages has its status here.
        self.note(head.fields)
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Self { frames, messages, count, .. } = self;
        frames.feed(bytes, &mut |message| {
            *count += 1;
            messages.message(message, at_ns, seen)
        })
    }

    fn trailers(&mut self, fields: &Fields<'_>, _: &mut Seen) -> Result<(), Fault> {
        self.note(*fields)
    }

    fn end(&mut self, _: u64, seen: &mut Seen) -> Result<(), Fault> {
        match &self.status {
            None => Err(Fault::new(Class::TruncatedStream, "the response ends without a status")),
            Some(status) if status.code != 0 => Err(status.fault()),
            Some(_) if !self.frames.is_whole() => {
                Err(Fault::new(Class::TruncatedStream, "the response ends within a message"))
            }
            Some(_) => self.messages.end(self.count, seen),
        }
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> Result<M, Fault> {
    M::decode(bytes)
        .map_err(|error| Fault::new(Class::Parse, format!("reading the response: {error}")))
}

/// The answer to a question before the start.
struct One<M> {
    message: M,
}

impl<M: Message + Default> Messages for One<M> {
    fn message(&mut self, bytes: &[u8], _: u64, _: &mut Seen) -> Result<(), Fault> {
        self.message = decoded(bytes)?;
        Ok(())
    }

    fn end(&mut self, count: u64, _: &mut Seen) -> Result<(), Fault> {
        exactly_one(count)
    }
}

fn exactly_one(count: u64) -> Result<(), Fault> {
    if count == 1 {
        Ok(())
    } else {
        Err(Fault::new(Class::Parse, format!("{count} messages where one is expected")))
    }
}

enum Kind {
    /// `ModelInfer`.
    Single,
    /// `ModelStreamInfer`.
    Stream,
}

/// The answers to an inference.
struct Answers {
    kind: Kind,
    expected: Rc<[KserveOutput]>,
    /// Whether the server marked the latest as the final one; absent if it has no such marks.
    last: Option<bool>,
}

impl Messages for Answers {
    fn message(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        match self.kind {
            Kind::Single => verify(&self.expected, &decoded(bytes)?),
            Kind::Stream => self.streamed(decoded(bytes)?, at_ns, seen),
        }
    }

    fn end(&mut self, count: u64, seen: &mut Seen) -> Result<(), Fault> {
        match self.kind {
            Kind::Single => exactly_one(count),
            Kind::Stream if self.last == Some(false) => {
                Err(Fault::new(Class::TruncatedStream, "the stream ends before its final response"))
            }
            Kind::Stream if seen.content_events == 0 => {
                Err(Fault::new(Class::EmptyResponse, "a stream without outputs"))
            }
            Kind::Stream => {
                seen.output_tokens = Some(u64::from(seen.content_events));
                seen.token_source = Some(TokenSource::Chunks);
                Ok(())
            }
        }
    }
}

impl Answers {
    fn streamed(
        &mut self,
        StreamAnswer { error, answer }: StreamAnswer,
        at_ns: u64,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        if !error.is_empty() {
            return Err(Fault::new(Class::ErrorEventIn200, error));
        }
        let answer = answer.unwrap_or_default();
        if self.last == Some(true) {
            return Err(Fault::new(Class::Parse, "a response after the final one"));
        }
        if let Some(Choice::Bool(last)) =
            answer.parameters.get(IS_FINAL).and_then(|parameter| parameter.choice.as_ref())
        {
            self.last = Some(*last);
        }
        // The final response is empty if there is no output left.
        if answer.outputs.is_empty() {
            return Ok(());
        }
        verify(&self.expected, &answer)?;
        seen.content(at_ns);
        Ok(())
    }
}

/// An answer over gRPC, or a stream of them, that may have any outputs.
pub(crate) fn anything(stream: bool) -> impl Reply {
    let kind = if stream { Kind::Stream } else { Kind::Single };
    Unframed::new(Answers { kind, expected: Rc::new([]), last: None })
}

/// Whether a response has the requested outputs.
fn verify(expected: &[KserveOutput], answer: &InferAnswer) -> Result<(), Fault> {
    let raw = &answer.raw_outputs;
    if !raw.is_empty() && raw.len() != answer.outputs.len() {
        return Err(Fault::new(
            Class::Parse,
            format!("{} raw contents for {} outputs", raw.len(), answer.outputs.len()),
        ));
    }
    let size = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let outputs: Vec<Output<'_>> = answer
        .outputs
        .iter()
        .enumerate()
        .map(|(index, output)| Output {
            name: &output.name,
            datatype: &output.datatype,
            shape: &output.shape,
            held: match (raw.get(index), &output.contents) {
                (Some(bytes), _) => Held::Bytes(size(bytes.len())),
                (None, contents) => {
                    Held::Elements(contents.as_ref().map_or(0, |contents| size(contents.len())))
                }
            },
        })
        .collect();
    check(expected, &outputs)
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Status {
    code: u32,
    message: String,
}

/// Names of the status codes, as gRPC numbers them.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Status {
    /// The status among header fields, if it is there.
    fn read(fields: Fields<'_>) -> Result<Option<Self>, Fault> {
        let Some(code) = fields.text("grpc-status") else { return Ok(None) };
        let code = code
            .trim()
            .parse()
            .map_err(|_| Fault::new(Class::Parse, format!("grpc-status is '{code}'")))?;
        let message = fields.get("grpc-message").map(unescaped).unwrap_or_default();
        Ok(Some(Self { code, message }))
    }

    /// The failure that it means: as with HTTP, either the request is blamed or the server.
    fn fault(&self) -> Fault {
        let class = match self.code {
            3 | 5..=9 | 11 | 12 | 16 => Class::Status4xx,
            _ => Class::Status5xx,
        };
        let index = usize::try_from(self.code).unwrap_or(usize::MAX);
        let name = CODES.get(index).copied().unwrap_or("no known code");
        Fault::new(class, format!("grpc-status {} ({name}): {}", self.code, self.message))
    }
}

/// Undoes percent-encoding, in which gRPC carries its messages; what is no escape stays.
fn unescaped(text: &[u8]) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.insert(*name, value.parse().unwrap());
        }
        map
    }

    /// Reads an answer whole and split in two at every byte.
    fn read(
        stream: bool,
        body: &[u8],
        trailers: &[(&'static str, &str)],
    ) -> (Result<(), Class>, Seen) {
        let asked = [KserveOutput { name: "y".into(), shape: None }];
        let parse = |pieces: [&[u8]; 2]| {
            let kind = if stream { Kind::Stream } else { Kind::Single };
            let mut reply =
                Unframed::new(Answers { kind, expected: Rc::new(asked.clone()), last: None });
            let mut seen = Seen::default();
            let head = fields(&[("content-type", "application/grpc+proto")]);
            let mut go = || {
                reply.head(&Head { status: 200, fields: Fields::Map(&head) }, &mut seen)?;
                for piece in pieces {
                    reply.body(piece, 5, &mut seen)?;
                }
                reply.trailers(&Fields::Map(&fields(trailers)), &mut seen)?;
                reply.end(5, &mut seen)
            };
            let result = go().map_err(|fault: Fault| fault.class);
            (result, seen)
        };
        let whole = parse([body, b""]);
        for at in 0..body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(parse([a, b]), whole, "split at {at}");
        }
        whole
    }

    fn answer(name: &str, raw: &[u8]) -> InferAnswer {
        let output = Tensor {
            name: name.into(),
            datatype: "INT16".into(),
            shape: vec![2],
            ..Tensor::default()
        };
        InferAnswer {
            outputs: vec![output],
            raw_outputs: vec![raw.to_vec()],
            ..InferAnswer::default()
        }
    }

    fn part(answer: Option<InferAnswer>, last: Option<bool>, error: &str) -> Vec<u8> {
        let mut answer = answer.unwrap_or_default();
        if let Some(last) = last {
            let choice = Some(Choice::Bool(last));
            answer.parameters.insert(IS_FINAL.into(), Parameter { choice });
        }
        let message = StreamAnswer { error: error.into(), answer: Some(answer) };
        frame(&message.encode_to_vec())
    }

    const GOOD: &[(&str, &str)] = &[("grpc-status", "0")];

    #[test]
    fn single_answers_are_verified() {
        let framed = |answer: InferAnswer| frame(&answer.encode_to_vec());
        let good = framed(answer("y", &[1, 0, 2, 0]));
        assert_eq!(read(false, &good, GOOD).0, Ok(()));
        let mut own = answer("y", &[]);
        own.raw_outputs.clear();
        own.outputs[0].contents =
            Some(super::super::proto::Contents { ints: vec![1, 2], ..Default::default() });
        assert_eq!(read(false, &framed(own), GOOD).0, Ok(()));
        for (body, trailers, class) in [
            (framed(answer("x", &[1, 0, 2, 0])), GOOD, Class::VerifyMismatch),
            (framed(answer("y", &[1, 0, 2])), GOOD, Class::Parse),
            (framed(InferAnswer::default()), GOOD, Class::EmptyResponse),
            (frame(b"\xff\xff"), GOOD, Class::Parse),
            (Vec::new(), GOOD, Class::Parse),
            ([good.clone(), good.clone()].concat(), GOOD, Class::Parse),
            (good.split_at(good.len() - 2).0.to_vec(), GOOD, Class::TruncatedStream),
            (good.clone(), &[], Class::TruncatedStream),
            (good.clone(), &[("grpc-status", "14")], Class::Status5xx),
            (Vec::new(), &[("grpc-status", "3")], Class::Status4xx),
            (good.clone(), &[("grpc-status", "x")], Class::Parse),
        ] {
            assert_eq!(read(false, &body, trailers).0, Err(class), "{trailers:?}");
        }
    }

    #[test]
    fn streamed_answers_are_counted() {
        let token = |last| part(Some(answer("y", &[1, 0, 2, 0])), last, "");
        let end = part(None, Some(true), "");
        for body in [
            // Triton with an empty final answer, with the flag in the last one, another server.
            [token(Some(false)), token(Some(false)), end.clone()].concat(),
            [token(Some(false)), token(Some(true))].concat(),
            [token(None), token(None)].concat(),
        ] {
            let (result, seen) = read(true, &body, GOOD);
            assert_eq!(result, Ok(()));
            assert_eq!((seen.content_events, seen.output_tokens), (2, Some(2)));
            assert_eq!(seen.token_source, Some(TokenSource::Chunks));
        }
        for (body, class) in [
            ([token(Some(false)), token(Some(false))].concat(), Class::TruncatedStream),
            ([end.clone(), token(Some(false))].concat(), Class::Parse),
            (end, Class::EmptyResponse),
            (Vec::new(), Class::EmptyResponse),
            ([token(None), part(None, None, "no more")].concat(), Class::ErrorEventIn200),
            (part(Some(answer("x", &[1, 0, 2, 0])), None, ""), Class::VerifyMismatch),
        ] {
            assert_eq!(read(true, &body, GOOD).0, Err(class));
        }
    }

    #[test]
    fn a_status_in_the_head_is_one() {
        let mut reply = Unframed::new(One { message: ModelReady::default() });
        let head = fields(&[
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "unknown model %22x%22 %zz"),
        ]);
        let mut seen = Seen::default();
        reply.head(&Head { status: 200, fields: Fields::Map(&head) }, &mut seen).unwrap();
        let fault = reply.end(0, &mut seen).unwrap_err();
        assert_eq!(fault.class, Class::Status4xx);
        assert_eq!(fault.message, "grpc-status 5 (NOT_FOUND): unknown model \"x\" %zz");
        let mut reply = Unframed::new(One { message: ModelReady::default() });
        let html = fields(&[("content-type", "text/html")]);
        let head = Head { status: 200, fields: Fields::Map(&html) };
        assert_eq!(reply.head(&head, &mut seen).unwrap_err().class, Class::Parse);
    }

    #[test]
    fn raw_inputs_follow_the_encoded_request() {
        let mut message =
            InferRequest { model_name: "m".into(), ..InferRequest::default() }.encode_to_vec();
        for raw in [&b"ab"[..], &[7; 200]] {
            message.push(RAW_INPUT_KEY);
            prost::encoding::encode_varint(raw.len() as u64, &mut message);
            message.extend_from_slice(raw);
        }
        let read = InferRequest::decode(&*message).unwrap();
        assert_eq!(read.model_name, "m");
        assert_eq!(read.raw_inputs, [b"ab".to_vec(), vec![7; 200]]);
    }
}
