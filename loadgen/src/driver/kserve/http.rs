//! `kserve-http`: one inference a request, tensors as JSON or as raw bytes after it.

use std::rc::Rc;

use aifb_schema::recipe::{Kserve, KserveOutput};
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    API, Inputs, Pieces,
    answer::{HEADER_LENGTH, Inferred},
    model, parameters,
    tensor::{Form, Own, Tensor},
};
use crate::{
    driver::protocol::Protocol,
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    wire::{Reply, Request, Route, Wire},
};

/// The driver.
pub(crate) struct Http {
    route: Rc<Route>,
    inputs: Inputs,
    body: Body,
    outputs: Rc<[KserveOutput]>,
}

enum Body {
    Json(Pieces),
    Raw(RawHead),
}

impl Protocol for Http {
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let kserve = load.kserve.clone().unwrap_or_default();
        let model = model::name(load)?;
        let path = super::path(model, kserve.version.as_deref());
        super::ready_over_http(wire, model, &path).await?;
        let metadata = if model::needs_metadata(&kserve) {
            super::metadata_over_http(wire, model, &path).await?
        } else {
            model::Metadata::default()
        };
        let wanted = model::inputs(load, &kserve, &metadata)?;
        if let Some(odd) =
            wanted.iter().find(|wanted| !kserve.binary && !wanted.datatype.has_json())
        {
            return Err(Fatal::usage(format!(
                "load '{}': input '{}' is {}, for which JSON has no form",
                load.name,
                odd.name,
                odd.datatype.as_str()
            ))
            .hint("binary: true sends raw tensors"));
        }
        let form = if kserve.binary { Form::Raw } else { Form::Json };
        let inputs = Inputs::new(job, &wanted, form)?;
        let route = Route::post(format!("{path}/infer")).under(API).accept("application/json");
        let (route, body) = if kserve.binary {
            let head = RawHead::new(&kserve, &inputs.tensors);
            let length = HeaderValue::from(head.length);
            let route = route
                .header(
                    hyper::header::CONTENT_TYPE,
                    HeaderValue::from_static("application/octet-stream"),
                )
                .header(HeaderName::from_static(HEADER_LENGTH), length);
            (route, Body::Raw(head))
        } else {
            (route.json(), Body::Json(pieces(&kserve, &inputs.tensors)))
        };
        Ok(Self { route: route.ready(), inputs, body, outputs: kserve.outputs.into() })
    }

    fn operation(&self, _: Ask) -> &'static str {
        "infer"
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        let (tensors, own) = (&self.inputs.tensors, self.inputs.own(ask));
        let body = match &self.body {
            Body::Json(pieces) => pieces.body(tensors, &own),
            Body::Raw(head) => head.body(tensors, &own)?.into(),
        };
        Ok(self.route.request(body))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        Inferred::new(&self.outputs)
    }
}

/// The JSON around the elements of each tensor.
fn pieces(kserve: &Kserve, tensors: &[Tensor]) -> Pieces {
    let parameters = match parameters(kserve) {
        parameters if parameters.is_empty() => String::new(),
        parameters => format!(r#""parameters":{},"#, Value::from(parameters)),
    };
    let mut open = format!(r#"{{{parameters}"inputs":[{{"#);
    let mut before = Vec::new();
    for tensor in tensors {
        let (name, datatype) = (Value::from(tensor.name.as_str()), tensor.datatype.as_str());
        let shape = &tensor.shape;
        open.push_str(&format!(
            r#""name":{name},"datatype":"{datatype}","shape":{shape:?},"data":["#
        ));
        before.push(std::mem::replace(&mut open, "]},{".to_owned()).into_bytes());
    }
    let outputs = if kserve.outputs.is_empty() {
        String::new()
    } else {
        let names: Vec<Value> =
            kserve.outputs.iter().map(|output| json!({"name": output.name})).collect();
        format!(r#","outputs":{}"#, Value::from(names))
    };
    Pieces { before, after: format!("]}}]{outputs}}}").into_bytes() }
}

/// The JSON before raw tensors. Its length is told in a header that all requests share, so it
/// is filled up with blanks to what the largest sizes would need.
struct RawHead {
    /// Text before the size of each tensor.
    before: Vec<String>,
    after: String,
    length: usize,
}

/// Digits of the largest tensor: 16 Mi elements of 8 bytes, or prompts of as much.
const SIZE_DIGITS: usize = 12;

impl RawHead {
    fn new(kserve: &Kserve, tensors: &[Tensor]) -> Self {
        let mut parameters = parameters(kserve);
        if kserve.outputs.is_empty() {
            parameters.insert("binary_data_output".to_owned(), true.into());
        }
        let parameters = if parameters.is_empty() {
            String::new()
        } else {
            format!(r#""parameters":{},"#, Value::from(parameters))
        };
        let mut open = format!(r#"{{{parameters}"inputs":[{{"#);
        let mut before = Vec::new();
        for tensor in tensors {
            let (name, datatype) = (Value::from(tensor.name.as_str()), tensor.datatype.as_str());
            let shape = &tensor.shape;
            open.push_str(&format!(
                r#""name":{name},"datatype":"{datatype}","shape":{shape:?},"parameters":{{"binary_data_size":"#
            ));
            before.push(std::mem::replace(&mut open, "}},{".to_owned()));
        }
        let outputs: Vec<Value> = kserve
            .outputs
            .iter()
            .map(|output| json!({"name": output.name, "parameters": {"binary_data": true}}))
            .collect();
        let outputs = if outputs.is_empty() {
            String::new()
        } else {
            format!(r#","outputs":{}"#, Value::from(outputs))
        };
        let after = format!("}}}}]{outputs}}}");
        let texts = before.iter().map(String::len).sum::<usize>() + after.len();
        let length = texts + before.len() * SIZE_DIGITS;
        Self { before, after, length }
    }

    fn body(&self, tensors: &[Tensor], own: &Own) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::with_capacity(self.length);
        for (before, tensor) in self.before.iter().zip(tensors) {
            body.extend_from_slice(before.as_bytes());
            body.extend_from_slice(tensor.raw_bytes(own).to_string().as_bytes());
        }
        body.extend_from_slice(self.after.as_bytes());
        if body.len() > self.length {
            return Err(Fault::new(Class::Send, "an input is too large"));
        }
        body.resize(self.length, b' ');
        for tensor in tensors {
            tensor.push(&mut body, own);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::recipe::Load;

    use super::*;

    fn parts(kserve: &str, form: Form) -> (Kserve, Vec<Tensor>) {
        let load: Load = serde_json::from_value(json!({
            "name": "l", "driver": "kserve-http", "model": "m", "arrival": {"concurrency": 1},
            "phases": {"measure": "1s"},
            "kserve": serde_json::from_str::<Value>(kserve).unwrap(),
        }))
        .unwrap();
        let kserve = load.kserve.clone().unwrap();
        let wanted = model::inputs(&load, &kserve, &model::Metadata::default()).unwrap();
        (kserve, super::super::tensors(&wanted, form, 1))
    }

    fn own() -> Own {
        Own { text: "a \"b\"".into(), ..Own::default() }
    }

    const TWO: &str = r#"{"version":"1","parameters":{"p":1},"outputs":["y",{"name":"z","shape":[1]}],
        "inputs":[{"name":"a","datatype":"INT16","shape":[2,2],"data":[1,2,3,-4]},
                  {"name":"t","datatype":"BYTES","shape":[1,1],"data":"text"}]}"#;

    #[test]
    fn json_bodies_have_tensors_between_their_pieces() {
        let (kserve, tensors) = parts(TWO, Form::Json);
        let body = pieces(&kserve, &tensors).body(&tensors, &own());
        let json: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({"parameters": {"p": 1},
            "inputs": [
                {"name": "a", "datatype": "INT16", "shape": [2, 2], "data": [1, 2, 3, -4]},
                {"name": "t", "datatype": "BYTES", "shape": [1, 1], "data": ["a \"b\""]}],
            "outputs": [{"name": "y"}, {"name": "z"}]});
        assert_eq!(json, expected);
    }

    #[test]
    fn raw_bodies_have_a_head_of_one_length() {
        let (kserve, tensors) = parts(TWO, Form::Raw);
        let head = RawHead::new(&kserve, &tensors);
        let body = head.body(&tensors, &own()).unwrap();
        let (json, raw) = body.split_at(head.length);
        let json: Value = serde_json::from_slice(json).unwrap();
        let expected = json!({"parameters": {"p": 1},
            "inputs": [
                {"name": "a", "datatype": "INT16", "shape": [2, 2], "parameters": {"binary_data_size": 8}},
                {"name": "t", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 9}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": true}},
                        {"name": "z", "parameters": {"binary_data": true}}]});
        assert_eq!(json, expected);
        assert_eq!(raw, b"\x01\0\x02\0\x03\0\xfc\xff\x05\0\0\0a \"b\"");
        let (kserve, tensors) =
            parts(r#"{"inputs":[{"name":"a","datatype":"INT8","shape":[1]}]}"#, Form::Raw);
        let head = RawHead::new(&kserve, &tensors);
        let body = head.body(&tensors, &own()).unwrap();
        let json: Value = serde_json::from_slice(body.split_at(head.length).0).unwrap();
        assert_eq!(json["parameters"], json!({"binary_data_output": true}));
        assert_eq!(body.len(), head.length + 1);
    }
}
