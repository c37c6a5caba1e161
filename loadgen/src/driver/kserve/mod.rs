//! KServe's version 2 protocol ("open inference protocol"): Triton, KServe and others. Over HTTP
//! with JSON or raw tensors (`http`), over gRPC (`grpc`), and Triton's generate endpoints
//! (`generate`).

mod answer;
pub(crate) mod frames;
mod generate;
mod grpc;
mod http;
mod model;
pub(crate) mod proto;
mod tensor;

use std::fmt::Write;

pub(crate) use generate::Generate;
pub(crate) use grpc::Grpc;
pub(crate) use grpc::anything as any_grpc;
pub(crate) use http::Http;

use aifb_schema::recipe::Kserve;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::llm::Asked;
use crate::{
    error::Fatal,
    fault::Fault,
    job::Job,
    plan::Ask,
    wire::{Route, Wire, reply::Anything},
};
use model::Metadata;
use tensor::{Form, Own, Places, Tensor, Wanted};

/// An answer over HTTP that may have any outputs.
pub(crate) fn any_http() -> impl crate::wire::Reply {
    answer::Inferred::new(&std::rc::Rc::from([]))
}

/// Prefix of all paths; the endpoint's URL may have it or not.
const API: &str = "/v2";

/// Inputs and what is needed to make each request's own.
struct Inputs {
    tensors: Vec<Tensor>,
    places: Places,
    asked: Asked,
}

impl Inputs {
    fn new(job: &Job, wanted: &[Wanted], form: Form) -> Result<Self, Fatal> {
        let seed = job.plan.load.seed;
        let tensors = tensors(wanted, form, seed);
        Ok(Self { tensors, places: Places::new(seed), asked: Asked::new(job)? })
    }

    /// What a request has of its own.
    fn own(&self, ask: Ask) -> Own {
        let place = self.places.of(ask.key());
        if !self.tensors.iter().any(Tensor::follows_workload) {
            return Own { place, ..Own::default() };
        }
        let item = self.asked.item(ask);
        Own { place, text: item.text(), tokens: item.output_tokens, exact: item.exact }
    }
}

fn tensors(wanted: &[Wanted], form: Form, seed: u64) -> Vec<Tensor> {
    (0..).zip(wanted).map(|(number, wanted)| Tensor::new(wanted, form, seed, number)).collect()
}

/// A body made of fixed text with the elements of a tensor after each piece.
struct Pieces {
    before: Vec<Vec<u8>>,
    after: Vec<u8>,
}

impl Pieces {
    fn body(&self, tensors: &[Tensor], own: &Own) -> Bytes {
        let mut body = Vec::new();
        for (before, tensor) in self.before.iter().zip(tensors) {
            body.extend_from_slice(before);
            tensor.push(&mut body, own);
        }
        body.extend_from_slice(&self.after);
        body.into()
    }
}

/// The path of a model below [`API`].
fn path(model: &str, version: Option<&str>) -> String {
    let mut path = format!("/models/{}", segment(model));
    if let Some(version) = version {
        path.push_str("/versions/");
        path.push_str(&segment(version));
    }
    path
}

/// Text as one segment of a path.
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ignored = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

/// Waits until the model is ready at every endpoint.
async fn ready_over_http(wire: &Wire, model: &str, path: &str) -> Result<(), Fatal> {
    let route = Route::get(format!("{path}/ready")).under(API).ready();
    for target in 0..wire.targets() {
        let request = route.request("");
        model::wait_until_ready(model, async || {
            wire.ask(target, &request, Anything, model::ANSWER_MAX).await.map(drop)
        })
        .await?;
    }
    Ok(())
}

/// What the server says of the model, over HTTP.
async fn metadata_over_http(wire: &Wire, model: &str, path: &str) -> Result<Metadata, Fatal> {
    let route = Route::get(path).under(API).accept("application/json").ready();
    let answer = wire.json(0, &route.request(""), model::ANSWER_MAX).await;
    let read = |value| {
        serde_json::from_value(value)
            .map_err(|error| Fault::new(crate::fault::Class::Parse, error.to_string()))
    };
    answer.and_then(read).map_err(|fault| {
        Fatal::service(format!("requesting the metadata of model '{model}': {}", fault.message))
            .hint("with datatype and shape of each input the metadata is not needed")
    })
}

/// The parameters of a request, as JSON.
fn parameters(kserve: &Kserve) -> Map<String, Value> {
    kserve.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_segment() {
        assert_eq!(path("ident", None), "/models/ident");
        assert_eq!(path("a/../b c", Some("1")), "/models/a%2F..%2Fb%20c/versions/1");
        assert_eq!(path("é", None), "/models/%C3%A9");
    }
}
