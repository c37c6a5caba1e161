//! KServe's version 2 protocol, as Triton speaks it over HTTP: metadata, inferences as JSON or
//! with raw tensors, and the generate endpoints.
//!
//! A model whose name begins with `gen` is decoupled: it takes `text_input` and `max_tokens` and
//! streams tokens. Any other gives its inputs back, `INPUT…` as `OUTPUT…`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{
        fault::Fault,
        script::{Answer, DUE, SENT, Script, Template, Whole},
    },
    Lines, Request, Settings,
};

/// Whether a model of this name is decoupled.
pub(super) fn is_decoupled(model: &str) -> bool {
    model.starts_with("gen")
}

/// Name of the output that belongs to an input.
pub(super) fn output_name(input: &str) -> String {
    match input.strip_prefix("INPUT") {
        Some(rest) => format!("OUTPUT{rest}"),
        None => format!("out_{input}"),
    }
}

/// The shape of an output: what the input has, or one dimension more where that is the fault.
pub(super) fn output_shape(shape: &[i64], settings: &Settings<'_>) -> Vec<i64> {
    let mut shape = shape.to_vec();
    if settings.faults.has(Fault::OddList) {
        shape.push(1);
    }
    shape
}

/// Inputs that get an output.
pub(super) fn outputs(inputs: usize, settings: &Settings<'_>) -> usize {
    if settings.faults.has(Fault::Empty) {
        0
    } else {
        inputs.saturating_sub(usize::from(settings.faults.has(Fault::ShortList)))
    }
}

/// Inputs and outputs of a model: name, type, shape.
type Described = (&'static str, &'static str, &'static [i64]);

pub(super) fn described(model: &str) -> (&'static [Described], &'static [Described]) {
    if is_decoupled(model) {
        (
            &[("text_input", "BYTES", &[1]), ("max_tokens", "INT32", &[1])],
            &[("text_output", "BYTES", &[1])],
        )
    } else {
        (&[("INPUT0", "FP32", &[-1, 16])], &[("OUTPUT0", "FP32", &[-1, 16])])
    }
}

fn failed(status: &'static str, why: &str) -> Answer {
    Answer::Plain(Whole::status(status, json!({"error": why}).to_string(), 0))
}

/// Answers what is below `/v2`.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    let path = request.path.strip_prefix("/v2")?;
    match path {
        "" => {
            let extensions = ["binary_tensor_data", "generate", "model_configuration"];
            let json = json!({"name": "mock", "version": "2", "extensions": extensions});
            return Some(Answer::Plain(Whole::json(json.to_string(), 0)));
        }
        "/health/live" | "/health/ready" => return Some(Answer::Plain(Whole::json("", 0))),
        _ => {}
    }
    let mut parts = path.strip_prefix("/models/")?.split('/');
    let model = parts.next()?;
    let mut what = parts.next();
    if what == Some("versions") {
        what = parts.nth(1);
    }
    if settings.lacks(Some(model)) {
        return Some(failed("400 Bad Request", "Model version not ready"));
    }
    Some(match (request.method, what) {
        ("GET", None) => metadata(model),
        ("GET", Some("ready")) => Answer::Plain(Whole::json("", 0)),
        ("GET", Some("config")) => {
            let policy = json!({"decoupled": is_decoupled(model)});
            let json = json!({"name": model, "model_transaction_policy": policy});
            Answer::Plain(Whole::json(json.to_string(), 0))
        }
        ("POST", Some("infer")) => infer(model, request, settings),
        ("POST", Some("generate")) => generate(model, request, settings, false),
        ("POST", Some("generate_stream")) => generate(model, request, settings, true),
        _ => failed("404 Not Found", "no such path"),
    })
}

fn metadata(model: &str) -> Answer {
    let list = |tensors: &[Described]| -> Vec<Value> {
        let tensors = tensors.iter();
        tensors
            .map(|(name, kind, shape)| json!({"name": name, "datatype": kind, "shape": shape}))
            .collect()
    };
    let (inputs, outputs) = described(model);
    let json = json!({"name": model, "versions": ["1"], "platform": "mock",
        "inputs": list(inputs), "outputs": list(outputs)});
    Answer::Plain(Whole::json(json.to_string(), 0))
}

#[derive(Deserialize)]
struct Infer {
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Asked>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Deserialize)]
struct Asked {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

fn infer(model: &str, request: &Request<'_>, settings: &Settings<'_>) -> Answer {
    if is_decoupled(model) {
        return failed(
            "400 Bad Request",
            "doesn't support models with decoupled transaction policy",
        );
    }
    // Raw tensors follow the JSON.
    let mut texts = serde_json::Deserializer::from_slice(request.body).into_iter::<Infer>();
    let wanted = match texts.next() {
        Some(Ok(wanted)) => wanted,
        Some(Err(error)) => return failed("400 Bad Request", &error.to_string()),
        None => return failed("400 Bad Request", "no body"),
    };
    match echo(&wanted, request.body, settings) {
        Ok(whole) => Answer::Served(whole),
        Err(why) => failed("400 Bad Request", &why),
    }
}

/// The inputs as outputs.
fn echo(wanted: &Infer, body: &[u8], settings: &Settings<'_>) -> Result<Whole, String> {
    let size = |parameters: &Map<String, Value>| {
        let size = parameters.get("binary_data_size").and_then(Value::as_u64)?;
        usize::try_from(size).ok()
    };
    let sizes: Vec<Option<usize>> =
        wanted.inputs.iter().map(|input| size(&input.parameters)).collect();
    let raw: usize = sizes.iter().flatten().fold(0, |sum, size| sum.saturating_add(*size));
    let start = body.len().checked_sub(raw).ok_or("less raw bytes than announced")?;
    let mut raw = body.get(start..).unwrap_or_default();
    let all_raw = wanted.parameters.get("binary_data_output") == Some(&true.into());
    let (mut outputs, mut after) = (Vec::new(), Vec::new());
    let count = self::outputs(wanted.inputs.len(), settings);
    for (input, size) in wanted.inputs.iter().zip(sizes) {
        let name = output_name(&input.name);
        let own = size.map(|size| raw.split_at(size.min(raw.len())));
        raw = own.map_or(raw, |(_, rest)| rest);
        let asked = wanted.outputs.iter().find(|asked| asked.name == name);
        let skipped = !wanted.outputs.is_empty() && asked.is_none();
        if skipped || outputs.len() >= count {
            continue;
        }
        let shape = output_shape(&input.shape, settings);
        let wants_raw = asked
            .map_or(all_raw, |asked| asked.parameters.get("binary_data") == Some(&true.into()));
        let (key, value) = match (own, &input.data) {
            (Some((bytes, _)), _) if wants_raw => {
                after.extend_from_slice(bytes);
                ("parameters", json!({"binary_data_size": bytes.len()}))
            }
            (None, Some(data)) if !wants_raw => ("data", data.clone()),
            _ => return Err("this server answers in the form in which it was asked".to_owned()),
        };
        let output = json!({"name": name, "datatype": input.datatype, "shape": shape, key: value});
        outputs.push(output);
    }
    let json = json!({"model_name": "mock", "model_version": "1", "outputs": outputs}).to_string();
    if after.is_empty() {
        return Ok(Whole::json(json, 1));
    }
    let length = json.len().to_string();
    let body = [json.as_bytes(), &after].concat();
    Ok(Whole {
        content_type: "application/octet-stream",
        headers: vec![("inference-header-content-length", length)],
        ..Whole::json(body, 1)
    })
}

fn generate(model: &str, request: &Request<'_>, settings: &Settings<'_>, stream: bool) -> Answer {
    let wanted: Map<String, Value> = match request.json() {
        Ok(wanted) => wanted,
        Err(wrong) => return Answer::Plain(wrong),
    };
    if !wanted.get("text_input").is_some_and(Value::is_string) {
        return failed("400 Bad Request", "text_input is missing");
    }
    let nested = wanted.get("parameters").and_then(|nested| nested.get("max_tokens"));
    let tokens = settings.tokens(wanted.get("max_tokens").or(nested).and_then(Value::as_u64));
    let model = Value::from(model);
    let lines = Lines { ndjson: false, faults: settings.faults };
    let text = |count: u64| settings.token().repeat(usize::try_from(count).unwrap_or(1));
    let event = |count: u64, more: &str| {
        let text = text(count);
        format!(
            r#"{{"model_name":{model},"model_version":"1","sequence_id":0,"text_output":"{text}"{more}}}"#
        )
    };
    let per_event = settings.per_event();
    if !stream {
        let whole = event(tokens, "");
        return Answer::Served(Whole::json(whole, tokens.div_ceil(per_event)));
    }
    let (middle, ends_in_middle) =
        lines.middle(r#"{"error":"asked for"}"#, r#"{"model_name":"mock","text_output":"~"}"#);
    let mut script = Script {
        content_type: "text/event-stream; charset=utf-8",
        opening: lines.start().into_bytes(),
        middle,
        ends_in_middle,
        ..Script::default()
    };
    if let Some(fat) = lines.fat() {
        let padding = format!(r#","padding":"{fat}""#);
        script.opening.extend(lines.event(&event(0, &padding)).into_bytes());
    }
    let stamps = format!(r#","due_ns":{DUE},"sent_ns":{SENT}"#);
    for (count, times) in [(per_event, tokens / per_event), (tokens % per_event, 1)] {
        if count > 0 {
            script.push(Template::new(lines.event(&event(count, &stamps))), times);
        }
    }
    Answer::Stream(script)
}
