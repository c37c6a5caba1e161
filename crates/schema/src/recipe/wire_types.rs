//! The part of a load that says how HTTP is carried.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bytes travel: the same keys for every driver over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Implementation of HTTP.
    #[serde(default)]
    pub engine: Engine,
    /// Version of HTTP: "1.1" unless given, or what the driver needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_version: Option<HttpVersion>,
    /// Whether what a server waits for is acknowledged at once (TCP_QUICKACK); true unless given. A
    /// server that was seen to send the next part of an answer without waiting is left to the
    /// kernel's rule, an acknowledgement for every second part. With false all are, and a server with
    /// Nagle's algorithm is as slow as for clients that leave the kernel's delay of 40 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quick_ack: Option<bool>,
    /// TLS of https:// endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Header for the service's API_KEY, with the plain key as its value. Without it the key is
    /// sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_header: Option<String>,
}

impl Connection {
    /// The section as it is where the recipe has none.
    pub(super) const DEFAULT: Self = Self {
        engine: Engine::Auto,
        http_version: None,
        quick_ack: None,
        tls: None,
        api_key_header: None,
    };
}

/// Implementation of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The fastest that supports the other options: `raw` for HTTP/1.1, `hyper` for HTTP/2.
    #[default]
    Auto,
    /// The hyper and h2 libraries: HTTP/1.1 and HTTP/2.
    Hyper,
    /// The accurate mode: HTTP/1.1 read directly from the socket.
    Raw,
}

impl Engine {
    /// The recipe's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hyper => "hyper",
            Self::Raw => "raw",
        }
    }
}

/// Version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2: agreed on in the TLS handshake (https://), or known beforehand (http://). Each
    /// request in flight has a connection of its own.
    #[serde(rename = "2")]
    Http2,
}

impl HttpVersion {
    /// The recipe's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// TLS of https:// endpoints. Files are read on the node that connects; relative paths start in the
/// folder of the step (a load) or of the submission (a page of metrics).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the certificates (PEM) of the trusted authorities, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// File with the client certificate chain (PEM), for servers that require one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// File with the private key (PEM) of `cert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Accepts any certificate: the identity of the server is not verified.
    #[serde(default)]
    pub insecure: bool,
    /// Expected name in the server's certificate, also sent as SNI, instead of the URL's host. For
    /// loads only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}
