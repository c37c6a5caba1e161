//! Responses of an inference, checked against the request.
//!
//! Tensors are not kept. Of raw bytes only the length counts, of JSON the number of elements.

use std::rc::Rc;

use aifb_schema::recipe::{Datatype, KserveOutput};
use serde::{Deserialize, Deserializer, de};

use crate::{
    fault::{Class, Fault},
    record::row::Seen,
    wire::{Head, Reply, Whole},
};

/// Header that says how long the JSON before the raw bytes is.
pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";

/// Longest JSON before raw bytes: it has names and shapes only, a few hundred bytes a tensor.
const HEADER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is held of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// So many elements.
    Elements(u64),
    /// So many raw bytes.
    Bytes(u64),
}

/// One output of an answer.
#[derive(Debug)]
pub(super) struct Output<'a> {
    /// Name.
    pub(super) name: &'a str,
    /// Type, in the protocol's word.
    pub(super) datatype: &'a str,
    /// Dimensions.
    pub(super) shape: &'a [i64],
    /// What came.
    pub(super) held: Held,
}

/// Whether the outputs are the requested ones, and each has the size of its shape.
///
/// # Errors
/// `empty_response` without any output, `verify_mismatch` if one is missing or of another shape,
/// `parse` where an output contradicts itself.
pub(super) fn check(expected: &[KserveOutput], outputs: &[Output<'_>]) -> Result<(), Fault> {
    if outputs.is_empty() {
        return Err(Fault::new(Class::EmptyResponse, "a response without outputs"));
    }
    outputs.iter().try_for_each(itself)?;
    for KserveOutput { name, shape } in expected {
        let found = outputs.iter().find(|output| output.name == name);
        let Some(found) = found else {
            return Err(Fault::new(Class::VerifyMismatch, format!("output '{name}' is missing")));
        };
        let fits = |shape: &Vec<i32>| {
            shape.len() == found.shape.len()
                && shape
                    .iter()
                    .zip(found.shape)
                    .all(|(wanted, size)| *wanted == -1 || i64::from(*wanted) == *size)
        };
        if let Some(shape) = shape.as_ref().filter(|shape| !fits(shape)) {
            return Err(Fault::new(
                Class::VerifyMismatch,
                format!("output '{name}' has the shape {:?}, expected {shape:?}", found.shape),
            ));
        }
    }
    Ok(())
}

/// Whether an output is as large as its own shape says.
fn itself(output: &Output<'_>) -> Result<(), Fault> {
    let Output { name, datatype, shape, held } = output;
    let elements = shape.iter().try_fold(1_u64, |count, size| {
        u64::try_from(*size).ok().and_then(|size| count.checked_mul(size))
    });
    let Some(elements) = elements else {
        return Err(odd(format!("output '{name}' has the shape {shape:?}")));
    };
    let word = serde_json::Value::from(*datatype);
    let datatype: Datatype = serde_json::from_value(word)
        .map_err(|_| odd(format!("output '{name}' has the type '{datatype}'")))?;
    let fits = match (held, datatype.bytes()) {
        (Held::Elements(count), _) => *count == elements,
        (Held::Bytes(count), Some(size)) => elements.checked_mul(size) == Some(*count),
        // Each text has its length before it.
        (Held::Bytes(count), None) => elements.checked_mul(4).is_some_and(|least| *count >= least),
    };
    if fits { Ok(()) } else { Err(odd(format!("output '{name}' of shape {shape:?} has {held:?}"))) }
}

fn odd(message: String) -> Fault {
    Fault::new(Class::Parse, message)
}

/// An answer to an inference over HTTP: JSON, then raw bytes if there are any.
#[derive(Debug)]
pub(super) struct Inferred {
    expected: Rc<[KserveOutput]>,
    /// Length of the JSON, where raw bytes follow it.
    header: Option<usize>,
    json: Whole,
    /// What the JSON said, as soon as it was there where raw bytes follow it.
    answer: Option<Answer>,
    /// Bytes after the JSON.
    raw: u64,
}

impl Inferred {
    /// An answer that has to have these outputs.
    pub(super) fn new(expected: &Rc<[KserveOutput]>) -> Self {
        Self {
            expected: Rc::clone(expected),
            header: None,
            json: Whole::default(),
            answer: None,
            raw: 0,
        }
    }
}

impl Reply for Inferred {
    fn head(&mut self, head: &Head<'_>, _: &mut Seen) -> Result<(), Fault> {
        let Some(value) = head.fields.text(HEADER_LENGTH) else { return Ok(()) };
        let length = value.trim().parse().ok().filter(|length| *length <= HEADER_BYTES_MAX);
        self.header =
            Some(length.ok_or_else(|| odd(format!("{HEADER_LENGTH} is '{}'", value.trim())))?);
        Ok(())
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        let Some(header) = self.header else { return self.json.body(bytes, at_ns, seen) };
        let room = header.saturating_sub(self.json.bytes().len()).min(bytes.len());
        let (json, raw) = bytes.split_at(room);
        self.raw = self.raw.saturating_add(u64::try_from(raw.len()).unwrap_or(u64::MAX));
        self.json.body(json, at_ns, seen)?;
        if self.answer.is_none() && self.json.bytes().len() == header {
            self.answer = Some(Answer::read(self.json.bytes())?);
        }
        // More than was announced may never end.
        match self.answer.as_ref().map(Answer::raw) {
            Some(announced) if self.raw > announced => Err(wrong_length(self.raw, announced)),
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: u64, _: &mut Seen) -> Result<(), Fault> {
        let json = self.json.bytes();
        if self.header.is_some_and(|header| json.len() < header) {
            return Err(Fault::new(Class::TruncatedStream, "the response ends within its JSON"));
        }
        let answer = match self.answer.take() {
            Some(answer) => answer,
            None => Answer::read(json)?,
        };
        let mut outputs = Vec::new();
        for output in &answer.outputs {
            let held = match (&output.data, output.parameters.binary_data_size) {
                (Some(Leaves(count)), None) => Held::Elements(*count),
                (None, Some(bytes)) => Held::Bytes(bytes),
                _ => return Err(odd(format!("output '{}' has no data", output.name))),
            };
            let (name, datatype, shape) = (&output.name, &output.datatype, &output.shape);
            outputs.push(Output { name, datatype, shape, held });
        }
        if self.raw != answer.raw() {
            return Err(wrong_length(self.raw, answer.raw()));
        }
        check(&self.expected, &outputs)
    }
}

fn wrong_length(came: u64, announced: u64) -> Fault {
    odd(format!("{came} raw bytes, expected {announced}"))
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    outputs: Vec<OutputText>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

impl Answer {
    /// What the JSON says, if it is no error.
    fn read(json: &[u8]) -> Result<Self, Fault> {
        let answer: Self = serde_json::from_slice(json)
            .map_err(|error| odd(format!("reading the response: {error}")))?;
        let Some(error) = &answer.error else { return Ok(answer) };
        let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
        Err(Fault::new(Class::ErrorEventIn200, text))
    }

    /// Raw bytes that follow it.
    fn raw(&self) -> u64 {
        let sizes = self.outputs.iter().filter_map(|one| one.parameters.binary_data_size);
        sizes.fold(0, u64::saturating_add)
    }
}

#[derive(Debug, Deserialize)]
struct OutputText {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    data: Option<Leaves>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

/// Number of values in a list, however it is nested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaves(u64);

impl<'de> Deserialize<'de> for Leaves {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> de::Visitor<'de> for Count {
            type Value = Leaves;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of values")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_str<E>(self, _: &str) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_unit<E>(self) -> Result<Leaves, E> {
                Ok(Leaves(1))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Leaves, A::Error> {
                let mut count = 0;
                while let Some(Leaves(inner)) = list.next_element()? {
                    count += inner;
                }
                Ok(Leaves(count))
            }
        }
        from.deserialize_any(Count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fields;

    /// Reads an answer whole and in two parts split at every byte; the results are equal.
    fn read(header: Option<&str>, body: &[u8], expected: &[KserveOutput]) -> Result<(), Fault> {
        let parse = |pieces: [&[u8]; 2]| {
            let mut reply = Inferred::new(&Rc::from(expected));
            let mut seen = Seen::default();
            let field = httparse::Header {
                name: "Inference-Header-Content-Length",
                value: header.unwrap_or_default().as_bytes(),
            };
            let fields = if header.is_some() { &[field][..] } else { &[] };
            reply.head(&Head { status: 200, fields: Fields::List(fields) }, &mut seen)?;
            for piece in pieces {
                reply.body(piece, 1, &mut seen)?;
            }
            reply.end(1, &mut seen)
        };
        let whole = parse([body, b""]);
        for at in 0..body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(parse([a, b]), whole, "split at {at}");
        }
        whole
    }

    fn asked(name: &str, shape: Option<&[i32]>) -> KserveOutput {
        KserveOutput { name: name.into(), shape: shape.map(<[i32]>::to_vec) }
    }

    fn class(result: Result<(), Fault>) -> Class {
        result.expect_err("a fault").class
    }

    const PLAIN: &str = r#"{"model_name":"m","outputs":[
        {"name":"a","datatype":"FP32","shape":[2,2],"data":[[1,2.5],[3,null]]},
        {"name":"b","datatype":"BYTES","shape":[1],"data":["x"]}]}"#;

    #[test]
    fn json_tensors_are_counted() {
        for expected in
            [&[][..], &[asked("b", None)], &[asked("a", Some(&[2, 2])), asked("b", Some(&[-1]))]]
        {
            assert_eq!(read(None, PLAIN.as_bytes(), expected), Ok(()));
        }
        for expected in [asked("c", None), asked("a", Some(&[2, 3])), asked("a", Some(&[4]))] {
            let fault = read(None, PLAIN.as_bytes(), &[expected]);
            assert_eq!(class(fault), Class::VerifyMismatch);
        }
    }

    #[test]
    fn raw_tensors_are_measured() {
        let json = r#"{"outputs":[{"name":"a","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},
            {"name":"b","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}"#;
        let whole = [json.as_bytes(), &[0; 8], b"\x02\0\0\0hi"].concat();
        let length = json.len().to_string();
        assert_eq!(read(Some(&length), &whole, &[asked("a", Some(&[2]))]), Ok(()));
        let (short, _) = whole.split_at(whole.len() - 1);
        assert_eq!(class(read(Some(&length), short, &[])), Class::Parse);
        let (cut, _) = whole.split_at(20);
        assert_eq!(class(read(Some(&length), cut, &[])), Class::TruncatedStream);
        // More than was announced is not waited for to the end.
        let field = httparse::Header { name: HEADER_LENGTH, value: length.as_bytes() };
        let (mut reply, mut seen) = (Inferred::new(&Rc::from([])), Seen::default());
        reply.head(&Head { status: 200, fields: Fields::List(&[field]) }, &mut seen).unwrap();
        reply.body(&whole, 1, &mut seen).unwrap();
        assert_eq!(class(reply.body(b"!", 1, &mut seen)), Class::Parse);
        for odd in ["-1", "x", "99999999999", ""] {
            assert_eq!(class(read(Some(odd), &whole, &[])), Class::Parse, "{odd}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        let output = |output: &str| format!(r#"{{"outputs":[{output}]}}"#);
        for text in [
            output(r#"{"name":"a","datatype":"FP32","shape":[3],"data":[1,2]}"#),
            output(r#"{"name":"a","datatype":"FP32","shape":[-1],"data":[1]}"#),
            output(r#"{"name":"a","datatype":"FP33","shape":[1],"data":[1]}"#),
            output(r#"{"name":"a","datatype":"FP32","shape":[1]}"#),
            output(r#"{"name":"a","datatype":"INT8","shape":[9223372036854775807,3],"data":[1]}"#),
            output(
                r#"{"name":"a","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}"#,
            ),
            "{".to_owned(),
            "3".to_owned(),
        ] {
            assert_eq!(class(read(None, text.as_bytes(), &[])), Class::Parse, "{text}");
        }
        assert_eq!(class(read(None, br#"{"outputs":[]}"#, &[])), Class::EmptyResponse);
        assert_eq!(class(read(None, br#"{"error":"no"}"#, &[])), Class::ErrorEventIn200);
    }

    #[test]
    fn deep_lists_are_refused() {
        let deep = format!(
            r#"{{"outputs":[{{"name":"a","datatype":"INT8","shape":[1],"data":{}1{}}}]}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        let mut reply = Inferred::new(&Rc::from([]));
        reply.body(deep.as_bytes(), 0, &mut Seen::default()).unwrap();
        assert_eq!(class(reply.end(0, &mut Seen::default())), Class::Parse);
    }
}
