//! What is asked of a server that speaks KServe's version 2 protocol: Triton, KServe and others.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Requests of the drivers `kserve-http`, `kserve-grpc` and `triton-generate`. The model is the
/// load's `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kserve {
    /// Version of the model; absent: the server chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Inputs of each request. Absent: all inputs in the model's metadata, with random numbers and
    /// prompts of the dataset; for triton-generate the usual ones of language models (`text_input`,
    /// `max_tokens`, `sampling_parameters`, `stream`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<KserveInput>,
    /// Outputs that are requested and must be in each response. Absent: those that the model
    /// returns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<KserveOutput>,
    /// Parameters of each request: texts, numbers, true or false.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// Tensors as raw bytes (Triton's binary extension) instead of JSON, for kserve-http.
    #[serde(default = "Kserve::default_binary")]
    pub binary: bool,
}

impl Kserve {
    fn default_binary() -> bool {
        true
    }
}

impl Default for Kserve {
    fn default() -> Self {
        Self {
            version: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: BTreeMap::new(),
            binary: Self::default_binary(),
        }
    }
}

/// An input tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KserveInput {
    /// Name in the model.
    pub name: String,
    /// Type of its elements; absent: from the model's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datatype: Option<Datatype>,
    /// Its dimensions; absent: from the model's metadata, if all are fixed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u32>>,
    /// Its elements.
    #[serde(default)]
    pub data: TensorData,
    /// Random numbers are at least 0 and below this. Absent: 1 for floating point, 100 for
    /// integers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<u32>,
}

/// Where the elements of an input come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "TensorDataText", into = "TensorDataText")]
pub enum TensorData {
    /// Made from the seed, each request different; words where the type is BYTES.
    #[default]
    Random,
    /// Zeros, false or empty texts.
    Zeros,
    /// Each element is the request's prompt of the dataset (type BYTES).
    Text,
    /// Each element is the number of tokens that the request shall generate (integers of 32 or 64
    /// bits).
    Tokens,
    /// These, in order; a single one fills the tensor.
    Values(Vec<Value>),
}

/// The recipe's form of [`TensorData`]: `random`, `zeros`, `text` (the prompt), `tokens` (how
/// many to generate), or a list of values.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected random, zeros, text, tokens or a list of values")]
enum TensorDataText {
    Word(String),
    Values(Vec<Value>),
}

impl TryFrom<TensorDataText> for TensorData {
    type Error = String;
    fn try_from(text: TensorDataText) -> Result<Self, String> {
        match text {
            TensorDataText::Values(values) => Ok(Self::Values(values)),
            TensorDataText::Word(word) => match word.as_str() {
                "random" => Ok(Self::Random),
                "zeros" => Ok(Self::Zeros),
                "text" => Ok(Self::Text),
                "tokens" => Ok(Self::Tokens),
                _ => Err(format!(
                    "'{}' is no source of data: expected random, zeros, text, tokens or a list of values",
                    super::shown(&word)
                )),
            },
        }
    }
}

impl From<TensorData> for TensorDataText {
    fn from(data: TensorData) -> Self {
        match data {
            TensorData::Random => Self::Word("random".into()),
            TensorData::Zeros => Self::Word("zeros".into()),
            TensorData::Text => Self::Word("text".into()),
            TensorData::Tokens => Self::Word("tokens".into()),
            TensorData::Values(values) => Self::Values(values),
        }
    }
}

/// An output: its name, or its name and required shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "KserveOutputText", into = "KserveOutputText")]
pub struct KserveOutput {
    /// Name in the model.
    pub name: String,
    /// Required dimensions; -1 stands for any.
    pub shape: Option<Vec<i32>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a name, or {name: NAME, shape: [1, -1]}")]
enum KserveOutputText {
    Name(String),
    Whole(NamedShape),
}

/// An output with its shape.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NamedShape {
    /// Name in the model.
    name: String,
    /// Required dimensions; -1 stands for any.
    shape: Vec<i32>,
}

impl TryFrom<KserveOutputText> for KserveOutput {
    type Error = String;
    fn try_from(text: KserveOutputText) -> Result<Self, String> {
        match text {
            KserveOutputText::Name(name) => Ok(Self { name, shape: None }),
            KserveOutputText::Whole(NamedShape { name, shape }) => {
                match shape.iter().find(|size| **size < -1) {
                    Some(size) => Err(format!("dimension {size}: expected -1 (any) or a size")),
                    None => Ok(Self { name, shape: Some(shape) }),
                }
            }
        }
    }
}

impl From<KserveOutput> for KserveOutputText {
    fn from(output: KserveOutput) -> Self {
        let KserveOutput { name, shape } = output;
        match shape {
            None => Self::Name(name),
            Some(shape) => Self::Whole(NamedShape { name, shape }),
        }
    }
}

/// Type of a tensor's elements, by the protocol's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// True or false.
    Bool,
    /// 8 bits, unsigned.
    Uint8,
    /// 16 bits, unsigned.
    Uint16,
    /// 32 bits, unsigned.
    Uint32,
    /// 64 bits, unsigned.
    Uint64,
    /// 8 bits, signed.
    Int8,
    /// 16 bits, signed.
    Int16,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// 16 bits, floating point.
    Fp16,
    /// 32 bits, floating point.
    Fp32,
    /// 64 bits, floating point.
    Fp64,
    /// 16 bits, floating point, with the range of 32.
    Bf16,
    /// Texts of any length.
    Bytes,
}

impl Datatype {
    /// The protocol's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; absent where they vary.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Whether it is a floating-point type.
    #[must_use]
    pub fn is_float(self) -> bool {
        matches!(self, Self::Fp16 | Self::Fp32 | Self::Fp64 | Self::Bf16)
    }

    /// Whether it can hold a number of tokens.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::Uint32 | Self::Uint64)
    }

    /// Whether JSON has a form for it: the 16-bit floating-point types have raw bytes only.
    #[must_use]
    pub fn has_json(self) -> bool {
        !matches!(self, Self::Fp16 | Self::Bf16)
    }

    /// Whether `value` can be an element.
    #[must_use]
    pub fn takes(self, value: &Value) -> bool {
        let signed = |bits: u32| {
            value.as_i64().is_some_and(|number| {
                let (low, high) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
                (low..=high).contains(&number)
            })
        };
        let unsigned =
            |bits: u32| value.as_u64().is_some_and(|number| number <= u64::MAX >> (64 - bits));
        match self {
            Self::Bool => value.is_boolean(),
            Self::Uint8 => unsigned(8),
            Self::Uint16 => unsigned(16),
            Self::Uint32 => unsigned(32),
            Self::Uint64 => unsigned(64),
            Self::Int8 => signed(8),
            Self::Int16 => signed(16),
            Self::Int32 => signed(32),
            Self::Int64 => signed(64),
            Self::Fp16 | Self::Fp32 | Self::Fp64 | Self::Bf16 => value.is_number(),
            Self::Bytes => value.is_string(),
        }
    }
}

/// Most elements of one input: 16 Mi numbers of 4 bytes are 64 MiB for each request in flight.
pub const TENSOR_ELEMENTS_MAX: u64 = 16 * 1024 * 1024;

/// Elements of a tensor of this shape; absent if there are more than [`TENSOR_ELEMENTS_MAX`].
#[must_use]
pub fn elements(shape: &[u32]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1_u64, |count, size| count.checked_mul(u64::from(*size)))
        .filter(|count| *count <= TENSOR_ELEMENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_to_fit_the_type() {
        let fits =
            |datatype: Datatype, text: &str| datatype.takes(&serde_json::from_str(text).unwrap());
        for (datatype, good, bad) in [
            (Datatype::Bool, "true", "1"),
            (Datatype::Int8, "-128", "-129"),
            (Datatype::Int8, "127", "128"),
            (Datatype::Uint8, "255", "256"),
            (Datatype::Uint16, "65535", "-1"),
            (Datatype::Uint32, "4294967295", "4294967296"),
            (Datatype::Uint64, "18446744073709551615", "1.5"),
            (Datatype::Int64, "-9223372036854775808", "9223372036854775808"),
            (Datatype::Int32, "2147483647", "2147483648"),
            (Datatype::Fp32, "0.5", "\"0.5\""),
            (Datatype::Bytes, "\"text\"", "3"),
        ] {
            assert!(fits(datatype, good), "{datatype:?} {good}");
            assert!(!fits(datatype, bad), "{datatype:?} {bad}");
        }
    }

    #[test]
    fn elements_are_bounded() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[1, 3, 224, 224]), Some(150_528));
        assert_eq!(elements(&[u32::MAX, u32::MAX, u32::MAX]), None);
        assert_eq!(elements(&[4096, 4097]), None);
    }

    #[test]
    fn words_are_the_protocols() {
        for datatype in [Datatype::Uint8, Datatype::Bf16, Datatype::Bytes, Datatype::Fp64] {
            let word = serde_json::to_value(datatype).unwrap();
            assert_eq!(word, datatype.as_str());
        }
    }
}
