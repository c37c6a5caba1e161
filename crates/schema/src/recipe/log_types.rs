//! Types of a recipe about logs: where they are sent, which lines, until when.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::EnvValue;
use crate::time::When;

/// A Loki that the logs are sent to. In a recipe: its URL, or all fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loki {
    /// Its address, such as `http://monitor-node:3100`.
    pub url: String,
    /// Tenant (header `X-Scope-OrgID`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<EnvValue>,
    /// Encoding of the requests.
    pub encoding: LokiEncoding,
}

/// Encoding of the requests to Loki.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LokiEncoding {
    /// Protobuf in a snappy block: the smallest and cheapest.
    #[default]
    Protobuf,
    /// JSON, for what stands between and understands nothing else.
    Json,
}

/// All fields of a Loki.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LokiFields {
    /// Its address, such as `http://monitor-node:3100`.
    url: String,
    /// Tenant (header `X-Scope-OrgID`).
    tenant: Option<String>,
    /// Bearer token, as `{secret_file: PATH}` or `{secret_env: NAME}`.
    token: Option<EnvValue>,
    /// Encoding of the requests.
    #[serde(default)]
    encoding: LokiEncoding,
}

impl JsonSchema for Loki {
    fn schema_name() -> Cow<'static, str> {
        "Loki".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<LokiFields>();
        json_schema!({
            "description": "A Loki that logs are sent to: its URL, or all fields.",
            "anyOf": [{"type": "string"}, fields]
        })
    }
}

impl<'de> Deserialize<'de> for Loki {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(url) => Ok(Self::at(url)),
            fields @ serde_json::Value::Object(_) => {
                let LokiFields { url, tenant, token, encoding } =
                    serde_json::from_value(fields).map_err(D::Error::custom)?;
                Ok(Self { url, tenant, token, encoding })
            }
            _ => Err(D::Error::custom("expected a URL or {url, tenant, token, encoding}")),
        }
    }
}

impl Loki {
    /// At this address, without tenant and token.
    #[must_use]
    pub fn at(url: String) -> Self {
        Self { url, tenant: None, token: None, encoding: LokiEncoding::default() }
    }
}

/// Level of a log line.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    #[default]
    Debug,
    /// What goes on.
    Info,
    /// What may go wrong.
    #[serde(alias = "warn")]
    Warning,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The word that files and labels use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Which lines the agents send and write. The log files of the services are always complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// Lines below it are dropped; a line without a level counts as `info`.
    #[serde(default = "Logging::default_level")]
    pub level: LogLevel,
    /// Lines after it are dropped; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<When>,
}

impl Logging {
    fn default_level() -> LogLevel {
        LogLevel::Info
    }
}
