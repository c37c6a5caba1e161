//! Where a URL leads, and what every request to it says.

use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use aifb_schema::recipe::{HttpVersion, Load, Tls};
use hyper::{
    Uri,
    header::{self, HeaderName, HeaderValue},
};
use rustls::{ClientConfig, pki_types::ServerName};

use super::resolve;
use super::{ack::Server, request::push_line, tls};
use crate::error::Fatal;

/// Scheme of a Unix socket's URL: `unix:/path`, `unix:/path:/base`.
pub(crate) const UNIX: &str = "unix:";

/// Longest path of a Unix socket: what the kernel's address has room for (unix(7)), without its
/// last NUL.
const UNIX_PATH_MAX: usize = 107;

/// What the targets of a load have in common.
pub(super) struct Common<'a> {
    load: &'a Load,
    version: HttpVersion,
    key: Option<(HeaderName, HeaderValue)>,
    /// Made when the first URL needs it: reading a system's authorities takes milliseconds.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl<'a> Common<'a> {
    /// `key` is sent with every request.
    ///
    /// # Errors
    /// If the key cannot be a header.
    pub(super) fn new(
        load: &'a Load,
        version: HttpVersion,
        key: Option<&str>,
    ) -> Result<Self, Fatal> {
        let key = key
            .map(|key| self::key(load.connection().api_key_header.as_deref(), key))
            .transpose()?;
        Ok(Self { load, version, key, tls: OnceCell::new() })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Fatal> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config =
            tls::config(&self.load.connection().tls.clone().unwrap_or_default(), self.version)?;
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }

    fn server_name(&self, host: &str) -> Result<ServerName<'static>, Fatal> {
        let tls = self.load.connection().tls.as_ref();
        let asked = tls.and_then(|Tls { server_name, .. }| server_name.as_deref());
        let name = asked.unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(name.to_owned()).map_err(|_| {
            Fatal::usage(format!("TLS: '{name}' cannot be the name of a server"))
                .hint("connection: {tls: {server_name: NAME}} or --server-name NAME")
        })
    }
}

/// The header that carries an API key.
fn key(name: Option<&str>, key: &str) -> Result<(HeaderName, HeaderValue), Fatal> {
    // The key itself is not shown.
    let wrong =
        || Fatal::usage("reading secret API_KEY: it has characters that are invalid in a header");
    let key = key.trim();
    let (name, value) = match name {
        None => (header::AUTHORIZATION, format!("Bearer {key}")),
        Some(name) => {
            let header = name.parse().map_err(|_| {
                Fatal::usage(format!("api_key_header '{name}' is not a header name"))
                    .hint("for example x-api-key")
            })?;
            (header, key.to_owned())
        }
    };
    let mut value: HeaderValue = value.parse().map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What a connection is opened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An address, resolved before the start.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// TLS of a target.
#[derive(Debug, Clone)]
pub(super) struct Secure {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// A server and the path under which it answers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(super) place: Place,
    pub(super) secure: Option<Secure>,
    /// Whether the server waits for acknowledgements, as far as its connections know; absent where
    /// they are left to the kernel.
    pub(super) acks: Option<Rc<Cell<Server>>>,
    /// Host and port as the URL has them.
    pub(super) authority: String,
    /// Path without a trailing slash, empty for the root.
    pub(crate) base: String,
    /// Fields of every request, unless its route has its own, with their lines.
    defaults: Vec<(HeaderName, HeaderValue, Vec<u8>)>,
}

impl Target {
    /// Resolves a URL.
    ///
    /// # Errors
    /// If it is not a URL of HTTP, its name has no address, or TLS cannot be made ready.
    pub(super) async fn new(url: &str, common: &Common<'_>) -> Result<Self, Fatal> {
        let mut target = match url.strip_prefix(UNIX) {
            Some(rest) => Self::unix(url, rest)?,
            None => Self::tcp(url, common).await?,
        };
        target.acks = common.load.connection().quick_ack.unwrap_or(true).then(Rc::default);
        let host = target
            .authority
            .parse()
            .map_err(|_| wrong(url, "its host is not valid in a header"))?;
        target.default_header(header::HOST, host);
        if let Some((name, value)) = &common.key {
            target.default_header(name.clone(), value.clone());
        }
        Ok(target)
    }

    async fn tcp(url: &str, common: &Common<'_>) -> Result<Self, Fatal> {
        let uri: Uri = url.parse().map_err(|_| wrong(url, "it is not a URL"))?;
        let (secure, usual) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong(url, "it does not begin with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| wrong(url, "it has no host"))?;
        let address = resolve::address(host, uri.port_u16().unwrap_or(usual)).await?;
        let authority = match uri.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut target = Self::plain(Place::Tcp(address), uri.path().trim_end_matches('/'));
        target.authority = authority;
        if secure {
            target.secure = Some(Secure { config: common.tls()?, name: common.server_name(host)? });
        }
        Ok(target)
    }

    fn unix(url: &str, rest: &str) -> Result<Self, Fatal> {
        let (path, base) = rest.split_once(':').unwrap_or((rest, ""));
        if !path.starts_with('/') || !(base.is_empty() || base.starts_with('/')) {
            return Err(wrong(url, "the path of a Unix socket must be absolute"));
        }
        if path.len() > UNIX_PATH_MAX {
            return Err(Fatal::usage(format!(
                "reading URL '{url}': the path of a Unix socket has at most {UNIX_PATH_MAX} bytes"
            ))
            .hint("a symbolic link may give it a shorter one"));
        }
        Ok(Self::plain(Place::Unix(PathBuf::from(path)), base.trim_end_matches('/')))
    }

    /// A target with only place and path known.
    pub(super) fn plain(place: Place, base: &str) -> Self {
        let mut target = Self {
            place,
            secure: None,
            acks: Some(Rc::default()),
            authority: "localhost".to_owned(),
            base: base.to_owned(),
            defaults: Vec::new(),
        };
        // What is packed cannot be stamped event by event.
        target.default_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        target.default_header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        target
    }

    fn default_header(&mut self, name: HeaderName, value: HeaderValue) {
        let mut line = Vec::new();
        push_line(&mut line, &name, &value);
        self.defaults.push((name, value, line));
    }

    /// Fields of every request, with the lines that HTTP/1.1 writes for them.
    pub(super) fn defaults(&self) -> &[(HeaderName, HeaderValue, Vec<u8>)] {
        &self.defaults
    }
}

fn wrong(url: &str, why: &str) -> Fatal {
    Fatal::usage(format!("reading URL '{url}': {why}"))
        .hint("expected http://host:port, https://host:port or unix:/path")
}

/// Who asks.
const USER_AGENT: &str = concat!("aifb-loadgen/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    fn load(extra: &str) -> Load {
        let json = format!(
            r#"{{"name": "x", "driver": "http", "arrival": {{"concurrency": 1}},
            "phases": {{"measure": "1s"}}{extra}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    fn read(url: &str, extra: &str) -> Result<Target, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let load = load(extra);
        let common = Common::new(&load, HttpVersion::Http1, Some(" k\n")).unwrap();
        runtime.block_on(Target::new(url, &common)).map_err(|error| error.to_string())
    }

    fn default<'a>(target: &'a Target, name: &str) -> Option<&'a str> {
        let found = target.defaults.iter().find(|(own, _, _)| own == name);
        found.map(|(_, value, _)| value.to_str().unwrap())
    }

    #[test]
    fn urls_lead_to_addresses() {
        let found = read("http://127.0.0.1:8000/v1/", "").unwrap();
        assert_eq!(found.place, Place::Tcp("127.0.0.1:8000".parse().unwrap()));
        assert_eq!((default(&found, "host"), found.base.as_str()), (Some("127.0.0.1:8000"), "/v1"));
        assert_eq!(default(&found, "authorization"), Some("Bearer k"));
        let place =
            |url| read(url, r#", "connection": {"tls": {"insecure": true}}"#).unwrap().place;
        assert_eq!(place("http://[::1]:9"), Place::Tcp("[::1]:9".parse().unwrap()));
        assert_eq!(place("http://127.0.0.1"), Place::Tcp("127.0.0.1:80".parse().unwrap()));
        assert_eq!(place("https://127.0.0.1"), Place::Tcp("127.0.0.1:443".parse().unwrap()));
        assert_eq!(place("unix:/run/x.sock"), Place::Unix("/run/x.sock".into()));
        let unix = read("unix:/run/x.sock:/v1/", "").unwrap();
        assert_eq!((default(&unix, "host"), unix.base.as_str()), (Some("localhost"), "/v1"));
    }

    #[test]
    fn a_key_may_have_a_header_of_its_own() {
        let found =
            read("http://127.0.0.1:8000", r#", "connection": {"api_key_header": "x-api-key"}"#)
                .unwrap();
        assert_eq!(default(&found, "x-api-key"), Some("k"));
        assert_eq!(default(&found, "authorization"), None);
        assert!(Common::new(&load(""), HttpVersion::Http1, Some("a\nb")).is_err());
    }

    #[test]
    fn names_of_servers_can_be_chosen() {
        let tls = r#", "connection": {"tls": {"insecure": true, "server_name": "other.test"}}"#;
        let secure = read("https://127.0.0.1", tls).unwrap().secure.unwrap();
        assert_eq!(secure.name, ServerName::try_from("other.test").unwrap());
        let tls = r#", "connection": {"tls": {"insecure": true, "server_name": "a b"}}"#;
        assert!(read("https://127.0.0.1", tls).unwrap_err().contains("'a b' cannot be the name"));
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["127.0.0.1:80", "ftp://x", "", "http://", "unix:x", "unix:/x:y"] {
            assert!(read(url, "").unwrap_err().contains("hint: expected http://"), "{url}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(read(&long, "").unwrap_err().contains("at most 107 bytes"));
    }
}
