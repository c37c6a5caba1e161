//! KServe's version 2 protocol over gRPC, over HTTP/2 without TLS. The models are those of
//! `kserve`; a stream has an empty final answer where the client asks for one, as Triton's has.

use std::collections::HashMap;

use prost::Message;

use super::{
    super::{
        fault::Fault,
        script::{Answer, DUE, SENT, Script, Template, Whole},
    },
    Request, Settings,
    kserve::{described, is_decoupled, output_name, output_shape, outputs},
};
use crate::driver::kserve::{
    frames::{Frames, frame},
    proto::{
        Choice, InferAnswer, InferRequest, ModelConfig, ModelConfigAnswer, ModelMetadata,
        ModelName, ModelReady, Parameter, SERVICE, StreamAnswer, Tensor, TensorMetadata,
        Transactions,
    },
};

const KIND: &str = "application/grpc";

/// A good end.
fn ok() -> Vec<(&'static str, String)> {
    vec![("grpc-status", "0".to_owned())]
}

fn message(message: &impl Message, events: u64) -> Whole {
    let body = frame(&message.encode_to_vec());
    Whole { content_type: KIND, trailers: ok(), ..Whole::json(body, events) }
}

fn failed(code: u32, why: &str) -> Whole {
    let trailers =
        vec![("grpc-status", code.to_string()), ("grpc-message", why.replace('%', "%25"))];
    Whole { content_type: KIND, trailers, ..Whole::json("", 0) }
}

/// Status codes.
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

/// Answers the calls of the service.
pub(super) fn answer(request: &Request<'_>, settings: &Settings<'_>) -> Option<Answer> {
    let method = request.path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')?;
    Some(call(method, request.body, settings).unwrap_or_else(Answer::Plain))
}

fn call(method: &str, body: &[u8], settings: &Settings<'_>) -> Result<Answer, Whole> {
    match method {
        "ServerLive" | "ServerReady" => Ok(Answer::Plain(message(&ModelReady { ready: true }, 0))),
        "ModelReady" => {
            let asked: ModelName = only(body)?;
            let ready = !settings.lacks(Some(&asked.name));
            Ok(Answer::Plain(message(&ModelReady { ready }, 0)))
        }
        "ModelMetadata" => {
            let asked: ModelName = known(only(body)?, settings)?;
            Ok(Answer::Plain(message(&metadata(&asked.name), 0)))
        }
        "ModelConfig" => {
            let asked: ModelName = known(only(body)?, settings)?;
            let transactions = Some(Transactions { decoupled: is_decoupled(&asked.name) });
            let config = Some(ModelConfig { transactions });
            Ok(Answer::Plain(message(&ModelConfigAnswer { config }, 0)))
        }
        "ModelInfer" => {
            infer(&only(body)?, settings).map(|answer| Answer::Served(message(&answer, 1)))
        }
        "ModelStreamInfer" => stream(&only(body)?, settings).map(Answer::Stream),
        _ => Err(failed(UNIMPLEMENTED, "no such method")),
    }
}

/// The one message of a request.
fn only<M: Message + Default>(body: &[u8]) -> Result<M, Whole> {
    let mut found = Vec::new();
    let fed = Frames::default().feed(body, &mut |bytes| {
        found.push(M::decode(bytes).ok());
        Ok(())
    });
    match (fed, found.pop().flatten(), found.is_empty()) {
        (Ok(()), Some(message), true) => Ok(message),
        _ => Err(failed(INVALID_ARGUMENT, "expected one message")),
    }
}

fn known(asked: ModelName, settings: &Settings<'_>) -> Result<ModelName, Whole> {
    if settings.lacks(Some(&asked.name)) {
        Err(failed(NOT_FOUND, &format!("unknown model '{}'", asked.name)))
    } else {
        Ok(asked)
    }
}

fn metadata(model: &str) -> ModelMetadata {
    let list = |tensors: &[(&str, &str, &[i64])]| {
        let tensors = tensors.iter().map(|(name, datatype, shape)| TensorMetadata {
            name: (*name).to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
        });
        tensors.collect()
    };
    let (inputs, outputs) = described(model);
    ModelMetadata { name: model.to_owned(), inputs: list(inputs), outputs: list(outputs) }
}

/// The inputs as outputs.
fn infer(wanted: &InferRequest, settings: &Settings<'_>) -> Result<InferAnswer, Whole> {
    if settings.lacks(Some(&wanted.model_name)) {
        return Err(failed(NOT_FOUND, "unknown model"));
    }
    if is_decoupled(&wanted.model_name) {
        return Err(failed(UNIMPLEMENTED, "ModelInfer doesn't support decoupled models"));
    }
    if wanted.raw_inputs.len() != wanted.inputs.len() {
        return Err(failed(INVALID_ARGUMENT, "one raw content for each input, please"));
    }
    let count = outputs(wanted.inputs.len(), settings);
    let pairs = wanted.inputs.iter().zip(&wanted.raw_inputs);
    let pairs = pairs.filter(|(input, _)| {
        let name = output_name(&input.name);
        wanted.outputs.is_empty() || wanted.outputs.iter().any(|asked| asked.name == name)
    });
    let mut answer =
        InferAnswer { model_name: wanted.model_name.clone(), ..InferAnswer::default() };
    for (input, raw) in pairs.take(count) {
        answer.outputs.push(Tensor {
            name: output_name(&input.name),
            datatype: input.datatype.clone(),
            shape: output_shape(&input.shape, settings),
            ..Tensor::default()
        });
        answer.raw_outputs.push(raw.clone());
    }
    Ok(answer)
}

/// Tokens, one answer each.
fn stream(wanted: &InferRequest, settings: &Settings<'_>) -> Result<Script, Whole> {
    let mut script = Script { content_type: KIND, trailers: ok(), ..Script::default() };
    if settings.faults.has(Fault::NoDone) {
        script.trailers.clear();
    }
    if settings.faults.has(Fault::ErrorEvent) {
        let error = StreamAnswer { error: "asked for".to_owned(), answer: None };
        script.middle = frame(&error.encode_to_vec());
        script.ends_in_middle = true;
    } else if settings.faults.any(&[Fault::Garbage, Fault::BadUtf8]) {
        script.middle = frame(b"\xff\xff\xff");
    }
    if !is_decoupled(&wanted.model_name) {
        let answer = Some(flagged(infer(wanted, settings)?, true));
        let message = StreamAnswer { error: String::new(), answer };
        script.push(Template::new(frame(&message.encode_to_vec())), 1);
        return Ok(script);
    }
    let input = |name: &str| {
        let index = wanted.inputs.iter().position(|input| input.name == name)?;
        wanted.raw_inputs.get(index)
    };
    if input("text_input").is_none() {
        return Err(failed(INVALID_ARGUMENT, "text_input is missing"));
    }
    let asked = input("max_tokens").and_then(|bytes| bytes.get(..4)?.try_into().ok());
    let asked = asked.map(i32::from_le_bytes).and_then(|tokens| u64::try_from(tokens).ok());
    let tokens = settings.tokens(asked);
    let per_event = settings.per_event();
    for (count, times) in [(per_event, tokens / per_event), (tokens % per_event, 1)] {
        if count > 0 {
            script.push(Template::new(token(wanted, count, settings)), times);
        }
    }
    if asks_final(wanted) && !settings.faults.has(Fault::NoDone) {
        let answer = Some(flagged(InferAnswer::default(), true));
        let message = StreamAnswer { error: String::new(), answer };
        script.closing = frame(&message.encode_to_vec());
    }
    Ok(script)
}

fn asks_final(wanted: &InferRequest) -> bool {
    let asked = wanted.parameters.get("triton_enable_empty_final_response");
    asked.and_then(|parameter| parameter.choice.as_ref()) == Some(&Choice::Bool(true))
}

fn flagged(mut answer: InferAnswer, last: bool) -> InferAnswer {
    let parameter = Parameter { choice: Some(Choice::Bool(last)) };
    answer.parameters = HashMap::from([("triton_final_response".to_owned(), parameter)]);
    answer
}

/// An answer with `count` tokens, and its stamps as text in a second output.
fn token(wanted: &InferRequest, count: u64, settings: &Settings<'_>) -> Vec<u8> {
    let text = settings.token().repeat(usize::try_from(count).unwrap_or(1));
    let stamps = format!("{DUE} {SENT}");
    let element = |text: &str| {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        [&length.to_le_bytes(), text.as_bytes()].concat()
    };
    let tensor = |name: &str| Tensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1],
        ..Tensor::default()
    };
    let answer = InferAnswer {
        model_name: wanted.model_name.clone(),
        outputs: vec![tensor("text_output"), tensor("stamps")],
        raw_outputs: vec![element(&text), element(&stamps)],
        ..InferAnswer::default()
    };
    let message = StreamAnswer { error: String::new(), answer: Some(flagged(answer, false)) };
    frame(&message.encode_to_vec())
}
