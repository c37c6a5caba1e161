//! Options of `run` for the HTTP engine, TLS and API keys.

use std::{fs::File, io::Read as _, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::load::{Settings, given, word};
use crate::error::Fatal;

/// HTTP implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineWord {
    /// The fastest engine that supports the other options.
    Auto,
    /// The hyper and h2 libraries.
    Hyper,
    /// HTTP/1.1, read directly from the socket.
    Raw,
}

/// HTTP engine, TLS and API key.
#[derive(Debug, Args)]
pub(crate) struct Wire {
    /// HTTP engine [default: auto, which selects raw for HTTP/1.1 and hyper for HTTP/2].
    #[arg(long, value_enum)]
    engine: Option<EngineWord>,
    /// Use HTTP/2, with a separate connection for each request in flight.
    #[arg(long)]
    http2: bool,
    /// Keep the kernel's delayed acknowledgements, on which a server with Nagle's algorithm waits.
    #[arg(long)]
    no_quick_ack: bool,
    /// Certificates (PEM) of the trusted authorities, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Client certificate chain (PEM), for servers that require one.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<String>,
    /// Private key (PEM) of --cert.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
    /// Accept any server certificate.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Expected name in the server's certificate, instead of the URL's host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// File with the API key to send with every request.
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_env")]
    api_key_file: Option<PathBuf>,
    /// Environment variable with the API key [default: OPENAI_API_KEY, if set].
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// Header for the plain API key, instead of `Authorization: Bearer`.
    #[arg(long, value_name = "HEADER")]
    api_key_header: Option<String>,
}

/// Longest API key: tokens of some identity providers have a few KiB.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// Environment variable with the API key if no option names another source.
const KEY_VARIABLE: &str = "OPENAI_API_KEY";

impl Wire {
    /// The load's section `connection`, as far as the options say.
    pub(super) fn settings(&self) -> Settings {
        let text = |given: &Option<String>| given.as_ref().map(|text| json!(text));
        given([
            ("connection.engine", self.engine.and_then(word).map(Value::from)),
            ("connection.http_version", self.http2.then(|| json!("2"))),
            ("connection.quick_ack", self.no_quick_ack.then_some(Value::Bool(false))),
            ("connection.tls.ca", text(&self.ca)),
            ("connection.tls.cert", text(&self.cert)),
            ("connection.tls.key", text(&self.key)),
            ("connection.tls.insecure", self.insecure.then_some(Value::Bool(true))),
            ("connection.tls.server_name", text(&self.server_name)),
            ("connection.api_key_header", text(&self.api_key_header)),
        ])
    }

    /// The API key, if there is one. It is never passed on the command line, which everybody on the
    /// node can read.
    ///
    /// # Errors
    /// If the named file or variable has none.
    pub(crate) fn api_key(&self) -> Result<Option<String>, Fatal> {
        if let Some(path) = &self.api_key_file {
            let wrong =
                |why: String| Fatal::usage(format!("reading API key '{}': {why}", path.display()));
            let mut key = String::new();
            let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
            file.take(KEY_BYTES_MAX + 1)
                .read_to_string(&mut key)
                .map_err(|error| wrong(error.to_string()))?;
            if key.len() > usize::try_from(KEY_BYTES_MAX).unwrap_or(usize::MAX) {
                return Err(wrong("it is longer than 64 KiB".to_owned()));
            }
            if key.trim().is_empty() {
                return Err(wrong("it is empty".to_owned()));
            }
            return Ok(Some(key.trim().to_owned()));
        }
        match &self.api_key_env {
            Some(name) => match std::env::var(name) {
                Ok(key) if !key.trim().is_empty() => Ok(Some(key)),
                _ => Err(Fatal::usage(format!("reading API key: variable '{name}' is not set"))
                    .hint("export it, or use --api-key-file FILE")),
            },
            None => Ok(std::env::var(KEY_VARIABLE).ok()),
        }
    }
}
