//! Requests, independent of how they are transported.

use std::rc::Rc;

use bytes::Bytes;
use hyper::{
    Method,
    header::{self, HeaderName, HeaderValue},
};

use super::Target;

/// What the requests of one kind have in common, made once before the start.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Prefix that a URL of the endpoint may already have, such as "/v1".
    api: &'static str,
    /// Path below it, with its query.
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The headers as HTTP/1.1 writes them.
    lines: Vec<u8>,
    /// Bodies are the user's data.
    payload: bool,
}

impl Route {
    /// A kind of request; `path` begins with "/" or is empty.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            api: "",
            path: path.into(),
            headers: Vec::new(),
            lines: Vec::new(),
            payload: false,
        }
    }

    /// GET.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// The path is below `api` ("/v1"), which the endpoint's URL may name or leave out.
    pub(crate) fn under(mut self, api: &'static str) -> Self {
        self.api = api;
        self
    }

    /// The body is JSON.
    pub(crate) fn json(self) -> Self {
        self.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// What answer is wanted.
    pub(crate) fn accept(self, kind: &'static str) -> Self {
        self.header(header::ACCEPT, HeaderValue::from_static(kind))
    }

    /// A further header. The engine's own fields (length, connection, transfer coding) are left
    /// out.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if OWN_FIELDS.contains(&name) {
            return self;
        }
        push_line(&mut self.lines, &name, &value);
        self.headers.push((name, value));
        self
    }

    /// The bodies of request and answer are the user's data: their bytes count as payload.
    pub(crate) fn carries_payload(mut self) -> Self {
        self.payload = true;
        self
    }

    /// Prepared for any number of requests.
    pub(crate) fn ready(self) -> Rc<Self> {
        Rc::new(self)
    }

    /// A request of this kind.
    pub(crate) fn request(self: &Rc<Self>, body: impl Into<Bytes>) -> Request {
        Request { route: Rc::clone(self), path: None, body: body.into() }
    }

    /// A request of this kind with a path of its own.
    pub(crate) fn request_at(self: &Rc<Self>, path: String, body: impl Into<Bytes>) -> Request {
        Request { route: Rc::clone(self), path: Some(path), body: body.into() }
    }

    /// Further headers.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Further headers as HTTP/1.1 writes them.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Whether it says itself what every request says otherwise.
    pub(crate) fn overrides(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|(own, _)| own == name)
    }
}

/// Fields that say how a body is carried: the engine's business.
const OWN_FIELDS: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::EXPECT];

/// Writes a header as HTTP/1.1 does.
pub(super) fn push_line(lines: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) route: Rc<Route>,
    /// Instead of the route's path.
    pub(crate) path: Option<String>,
    pub(crate) body: Bytes,
}

impl Request {
    /// Bytes of the user's data that it carries; the reply adds those of its answer.
    pub(crate) fn payload_bytes(&self) -> Option<u64> {
        self.route.payload.then(|| u64::try_from(self.body.len()).unwrap_or(u64::MAX))
    }

    /// Appends the path of the request at `target`.
    pub(crate) fn push_path(&self, target: &Target, out: &mut Vec<u8>) {
        let path = self.path.as_deref().unwrap_or(&self.route.path);
        let start = out.len();
        out.extend_from_slice(target.base.as_bytes());
        if !self.route.api.is_empty() && !target.base.ends_with(self.route.api) {
            out.extend_from_slice(self.route.api.as_bytes());
        }
        out.extend_from_slice(path.as_bytes());
        if out.len() == start {
            out.push(b'/');
        }
    }

    /// The path of the request at `target`.
    pub(crate) fn path_at(&self, target: &Target) -> String {
        let mut path = Vec::new();
        self.push_path(target, &mut path);
        // It was made of texts.
        String::from_utf8(path).unwrap_or_default()
    }

    /// Whether to send its length: with a body, or if one is expected.
    pub(crate) fn tells_length(&self) -> bool {
        !self.body.is_empty()
            || matches!(self.route.method, Method::POST | Method::PUT | Method::PATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::target::Place;

    fn target(base: &str) -> Target {
        Target::plain(Place::Tcp("127.0.0.1:80".parse().unwrap()), base)
    }

    fn at(base: &str, route: Route) -> String {
        route.ready().request("").path_at(&target(base))
    }

    #[test]
    fn paths_are_joined() {
        let models = || Route::get("/models").under("/v1");
        assert_eq!(at("", models()), "/v1/models");
        assert_eq!(at("/v1", models()), "/v1/models");
        assert_eq!(at("/proxy/a", models()), "/proxy/a/v1/models");
        assert_eq!(at("", Route::get("")), "/");
        assert_eq!(at("/x", Route::get("")), "/x");
        assert_eq!(at("/x", Route::get("/y?z=1")), "/x/y?z=1");
        let own = Route::get("/no").ready().request_at("/yes".into(), "");
        assert_eq!(own.path_at(&target("")), "/yes");
    }

    #[test]
    fn the_engine_keeps_its_own_fields() {
        let route = Route::post("/").json().header(header::CONTENT_LENGTH, 5.into());
        assert_eq!(route.lines(), b"content-type: application/json\r\n");
        assert!(route.overrides(&header::CONTENT_TYPE) && !route.overrides(&header::HOST));
        assert!(route.ready().request("").tells_length());
        assert!(!Route::get("/").ready().request("").tells_length());
    }
}
