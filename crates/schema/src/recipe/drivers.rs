//! The table of drivers: one entry for each protocol that a load can speak.
//!
//! From it come the recipe's enum and its JSON Schema, the checks of a load's keys, the list
//! `aifb drivers`, the help of `aifb-loadgen run --driver` and docs/reference/drivers.md. The load
//! generator's registry is a match over [`Driver`] beside it, which the compiler checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What carries a driver's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// gRPC: HTTP/2.
    Grpc,
    /// PostgreSQL's own protocol.
    Postgresql,
    /// No connection: a process for each request.
    Process,
}

impl Transport {
    /// The word in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Postgresql => "postgresql",
            Self::Process => "process",
        }
    }

    /// How a service's URL is written; absent where there is no connection.
    #[must_use]
    pub fn urls(self) -> Option<&'static str> {
        match self {
            Self::Http | Self::Grpc => Some("http://host:port, https://host:port or unix:/path"),
            Self::Postgresql => Some("postgresql://user@host:port/database"),
            Self::Process => None,
        }
    }
}

/// What is known about a driver before a load speaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverSpec {
    /// The driver.
    pub driver: Driver,
    /// The recipe's word for it.
    pub word: &'static str,
    /// What it does, one sentence.
    pub doc: &'static str,
    /// What carries its requests.
    pub transport: Transport,
    /// Port where a URL names none (443 for https); absent where there is no connection.
    pub port: Option<u16>,
    /// Names of its operations in rows and results. A load has one of them, or a mix.
    pub operations: &'static [&'static str],
    /// Keys of a load that not every driver takes and this one does, in groups. A section that is
    /// named alone is taken whole.
    pub groups: &'static [&'static [&'static str]],
    /// Kinds of services whose preset it fits; empty: any. `container` and `external` always fit.
    pub presets: &'static [&'static str],
}

impl DriverSpec {
    /// The keys of [`DriverSpec::groups`], in the order of the table.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.groups.iter().flat_map(|group| group.iter().copied())
    }

    /// Whether it takes `key`, such as `model` or `llm.stream`. Keys that every driver takes
    /// (arrival, phases, …) are in no entry.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        self.keys().any(|own| own == key)
    }

    /// Whether it takes any key of `section`.
    #[must_use]
    pub fn takes_some_of(&self, section: &str) -> bool {
        self.keys().any(|own| own.split('.').next() == Some(section))
    }
}

/// How HTTP is carried.
const HTTP: &[&str] = &["connection"];
/// A model is asked.
const MODEL: &[&str] = &["model", "dataset"];
/// Its answers are made of tokens.
const TOKENS: &[&str] = &["llm.stream", "slo.ttft", "slo.itl"];
/// Requests are JSON objects that may have further members.
const EXTRA: &[&str] = &["llm.extra"];
/// It asks in the form of a chat.
const TOOLS: &[&str] = &["llm.tools"];
/// A request has several texts.
const BATCH: &[&str] = &["llm.batch"];
/// The length of vectors is asked for.
const DIMENSIONS: &[&str] = &["llm.dimensions"];
/// The server pulls and loads models.
const OLLAMA: &[&str] = &["llm.ollama"];
/// Tensors.
const KSERVE: &[&str] = &["kserve"];

macro_rules! drivers {
    ($(
        #[doc = $doc:tt]
        $variant:ident = $word:tt { $($field:ident: $value:expr),+ $(,)? }
    )+) => {
        /// Protocols that a load can speak.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum Driver {
            $(#[doc = $doc] #[serde(rename = $word)] $variant,)+
        }

        /// Every driver, in the order of the table.
        pub const DRIVERS: &[&DriverSpec] = &[$(Driver::$variant.spec(),)+];

        impl Driver {
            /// Its entry in the table.
            #[must_use]
            pub const fn spec(self) -> &'static DriverSpec {
                match self {
                    $(Self::$variant => const { &DriverSpec {
                        driver: Self::$variant,
                        word: $word,
                        doc: $doc.trim_ascii(),
                        $($field: $value),+
                    } },)+
                }
            }

            /// The recipe's word for it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                self.spec().word
            }

            /// The driver of a recipe's word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

drivers! {
    /// OpenAI's completions.
    OpenaiCompletions = "openai-completions" {
        transport: Transport::Http, port: Some(80), operations: &["completion"],
        groups: &[HTTP, MODEL, TOKENS, EXTRA], presets: &["llama-server", "ollama", "vllm"],
    }
    /// OpenAI's chat completions.
    OpenaiChat = "openai-chat" {
        transport: Transport::Http, port: Some(80), operations: &["chat"],
        groups: &[HTTP, MODEL, TOKENS, EXTRA, TOOLS], presets: &["llama-server", "ollama", "vllm"],
    }
    /// OpenAI's embeddings.
    OpenaiEmbeddings = "openai-embeddings" {
        transport: Transport::Http, port: Some(80), operations: &["embedding"],
        groups: &[HTTP, MODEL, EXTRA, BATCH, DIMENSIONS], presets: &["llama-server", "ollama", "vllm"],
    }
    /// Documents ranked for a query, as Jina and Cohere define it and vLLM serves it.
    Rerank = "rerank" {
        transport: Transport::Http, port: Some(80), operations: &["rerank"],
        groups: &[HTTP, MODEL, EXTRA, BATCH], presets: &["llama-server", "vllm"],
    }
    /// Ollama's own API: an answer to a prompt.
    OllamaGenerate = "ollama-generate" {
        transport: Transport::Http, port: Some(80), operations: &["generate"],
        groups: &[HTTP, MODEL, TOKENS, EXTRA, OLLAMA], presets: &["ollama"],
    }
    /// Ollama's own API: an answer in a chat.
    OllamaChat = "ollama-chat" {
        transport: Transport::Http, port: Some(80), operations: &["chat"],
        groups: &[HTTP, MODEL, TOKENS, EXTRA, TOOLS, OLLAMA], presets: &["ollama"],
    }
    /// Ollama's own API: embeddings.
    OllamaEmbed = "ollama-embed" {
        transport: Transport::Http, port: Some(80), operations: &["embedding"],
        groups: &[HTTP, MODEL, EXTRA, BATCH, OLLAMA], presets: &["ollama"],
    }
    /// KServe's version 2 protocol over HTTP: one inference per request.
    KserveHttp = "kserve-http" {
        transport: Transport::Http, port: Some(80), operations: &["infer"],
        groups: &[HTTP, MODEL, KSERVE], presets: &["triton"],
    }
    /// The same over gRPC; decoupled models stream their answers.
    KserveGrpc = "kserve-grpc" {
        transport: Transport::Grpc, port: Some(80), operations: &["infer", "stream_infer"],
        groups: &[HTTP, MODEL, TOKENS, KSERVE], presets: &["triton"],
    }
    /// Triton's generate endpoints: one answer, or a stream of them.
    TritonGenerate = "triton-generate" {
        transport: Transport::Http, port: Some(80), operations: &["generate", "generate_stream"],
        groups: &[HTTP, MODEL, TOKENS, EXTRA, KSERVE], presets: &["triton"],
    }
    /// SQL: a mix of select, insert, update and delete.
    Postgresql = "postgresql" {
        transport: Transport::Postgresql, port: Some(5432),
        operations: &["select", "insert", "update", "delete"],
        groups: &[&["postgresql"]], presets: &["postgresql"],
    }
    /// Plain HTTP requests.
    Http = "http" {
        transport: Transport::Http, port: Some(80), operations: &["http"],
        groups: &[HTTP, &["http"]], presets: &[],
    }
    /// A program, run once per request.
    Command = "command" {
        transport: Transport::Process, port: None, operations: &["command"],
        groups: &[&["command"]], presets: &[],
    }
}

impl Driver {
    /// Whether it takes a load's `key`, such as `model` or `llm.stream`.
    #[must_use]
    pub fn takes(self, key: &str) -> bool {
        self.spec().takes(key)
    }

    /// Whether it speaks HTTP.
    #[must_use]
    pub fn over_http(self) -> bool {
        matches!(self.spec().transport, Transport::Http | Transport::Grpc)
    }

    /// Whether it speaks KServe's version 2 protocol, in one of its forms.
    #[must_use]
    pub fn is_kserve(self) -> bool {
        self.takes("kserve")
    }

    /// Whether it asks a model of a service.
    #[must_use]
    pub fn asks_model(self) -> bool {
        self.takes("model")
    }

    /// Whether its answers are made of tokens: texts that a model generates.
    #[must_use]
    pub fn has_tokens(self) -> bool {
        self.takes("slo.ttft")
    }

    /// Whether it speaks Ollama's own API.
    #[must_use]
    pub fn is_ollama(self) -> bool {
        self.takes("llm.ollama")
    }

    /// Texts of a request where the recipe does not say: one, or documents enough to rank.
    #[must_use]
    pub fn default_batch(self) -> u32 {
        if self == Self::Rerank { 10 } else { 1 }
    }
}

/// Keys of a load that not every driver takes, each once, in the order of the table.
#[must_use]
pub fn owned_keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = Vec::new();
    for key in DRIVERS.iter().flat_map(|spec| spec.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Words of the drivers that take `key`, or, where it is a section, some of it.
#[must_use]
pub fn takers(key: &str) -> Vec<&'static str> {
    let takers = DRIVERS.iter().filter(|spec| spec.takes(key) || spec.takes_some_of(key));
    takers.map(|spec| spec.word).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Whether a load of the recipe's JSON Schema has a key at this path.
    pub(in super::super) fn key_in_schema(schema: &Value, path: &str) -> bool {
        let mut at = &schema["$defs"]["Load"];
        for part in path.split('.') {
            let reference = at
                .get("$ref")
                .or_else(|| at["anyOf"].as_array()?.iter().find_map(|choice| choice.get("$ref")));
            if let Some(name) = reference.and_then(Value::as_str) {
                at = &schema["$defs"][name.rsplit('/').next().unwrap()];
            }
            match at["properties"].get(part) {
                Some(found) => at = found,
                None => return false,
            }
        }
        true
    }

    #[test]
    fn the_table_is_whole() {
        let schema = super::super::json_schema();
        let kinds = serde_json::to_string(&schema["$defs"]["ServiceKind"]).unwrap();
        let mut words = BTreeSet::new();
        for spec in DRIVERS {
            let DriverSpec { driver, word, doc, transport, port, operations, groups: _, presets } =
                spec;
            assert!(words.insert(word), "{word} twice");
            assert_eq!(Driver::from_word(word), Some(*driver));
            assert_eq!(serde_json::to_value(driver).unwrap(), *word);
            assert_eq!(driver.spec(), *spec);
            assert!(doc.ends_with('.') && !doc.contains('\n'), "{word}: one sentence");
            assert_eq!(port.is_some(), *transport != Transport::Process, "{word}");
            assert!(!operations.is_empty(), "{word}");
            assert_eq!(driver.over_http(), driver.takes("connection"), "{word}");
            for key in spec.keys() {
                assert!(key_in_schema(&schema, key), "{word}: {key}");
            }
            for preset in *presets {
                assert!(kinds.contains(&format!("\"{preset}\"")), "{word}: {preset}");
            }
        }
        assert_eq!(words.len(), 13);
        // The schema's words, with their meaning, are the table's.
        let choices = schema["$defs"]["Driver"]["oneOf"].as_array().unwrap();
        let known = choices.iter().map(|choice| {
            (choice["const"].as_str().unwrap(), choice["description"].as_str().unwrap())
        });
        assert!(known.eq(DRIVERS.iter().map(|spec| (spec.word, spec.doc))));
    }

    #[test]
    fn takers_of_a_key_or_section_are_known() {
        assert_eq!(takers("llm.tools"), ["openai-chat", "ollama-chat"]);
        assert_eq!(takers("command"), ["command"]);
        assert_eq!(takers("kserve"), ["kserve-http", "kserve-grpc", "triton-generate"]);
        assert!(takers("llm").contains(&"rerank") && !takers("llm").contains(&"http"));
        assert_eq!(owned_keys().iter().filter(|key| **key == "connection").count(), 1);
    }
}
