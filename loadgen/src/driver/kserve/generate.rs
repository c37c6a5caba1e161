//! `triton-generate`: Triton's generate endpoints. One JSON answer, or a stream of them as
//! server-sent events, which ends with the body: there is neither `[DONE]` nor a number of
//! tokens. A streamed answer with an output that is not empty counts as a token and says so.

use std::{collections::BTreeMap, rc::Rc};

use aifb_schema::recipe::{Datatype, Kserve, KserveInput, KserveOutput, Load, TensorData};
use serde_json::{Map, Value};

use super::{
    API, Inputs, Pieces,
    model::{self, Metadata},
    parameters,
    tensor::{Form, Tensor, Wanted},
};
use crate::{
    driver::{alternative::Either, protocol::Protocol},
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    record::row::{Seen, TokenSource},
    wire::{
        Reply, Request, Route, Wire,
        events::{Events, Sse, no_stream},
        reply::{Answer, Answered},
    },
};

/// The driver.
pub(crate) struct Generate {
    route: Rc<Route>,
    inputs: Inputs,
    body: Pieces,
    outputs: Rc<[KserveOutput]>,
    stream: bool,
}

impl Protocol for Generate {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let kserve = load.kserve.clone().unwrap_or_default();
        let model = model::name(load)?;
        let path = super::path(model, kserve.version.as_deref());
        super::ready_over_http(wire, model, &path).await?;
        let stream = load.llm().stream.unwrap_or(true);
        let open = kserve.inputs.is_empty() || kserve.inputs.iter().any(|i| datatype(i).is_none());
        let metadata = if open {
            super::metadata_over_http(wire, model, &path).await?
        } else {
            Metadata::default()
        };
        let wanted = if kserve.inputs.is_empty() {
            usual(load, &metadata, stream)?
        } else {
            let wanted = kserve.inputs.iter().map(|input| named(load, input, &metadata));
            wanted.collect::<Result<_, _>>()?
        };
        let inputs = Inputs::new(job, &wanted, Form::Json)?;
        let body = pieces(&kserve, &load.llm().extra, &inputs.tensors);
        let (end, accept) = if stream {
            ("generate_stream", "text/event-stream")
        } else {
            ("generate", "application/json")
        };
        let route = Route::post(format!("{path}/{end}")).under(API).json().accept(accept).ready();
        Ok(Self { route, inputs, body, outputs: kserve.outputs.into(), stream })
    }

    fn operation(&self, _: Ask) -> &'static str {
        if self.stream { "generate_stream" } else { "generate" }
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        Ok(self.route.request(self.body.body(&self.inputs.tensors, &self.inputs.own(ask))))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        let generated = Generated { expected: Rc::clone(&self.outputs) };
        if self.stream {
            Either::A(Sse::new(generated))
        } else {
            Either::B(Answered::new(generated))
        }
    }
}

/// Type of an input that the recipe describes, if the metadata is not needed.
fn datatype(input: &KserveInput) -> Option<Datatype> {
    let of_value = |value: &Value| match value {
        Value::Bool(_) => Some(Datatype::Bool),
        Value::String(_) => Some(Datatype::Bytes),
        Value::Number(number) if number.is_f64() => Some(Datatype::Fp64),
        Value::Number(number) if number.is_u64() => Some(Datatype::Uint64),
        Value::Number(_) => Some(Datatype::Int64),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    input.datatype.or_else(|| match &input.data {
        TensorData::Text => Some(Datatype::Bytes),
        TensorData::Values(values) => values.first().and_then(of_value),
        TensorData::Tokens => Some(Datatype::Int32),
        TensorData::Random | TensorData::Zeros => None,
    })
}

/// An input of the recipe: a single value where it has no shape and not several values.
fn named(load: &Load, input: &KserveInput, metadata: &Metadata) -> Result<Wanted, Fatal> {
    let values = if let TensorData::Values(values) = &input.data { values.len() } else { 1 };
    let shape = input.shape.clone().unwrap_or_else(|| vec![u32::try_from(values).unwrap_or(0)]);
    let input = KserveInput { datatype: datatype(input), shape: Some(shape), ..input.clone() };
    model::wanted(load, &input, metadata)
}

/// Input of vLLM's backend, a JSON object as text.
const SAMPLING: &str = "sampling_parameters";

/// The inputs that language models on Triton usually have (vLLM's and TensorRT-LLM's backends):
/// of those the ones that this model has and `llm.extra` does not give. Others are left to their
/// defaults.
fn usual(load: &Load, metadata: &Metadata, stream: bool) -> Result<Vec<Wanted>, Fatal> {
    let known = [
        ("text_input", TensorData::Text),
        ("max_tokens", TensorData::Tokens),
        (SAMPLING, TensorData::Text),
        ("stream", TensorData::Values(vec![stream.into()])),
    ];
    let has = |name: &str| metadata.inputs.iter().any(|input| input.name == name);
    if !has("text_input") {
        let names: Vec<&str> =
            metadata.inputs.iter().map(|input| input.name.as_str()).take(16).collect();
        return Err(Fatal::usage(format!(
            "load '{}': the model has no input 'text_input', but {}",
            load.name,
            names.join(", ")
        ))
        .hint("name them: kserve: {inputs: [{name: NAME, data: text}]}"));
    }
    let extra = &load.llm().extra;
    let known = known.into_iter().filter(|(name, _)| has(name) && !extra.contains_key(*name));
    let wanted = known.map(|(name, data)| {
        let input =
            KserveInput { name: name.to_owned(), datatype: None, shape: None, data, below: None };
        named(load, &input, metadata).map(|wanted| Wanted { sampling: name == SAMPLING, ..wanted })
    });
    wanted.collect()
}

/// The JSON around each input's value, with the parameters and the further members at its end.
fn pieces(kserve: &Kserve, extra: &BTreeMap<String, Value>, tensors: &[Tensor]) -> Pieces {
    let mut open = "{".to_owned();
    let mut before = Vec::new();
    for tensor in tensors {
        let (begin, end) = if tensor.is_scalar() { ("", ",") } else { ("[", "],") };
        open.push_str(&format!("{}:{begin}", Value::from(tensor.name.as_str())));
        before.push(std::mem::replace(&mut open, end.to_owned()).into_bytes());
    }
    let parameters = parameters(kserve);
    if !parameters.is_empty() {
        open.push_str(&format!(r#""parameters":{},"#, Value::from(parameters)));
    }
    for (key, value) in extra {
        open.push_str(&format!("{}:{value},", Value::from(key.as_str())));
    }
    let after = format!("{}}}", open.trim_end_matches(','));
    Pieces { before, after: after.into_bytes() }
}

impl Answer for Generated {
    fn answer(&mut self, body: &[u8], _: u64, _: &mut Seen) -> Result<(), Fault> {
        if self.read(body)? { Ok(()) } else { Err(empty()) }
    }
}

fn empty() -> Fault {
    Fault::new(Class::EmptyResponse, "a response without output")
}

/// Fields of an answer that are no outputs.
const NO_OUTPUTS: [&str; 7] = [
    "id",
    "model_name",
    "model_version",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "triton_final_response",
];

/// The output that decides, where there is one of this name: others go with every answer.
const TEXT_OUTPUT: &str = "text_output";

struct Generated {
    expected: Rc<[KserveOutput]>,
}

impl Generated {
    /// Whether an answer has an output that is not empty.
    fn read(&self, data: &[u8]) -> Result<bool, Fault> {
        let answer: Map<String, Value> = serde_json::from_slice(data)
            .map_err(|error| Fault::new(Class::Parse, format!("reading the response: {error}")))?;
        if let Some(error) = answer.get("error") {
            let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Fault::new(Class::ErrorEventIn200, text));
        }
        if let Some(missing) =
            self.expected.iter().find(|output| !answer.contains_key(&output.name))
        {
            return Err(Fault::new(
                Class::VerifyMismatch,
                format!("output '{}' is missing", missing.name),
            ));
        }
        if !self.expected.is_empty() {
            let mut outputs = self.expected.iter().filter_map(|output| answer.get(&output.name));
            return Ok(outputs.any(is_filled));
        }
        match answer.get(TEXT_OUTPUT) {
            Some(text) => Ok(is_filled(text)),
            None => Ok(answer
                .iter()
                .any(|(name, value)| !NO_OUTPUTS.contains(&name.as_str()) && is_filled(value))),
        }
    }
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => list.iter().any(is_filled),
        Value::Object(map) => !map.is_empty(),
    }
}

impl Events for Generated {
    fn event(&mut self, data: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        if self.read(data)? {
            seen.content(at_ns);
        }
        Ok(())
    }

    fn end(&mut self, _: u64, seen: &mut Seen) -> Result<(), Fault> {
        if seen.content_events == 0 {
            return Err(empty());
        }
        seen.output_tokens = Some(u64::from(seen.content_events));
        seen.token_source = Some(TokenSource::Chunks);
        Ok(())
    }

    fn instead(&self, body: &[u8]) -> Fault {
        self.read(body).err().unwrap_or_else(no_stream)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tensor::Own, *};

    fn load(kserve: Value) -> Load {
        serde_json::from_value(json!({
            "name": "l", "driver": "triton-generate", "model": "m", "arrival": {"concurrency": 1},
            "phases": {"measure": "1s"}, "kserve": kserve,
        }))
        .unwrap()
    }

    fn body(load: &Load, wanted: &[Wanted]) -> Value {
        let tensors = super::super::tensors(wanted, Form::Json, 1);
        let kserve = load.kserve.clone().unwrap_or_default();
        let own = Own { text: "a \"b\"".into(), tokens: 7, exact: true, ..Own::default() };
        let pieces = pieces(&kserve, &load.llm().extra, &tensors);
        serde_json::from_slice(&pieces.body(&tensors, &own)).unwrap()
    }

    #[test]
    fn named_inputs_become_keys() {
        let load = load(json!({"parameters": {"temperature": 0.5}, "inputs": [
            {"name": "text_input", "data": "text"},
            {"name": "n", "data": [-3]},
            {"name": "list", "data": ["x", "y"]},
            {"name": "deep", "datatype": "INT8", "shape": [1, 1], "data": "zeros"},
        ]}));
        let kserve = load.kserve.clone().unwrap();
        let wanted: Vec<Wanted> = kserve
            .inputs
            .iter()
            .map(|input| named(&load, input, &Metadata::default()).unwrap())
            .collect();
        let expected = json!({"text_input": "a \"b\"", "n": -3, "list": ["x", "y"], "deep": [0],
            "parameters": {"temperature": 0.5}});
        assert_eq!(body(&load, &wanted), expected);
    }

    #[test]
    fn the_usual_inputs_are_those_that_the_model_has() {
        let load = load(json!({}));
        let described = |names: &[(&str, &str)]| {
            let inputs = names.iter().map(|(name, datatype)| model::Described {
                name: (*name).into(),
                datatype: (*datatype).into(),
                shape: vec![-1],
            });
            Metadata { inputs: inputs.collect() }
        };
        let two =
            described(&[("text_input", "BYTES"), ("max_tokens", "INT32"), ("top_k", "INT32")]);
        let wanted = usual(&load, &two, true).unwrap();
        assert_eq!(body(&load, &wanted), json!({"text_input": "a \"b\"", "max_tokens": 7}));
        let vllm = described(&[
            ("text_input", "BYTES"),
            ("stream", "BOOL"),
            ("sampling_parameters", "BYTES"),
        ]);
        let made = body(&load, &usual(&load, &vllm, true).unwrap());
        assert_eq!((&made["text_input"], &made["stream"]), (&json!("a \"b\""), &json!(true)));
        let sampling: Value =
            serde_json::from_str(made["sampling_parameters"].as_str().unwrap()).unwrap();
        assert_eq!(sampling["max_tokens"], 7);
        // Members of the recipe take the place of ours.
        let mut load = load;
        let extra = json!({"extra": {"sampling_parameters": "{}", "top_k": 3}});
        load.llm = Some(serde_json::from_value(extra).unwrap());
        let made = body(&load, &usual(&load, &vllm, true).unwrap());
        assert_eq!((&made["sampling_parameters"], &made["top_k"]), (&json!("{}"), &json!(3)));
        let text = usual(&load, &described(&[("x", "FP32")]), true).unwrap_err().to_string();
        assert!(text.contains("no input 'text_input', but x"), "{text}");
    }

    /// Feeds an answer whole, then split in two at every byte.
    fn read(stream: bool, text: &str) -> (Result<(), Class>, Seen) {
        let parse = |pieces: [&[u8]; 2]| {
            let generated = Generated { expected: Rc::new([]) };
            let mut reply = if stream {
                Either::A(Sse::new(generated))
            } else {
                Either::B(Answered::new(generated))
            };
            let mut seen = Seen::default();
            let mut go = || {
                for piece in pieces {
                    reply.body(piece, 5, &mut seen)?;
                }
                reply.end(5, &mut seen)
            };
            let result = go().map_err(|fault: Fault| fault.class);
            (result, seen)
        };
        let whole = parse([text.as_bytes(), b""]);
        for at in 0..text.len() {
            let (a, b) = text.as_bytes().split_at(at);
            assert_eq!(parse([a, b]), whole, "split at {at}");
        }
        whole
    }

    #[test]
    fn answers_with_output_are_tokens() {
        let token =
            r#"{"model_name":"m","model_version":"1","text_output":"a","cum_log_probs":0.0}"#;
        let last = token.replace("\"a\"", "\"\"");
        let (result, seen) =
            read(true, &format!("data: {token}\n\ndata: {token}\n\ndata: {last}\n\n"));
        assert_eq!(result, Ok(()));
        assert_eq!((seen.content_events, seen.output_tokens), (2, Some(2)));
        assert_eq!(seen.token_source, Some(TokenSource::Chunks));
        let other = r#"data: {"model_name":"m","y":[[0.5]],"sequence_id":0,"sequence_end":false}"#;
        assert_eq!(read(true, other).1.content_events, 1);
        let none = r#"data: {"model_name":"m","y":[],"sequence_id":0,"sequence_end":false}"#;
        assert_eq!(read(true, none).0, Err(Class::EmptyResponse));
        let (result, seen) = read(false, token);
        assert_eq!((result, seen.content_events, seen.output_tokens), (Ok(()), 0, None));
    }

    #[test]
    fn faults_have_their_class() {
        let token = "data: {\"text_output\":\"a\"}\n\n";
        for (stream, text, class) in [
            (true, format!("{token}data: {{\"error\":\"no\"}}\n\n"), Class::ErrorEventIn200),
            (true, format!("{token}data: {{broken\n\n"), Class::Parse),
            (true, String::new(), Class::EmptyResponse),
            (false, "{\"error\":\"no\"}".to_owned(), Class::ErrorEventIn200),
            (false, "{\"text_output\":\"\"}".to_owned(), Class::EmptyResponse),
            (false, "[]".to_owned(), Class::Parse),
        ] {
            assert_eq!(read(stream, &text).0, Err(class), "{text}");
        }
        let asked = [KserveOutput { name: "y".into(), shape: None }];
        let generated = Generated { expected: Rc::new(asked.clone()) };
        assert_eq!(generated.read(b"{\"z\":1}").unwrap_err().class, Class::VerifyMismatch);
        assert_eq!(generated.read(b"{\"y\":1}"), Ok(true));
    }
}
