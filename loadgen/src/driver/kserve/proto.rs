//! The messages of KServe's gRPC service (`inference.GRPCInferenceService`) that are used here,
//! with the field numbers of the public protocol. What is not declared is skipped when it comes.
//!
//! They are a dozen small ones, so they are written down as types: nothing is generated, and
//! building needs neither a compiler for .proto files nor a library that brings one.

use std::collections::HashMap;

/// The service; a method's path is `/SERVICE/METHOD`.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";

/// Names a model: the request of `ModelReady`, `ModelMetadata` and `ModelConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelName {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
}

/// Answer of `ModelReady`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelReady {
    #[prost(bool, tag = "1")]
    pub(crate) ready: bool,
}

/// Answer of `ModelMetadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) outputs: Vec<TensorMetadata>,
}

/// A tensor of a model.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) shape: Vec<i64>,
}

/// Answer of Triton's `ModelConfig`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelConfigAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) config: Option<ModelConfig>,
}

/// The part of a model's configuration that matters.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelConfig {
    #[prost(message, optional, tag = "19")]
    pub(crate) transactions: Option<Transactions>,
}

/// How answers belong to requests.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Transactions {
    /// A request may have none, one or several answers.
    #[prost(bool, tag = "1")]
    pub(crate) decoupled: bool,
}

/// Request of `ModelInfer` and `ModelStreamInfer`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InferRequest {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(string, tag = "2")]
    pub(crate) model_version: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) inputs: Vec<Tensor>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) outputs: Vec<AskedOutput>,
    /// One for each input, in order.
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) raw_inputs: Vec<Vec<u8>>,
}

/// Key of [`InferRequest::raw_inputs`] in the wire format: field 7, length-delimited.
pub(crate) const RAW_INPUT_KEY: u8 = 7 << 3 | 2;

/// A requested output.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AskedOutput {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// A tensor of a request or of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tensor {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) shape: Vec<i64>,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: HashMap<String, Parameter>,
    /// Elements, where they are not raw.
    #[prost(message, optional, tag = "5")]
    pub(crate) contents: Option<Contents>,
}

/// Answer of `ModelInfer`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InferAnswer {
    #[prost(string, tag = "1")]
    pub(crate) model_name: String,
    #[prost(map = "string, message", tag = "4")]
    pub(crate) parameters: HashMap<String, Parameter>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) outputs: Vec<Tensor>,
    /// One for each output, in order; empty where the outputs have contents.
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(crate) raw_outputs: Vec<Vec<u8>>,
}

/// Answer of `ModelStreamInfer`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StreamAnswer {
    /// Empty where all is well.
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) answer: Option<InferAnswer>,
}

/// Value of a parameter.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Parameter {
    #[prost(oneof = "Choice", tags = "1, 2, 3")]
    pub(crate) choice: Option<Choice>,
}

/// Kinds of values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Choice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    Text(String),
}

/// Elements in fields of their own kind.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Contents {
    #[prost(bool, repeated, tag = "1")]
    pub(crate) bools: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(crate) ints: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) int64s: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) uints: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) uint64s: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    pub(crate) fp32s: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub(crate) fp64s: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(crate) bytes: Vec<Vec<u8>>,
}

impl Contents {
    /// Number of elements, of whatever kind.
    pub(crate) fn len(&self) -> usize {
        self.bools.len()
            + self.ints.len()
            + self.int64s.len()
            + self.uints.len()
            + self.uint64s.len()
            + self.fp32s.len()
            + self.fp64s.len()
            + self.bytes.len()
    }
}
