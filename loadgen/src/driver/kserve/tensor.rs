//! Input tensors: their elements as they are sent, for each request.
//!
//! Nothing is computed while the load runs: random elements are cut from a pool made before the
//! start, at a place that depends only on the seed and the request.

use aifb_schema::recipe::{Datatype, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// Places of a pool where the elements of a request can begin.
const PLACES: usize = 4096;

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON list without its brackets.
    Json,
    /// Little-endian bytes without gaps; texts after their length of 4 bytes.
    Raw,
}

/// What a tensor is made from; all of it is known and fits.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Name, as the model has it.
    pub(super) name: String,
    /// Type of the elements.
    pub(super) datatype: Datatype,
    /// Dimensions.
    pub(super) shape: Vec<u32>,
    /// Number of elements.
    pub(super) count: usize,
    /// Where they come from.
    pub(super) data: TensorData,
    /// The element is a JSON object of sampling parameters (vLLM's backend), whatever `data` says.
    pub(super) sampling: bool,
    /// Bound of random numbers.
    pub(super) below: Option<u32>,
}

/// An input, ready to be sent.
#[derive(Debug)]
pub(super) struct Tensor {
    /// Name, as the model has it.
    pub(super) name: String,
    /// Type of the elements.
    pub(super) datatype: Datatype,
    /// Dimensions.
    pub(super) shape: Vec<u32>,
    /// Number of elements.
    count: usize,
    form: Form,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The same each time.
    Fixed(Vec<u8>),
    /// Encoded elements, and from where to where those of a request go.
    Pool { bytes: Vec<u8>, spans: Vec<(usize, usize)> },
    /// The prompt in each element.
    Text,
    /// The number of tokens to generate in each element.
    Tokens,
    /// The same with more about it, as JSON.
    Sampling,
}

/// What a request has of its own.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Where its random elements begin.
    pub(super) place: usize,
    /// Its prompt.
    pub(super) text: String,
    /// Tokens to generate.
    pub(super) tokens: u32,
    /// Whether exactly so many are wanted.
    pub(super) exact: bool,
}

impl Own {
    /// As vLLM's backend takes it.
    fn sampling(&self) -> String {
        let Self { tokens, exact, .. } = self;
        let exactly = if *exact {
            format!(r#","min_tokens":{tokens},"ignore_eos":true"#)
        } else {
            String::new()
        };
        format!(r#"{{"max_tokens":{tokens},"temperature":0{exactly}}}"#)
    }
}

impl Tensor {
    /// Makes the tensor; `number` tells the inputs of a model apart.
    pub(super) fn new(wanted: &Wanted, form: Form, seed: u64, number: u64) -> Self {
        let Wanted { name, datatype, shape, count, data, sampling, below } = wanted;
        let (datatype, count) = (*datatype, *count);
        let fixed = |element: &dyn Fn(usize) -> Element| {
            let mut bytes = Vec::new();
            for index in 0..count {
                push(&mut bytes, form, datatype, &element(index));
            }
            finish(&mut bytes, form);
            Content::Fixed(bytes)
        };
        let content = match data {
            _ if *sampling => Content::Sampling,
            TensorData::Text => Content::Text,
            TensorData::Tokens => Content::Tokens,
            TensorData::Zeros => fixed(&|_| Element::zero(datatype)),
            TensorData::Values(values) => {
                let value = |index: usize| values.get(index).or_else(|| values.first());
                fixed(&|index| value(index).map_or_else(|| Element::zero(datatype), Element::of))
            }
            TensorData::Random => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(STREAM_POOL + number);
                pool(&mut random, form, datatype, count, *below)
            }
        };
        Self { name: name.clone(), datatype, shape: shape.clone(), count, form, content }
    }

    /// Appends the elements of a request.
    pub(super) fn push(&self, body: &mut Vec<u8>, own: &Own) {
        match &self.content {
            Content::Fixed(bytes) => body.extend_from_slice(bytes),
            Content::Pool { bytes, spans } => {
                let span = spans.get(own.place % spans.len().max(1)).copied().unwrap_or_default();
                body.extend_from_slice(bytes.get(span.0..span.1).unwrap_or_default());
            }
            Content::Text => self.repeat(body, &Element::Text(own.text.clone())),
            Content::Tokens => self.repeat(body, &Element::Unsigned(u64::from(own.tokens))),
            Content::Sampling => self.repeat(body, &Element::Text(own.sampling())),
        }
    }

    fn repeat(&self, body: &mut Vec<u8>, element: &Element) {
        for _ in 0..self.count {
            push(body, self.form, self.datatype, element);
        }
        finish(body, self.form);
    }

    /// Bytes that [`Tensor::push`] appends, in raw form.
    pub(super) fn raw_bytes(&self, own: &Own) -> usize {
        let texts = |length: usize| self.count.saturating_mul(4 + length);
        match &self.content {
            Content::Fixed(bytes) => bytes.len(),
            Content::Pool { spans, .. } => {
                let span = spans.get(own.place % spans.len().max(1)).copied().unwrap_or_default();
                span.1.saturating_sub(span.0)
            }
            Content::Text => texts(own.text.len()),
            Content::Sampling => texts(own.sampling().len()),
            Content::Tokens => {
                let size = self.datatype.bytes().and_then(|size| usize::try_from(size).ok());
                self.count.saturating_mul(size.unwrap_or(0))
            }
        }
    }

    /// Whether its elements depend on what the workload has for the request.
    pub(super) fn follows_workload(&self) -> bool {
        matches!(self.content, Content::Text | Content::Tokens | Content::Sampling)
    }

    /// Whether it is a single element of a model without dimensions, or with one of size 1.
    pub(super) fn is_scalar(&self) -> bool {
        self.count == 1 && self.shape.len() <= 1
    }
}

/// Streams of the random generator, apart from those of prompts and of the plan.
const STREAM_POOL: u64 = 1000;

/// The stream that places are drawn from.
const STREAM_PLACES: u64 = 999;

/// Draws the places of requests.
#[derive(Debug)]
pub(super) struct Places {
    seed: u64,
}

impl Places {
    /// Places of a load.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The place of a request.
    pub(super) fn of(&self, key: u64) -> usize {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(STREAM_PLACES);
        random.set_word_pos(u128::from(key) * 2);
        usize::try_from(random.random::<u64>() % u64::try_from(PLACES).unwrap_or(1)).unwrap_or(0)
    }
}

/// One element.
#[derive(Debug, Clone, PartialEq)]
enum Element {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

impl Element {
    fn zero(datatype: Datatype) -> Self {
        match datatype {
            Datatype::Bool => Self::Bool(false),
            Datatype::Bytes => Self::Text(String::new()),
            _ if datatype.is_float() => Self::Float(0.0),
            _ => Self::Unsigned(0),
        }
    }

    /// A value of the recipe.
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::String(text) => Self::Text(text.clone()),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Self::Unsigned(number),
                (None, Some(number)) => Self::Signed(number),
                (None, None) => Self::Float(number.as_f64().unwrap_or(0.0)),
            },
            // The checks let only the above come here.
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Unsigned(0),
        }
    }

    fn random(random: &mut ChaCha8Rng, datatype: Datatype, below: Option<u32>) -> Self {
        let draw = random.random::<u64>();
        match datatype {
            Datatype::Bool => Self::Bool(draw & 1 == 1),
            Datatype::Bytes => Self::Text(word(draw)),
            _ if datatype.is_float() => {
                // 53 bits: every value that a double can have at this distance.
                let share = as_float(draw >> 11) / as_float(1 << 53);
                Self::Float(share * f64::from(below.unwrap_or(1)))
            }
            _ => Self::Unsigned(draw % u64::from(below.unwrap_or(INTEGERS_BELOW).max(1))),
        }
    }

    fn as_f64(&self) -> f64 {
        match self {
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Unsigned(number) => as_float(*number),
            Self::Signed(number) => *number as f64,
            Self::Float(number) => *number,
            Self::Text(_) => 0.0,
        }
    }

    /// The low bits of the number, two's complement.
    fn bits(&self) -> u64 {
        match self {
            Self::Bool(value) => u64::from(*value),
            Self::Unsigned(number) => *number,
            Self::Signed(number) => number.cast_unsigned(),
            // Integer types have integers: the checks see to it.
            Self::Float(_) | Self::Text(_) => 0,
        }
    }
}

/// Bound of random integers where none is given: fits every type, and the vocabulary of any
/// model that takes tokens.
const INTEGERS_BELOW: u32 = 100;

fn as_float(number: u64) -> f64 {
    number as f64
}

/// A word of 8 letters.
fn word(mut draw: u64) -> String {
    (0..8)
        .map(|_| {
            let letter = u8::try_from(draw % 26).unwrap_or(0);
            draw /= 26;
            char::from(b'a' + letter)
        })
        .collect()
}

fn pool(
    random: &mut ChaCha8Rng,
    form: Form,
    datatype: Datatype,
    count: usize,
    below: Option<u32>,
) -> Content {
    let mut bytes = Vec::new();
    let (mut begins, mut ends) = (Vec::with_capacity(PLACES), Vec::with_capacity(PLACES));
    for index in 0..count + PLACES - 1 {
        if index < PLACES {
            begins.push(bytes.len());
        }
        push(&mut bytes, form, datatype, &Element::random(random, datatype, below));
        if index + 1 >= count {
            let comma = usize::from(form == Form::Json);
            ends.push(bytes.len() - comma);
        }
    }
    Content::Pool { bytes, spans: begins.into_iter().zip(ends).collect() }
}

/// Appends one element; in JSON with a comma.
fn push(bytes: &mut Vec<u8>, form: Form, datatype: Datatype, element: &Element) {
    match form {
        Form::Json => {
            bytes.extend_from_slice(json(datatype, element).as_bytes());
            bytes.push(b',');
        }
        Form::Raw => raw(bytes, datatype, element),
    }
}

/// Takes the last comma away.
fn finish(bytes: &mut Vec<u8>, form: Form) {
    if form == Form::Json && bytes.last() == Some(&b',') {
        bytes.pop();
    }
}

fn json(datatype: Datatype, element: &Element) -> String {
    match (datatype, element) {
        (Datatype::Bytes, Element::Text(text)) => Value::from(text.as_str()).to_string(),
        (Datatype::Bool, _) => (element.bits() != 0).to_string(),
        (Datatype::Fp64, _) => format!("{:?}", element.as_f64()),
        (_, _) if datatype.is_float() => format!("{:?}", element.as_f64() as f32),
        (_, Element::Signed(number)) => number.to_string(),
        (_, _) => element.bits().to_string(),
    }
}

fn raw(bytes: &mut Vec<u8>, datatype: Datatype, element: &Element) {
    let low = |count: usize| element.bits().to_le_bytes().into_iter().take(count);
    match datatype {
        Datatype::Bool => bytes.push(u8::from(element.bits() != 0)),
        Datatype::Uint8 | Datatype::Int8 => bytes.extend(low(1)),
        Datatype::Uint16 | Datatype::Int16 => bytes.extend(low(2)),
        Datatype::Uint32 | Datatype::Int32 => bytes.extend(low(4)),
        Datatype::Uint64 | Datatype::Int64 => bytes.extend(low(8)),
        Datatype::Fp16 => {
            bytes.extend_from_slice(&half::f16::from_f64(element.as_f64()).to_le_bytes());
        }
        Datatype::Bf16 => {
            bytes.extend_from_slice(&half::bf16::from_f64(element.as_f64()).to_le_bytes());
        }
        Datatype::Fp32 => bytes.extend_from_slice(&(element.as_f64() as f32).to_le_bytes()),
        Datatype::Fp64 => bytes.extend_from_slice(&element.as_f64().to_le_bytes()),
        Datatype::Bytes => {
            let text = if let Element::Text(text) = element { text.as_str() } else { "" };
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, count: usize, data: TensorData, form: Form) -> Tensor {
        let wanted = Wanted {
            name: "x".into(),
            datatype,
            shape: vec![u32::try_from(count).unwrap()],
            count,
            data,
            sampling: false,
            below: None,
        };
        Tensor::new(&wanted, form, 7, 0)
    }

    fn pushed(tensor: &Tensor, place: usize) -> Vec<u8> {
        let own = Own { place, text: "say \"hi\"".into(), tokens: 7, exact: true };
        let mut body = Vec::new();
        tensor.push(&mut body, &own);
        if tensor.form == Form::Raw {
            assert_eq!(body.len(), tensor.raw_bytes(&own));
        }
        body
    }

    fn values(list: &str) -> TensorData {
        TensorData::Values(serde_json::from_str(list).unwrap())
    }

    #[test]
    fn values_are_encoded_as_the_protocol_says() {
        for (datatype, list, raw, json) in [
            (Datatype::Bool, "[true, false]", vec![1, 0], "true,false"),
            (Datatype::Int8, "[-1, 5]", vec![255, 5], "-1,5"),
            (Datatype::Uint16, "[258, 1]", vec![2, 1, 1, 0], "258,1"),
            (Datatype::Int32, "[-2, 1]", vec![254, 255, 255, 255, 1, 0, 0, 0], "-2,1"),
            (Datatype::Fp32, "[1.5, 1]", [1.5_f32, 1.0].map(f32::to_le_bytes).concat(), "1.5,1.0"),
            (
                Datatype::Fp64,
                "[0.1, -2]",
                [0.1_f64, -2.0].map(f64::to_le_bytes).concat(),
                "0.1,-2.0",
            ),
            (
                Datatype::Bytes,
                "[\"é\", \"\"]",
                b"\x02\0\0\0\xc3\xa9\0\0\0\0".to_vec(),
                "\"é\",\"\"",
            ),
        ] {
            let of = |form| pushed(&tensor(datatype, 2, values(list), form), 3);
            assert_eq!(of(Form::Raw), raw, "{datatype:?}");
            assert_eq!(String::from_utf8(of(Form::Json)).unwrap(), json, "{datatype:?}");
        }
        let half = tensor(Datatype::Fp16, 2, values("[1.0, -0.5]"), Form::Raw);
        assert_eq!(pushed(&half, 0), [0x00, 0x3c, 0x00, 0xb8]);
        let brain = tensor(Datatype::Bf16, 1, values("[1.0]"), Form::Raw);
        assert_eq!(pushed(&brain, 0), [0x80, 0x3f]);
    }

    #[test]
    fn one_value_fills_and_zeros_are_zero() {
        let filled = tensor(Datatype::Uint8, 3, values("[9]"), Form::Raw);
        assert_eq!(pushed(&filled, 0), [9, 9, 9]);
        let zeros = tensor(Datatype::Bytes, 2, TensorData::Zeros, Form::Json);
        assert_eq!(pushed(&zeros, 0), b"\"\",\"\"");
    }

    #[test]
    fn text_is_the_prompt() {
        let json = tensor(Datatype::Bytes, 2, TensorData::Text, Form::Json);
        assert_eq!(pushed(&json, 0), br#""say \"hi\"","say \"hi\"""#);
        let raw = tensor(Datatype::Bytes, 1, TensorData::Text, Form::Raw);
        assert_eq!(pushed(&raw, 0), b"\x08\0\0\0say \"hi\"");
    }

    #[test]
    fn tokens_are_as_many_as_the_request_wants() {
        let raw = tensor(Datatype::Int32, 2, TensorData::Tokens, Form::Raw);
        assert_eq!(pushed(&raw, 0), [7, 0, 0, 0, 7, 0, 0, 0]);
        let json = tensor(Datatype::Int64, 1, TensorData::Tokens, Form::Json);
        assert_eq!(pushed(&json, 0), b"7");
        let exact = Own { tokens: 7, exact: true, ..Own::default() }.sampling();
        let exact: Value = serde_json::from_str(&exact).unwrap();
        assert_eq!((&exact["max_tokens"], &exact["min_tokens"]), (&7.into(), &7.into()));
        let free = Own { tokens: 7, ..Own::default() }.sampling();
        assert_eq!(free, r#"{"max_tokens":7,"temperature":0}"#);
    }

    #[test]
    fn random_elements_are_many_bounded_and_the_same_again() {
        for count in [1, 3, 5000] {
            let make = || tensor(Datatype::Int32, count, TensorData::Random, Form::Json);
            let (first, again) = (make(), make());
            let mut different = std::collections::BTreeSet::new();
            for place in [0, 1, 2, PLACES - 1, PLACES] {
                let body = pushed(&first, place);
                assert_eq!(body, pushed(&again, place));
                let list: Vec<u32> = serde_json::from_str(&format!(
                    "[{}]",
                    String::from_utf8(body.clone()).unwrap()
                ))
                .unwrap();
                assert_eq!(list.len(), count);
                assert!(list.iter().all(|number| *number < INTEGERS_BELOW));
                different.insert(body);
            }
            // The place after the last is the first again.
            assert!(different.len() <= 4 && (count == 1 || different.len() == 4), "{count}");
            let raw = tensor(Datatype::Int32, count, TensorData::Random, Form::Raw);
            assert_eq!(pushed(&raw, 5).len(), 4 * count);
        }
    }

    #[test]
    fn random_floats_are_below_their_bound() {
        let tensor = tensor(Datatype::Fp32, 1000, TensorData::Random, Form::Raw);
        let body = pushed(&tensor, 9);
        let numbers: Vec<f32> = body
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        let mean = numbers.iter().sum::<f32>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
    }

    #[test]
    fn places_follow_from_the_seed() {
        let places = |seed| (0..200).map(|key| Places::new(seed).of(key)).collect::<Vec<_>>();
        assert_eq!(places(1), places(1));
        assert_ne!(places(1), places(2));
        let different: std::collections::BTreeSet<usize> = places(1).into_iter().collect();
        assert!(different.len() > 180, "{}", different.len());
        assert!(places(1).iter().all(|place| *place < PLACES));
    }
}
