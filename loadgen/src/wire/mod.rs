//! Bytes: sockets that stamp each read and write, engines that speak HTTP over them, and parsers
//! that know no sockets.
//!
//! A protocol says what to ask ([`Request`]) and what an answer means ([`Reply`]); it never sees
//! which engine carries it. [`Wire`] knows the endpoints, opens connections to them with the
//! engine that the load asks for, and adds the headers that every request has.

mod ack;
pub(crate) mod driven;
#[allow(dead_code, reason = "Ollama's protocols use the rest")]
pub(crate) mod events;
pub(crate) mod head;
mod http1;
mod http2;
mod io;
pub(crate) mod ndjson;
mod open;
pub(crate) mod raw;
pub(crate) mod receiver;
#[allow(dead_code, reason = "protocols with one answer use the rest")]
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod sse;
pub(crate) mod target;
mod tls;
mod unpack;

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use aifb_schema::{
    control::LoadPlan,
    recipe::{Engine as Word, HttpVersion, Load},
};

use futures_util::future::LocalBoxFuture;

use crate::{
    error::Fatal,
    fault::{Class, Fault},
    record::row::Seen,
};
pub(crate) use head::{Fields, Head};
use http1::Http1;
use http2::Http2;
use open::Opened;
use raw::{Flight, Hub, Raw};
use reply::Shared;
pub(crate) use reply::{Replies, Reply, Whole};
pub(crate) use request::{Request, Route};
use target::Common;
pub(crate) use target::Target;

/// The endpoints of a load, and how they are spoken to.
pub(crate) struct Wire {
    targets: Vec<Rc<Target>>,
    engine: Kind,
    /// What watches the connections of the raw engine.
    hub: Rc<Hub>,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hyper1,
    Hyper2,
    Raw1,
}

impl Kind {
    /// The engine for a load, and its version of HTTP.
    fn of(load: &Load, only: Option<HttpVersion>) -> Result<(Self, HttpVersion), Fatal> {
        let wrong = |what: String| Fatal::usage(format!("load '{}': {what}", load.name));
        let version = match (only, load.connection().http_version) {
            (Some(only), Some(asked)) if only != asked => {
                return Err(wrong(format!(
                    "driver {} supports HTTP/{} only",
                    load.driver.as_str(),
                    only.as_str()
                )));
            }
            (only, asked) => only.or(asked).unwrap_or(HttpVersion::Http1),
        };
        let kind = match (version, load.connection().engine) {
            (HttpVersion::Http1, Word::Hyper) => Self::Hyper1,
            (HttpVersion::Http1, Word::Auto | Word::Raw) => Self::Raw1,
            (HttpVersion::Http2, Word::Auto | Word::Hyper) => Self::Hyper2,
            (HttpVersion::Http2, Word::Raw) => {
                return Err(wrong("engine raw supports HTTP/1.1 only".to_owned())
                    .hint("omit the engine, or use hyper"));
            }
        };
        Ok((kind, version))
    }
}

impl Wire {
    /// Resolves the endpoints of `plan`; `version` is what the protocol can be spoken over, where
    /// it is one alone.
    ///
    /// # Errors
    /// If there is none, a URL leads nowhere, or the engine does not support the request.
    pub(crate) async fn new(plan: &LoadPlan, version: Option<HttpVersion>) -> Result<Self, Fatal> {
        let load = &plan.load;
        let (engine, version) = Kind::of(load, version)?;
        if plan.endpoints.is_empty() {
            let service = load.service.as_ref().map_or("", |name| name.as_str());
            return Err(Fatal::usage(format!(
                "load '{}': service '{service}' has no endpoint",
                load.name
            )));
        }
        let common = Common::new(load, version, plan.secrets.get(API_KEY).map(String::as_str))?;
        let mut targets = Vec::new();
        for endpoint in &plan.endpoints {
            targets.push(Rc::new(Target::new(&endpoint.url, &common).await?));
        }
        Ok(Self { targets, engine, hub: Hub::start() })
    }

    /// Endpoints.
    pub(crate) fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Opens a connection to an endpoint.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) async fn connect(&self, target: usize) -> Result<Connection, Fault> {
        let found = self.targets.get(target).map(Rc::clone);
        let found = found.ok_or_else(|| Fault::new(Class::Send, "no such endpoint"))?;
        let (io, opened) = open::open(&found).await?;
        let engine = match self.engine {
            Kind::Hyper1 => Engine::Http1(Box::new(Http1::new(io, found).await?)),
            Kind::Hyper2 => Engine::Http2(Http2::new(io, found).await?),
            Kind::Raw1 => Engine::Raw(Raw::new(io, found, &self.hub)),
        };
        Ok(Connection { target, engine, opened: Some(opened) })
    }

    /// One request on a connection of its own, before the start, within `most`; gives `reply` back
    /// when it has the answer.
    ///
    /// # Errors
    /// If it fails or takes longer.
    pub(crate) async fn ask<R: Reply + 'static>(
        &self,
        target: usize,
        request: &Request,
        reply: R,
        most: Duration,
    ) -> Result<R, Fault> {
        let reply = Rc::new(RefCell::new(reply));
        self.fetch(target, request, &Shared(Rc::clone(&reply)), most).await?;
        // The exchange is over and has let go of it.
        let reply = Rc::try_unwrap(reply).ok().map(RefCell::into_inner);
        reply.ok_or_else(|| Fault::new(Class::Send, "the exchange did not end"))
    }

    /// One request on a connection of its own, within `most`.
    async fn fetch(
        &self,
        target: usize,
        request: &Request,
        replies: &dyn Replies,
        most: Duration,
    ) -> Result<(), Fault> {
        let exchange = async {
            let mut connection = self.connect(target).await?;
            let mut seen = Seen::default();
            connection.exchange(request.clone(), replies, &mut seen)?.await
        };
        tokio::time::timeout(most, exchange).await.unwrap_or_else(|_| {
            Err(Fault::new(Class::TimeoutTotal, format!("no response within {most:?}")))
        })
    }

    /// The body of the answer to one request before the start, as [`Wire::ask`].
    ///
    /// # Errors
    /// If it fails, takes longer than `most` or is longer than [`reply::WHOLE_MAX`].
    pub(crate) async fn whole(
        &self,
        target: usize,
        request: &Request,
        most: Duration,
    ) -> Result<Vec<u8>, Fault> {
        Ok(self.ask(target, request, Whole::default(), most).await?.into_bytes())
    }

    /// The JSON answer to one request before the start, as [`Wire::whole`].
    ///
    /// # Errors
    /// As [`Wire::whole`], or if it is not JSON.
    pub(crate) async fn json(
        &self,
        target: usize,
        request: &Request,
        most: Duration,
    ) -> Result<serde_json::Value, Fault> {
        let bytes = self.whole(target, request, most).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new(Class::Parse, format!("reading the response: {error}")))
    }
}

/// Name of the secret that is sent with every request, where there is one.
pub(crate) const API_KEY: &str = "API_KEY";

/// One connection, whatever engine it has.
pub(crate) struct Connection {
    /// Which endpoint it leads to.
    pub(crate) target: usize,
    engine: Engine,
    /// Time to open it, until a request has recorded it.
    opened: Option<Opened>,
}

enum Engine {
    /// Boxed: it is far larger than the others.
    Http1(Box<Http1>),
    Http2(Http2),
    Raw(Raw),
}

impl Connection {
    /// Whether another request can be sent: the last one ended well and the peer has not closed.
    pub(crate) fn usable(&self) -> bool {
        match &self.engine {
            Engine::Http1(engine) => engine.usable(),
            Engine::Http2(engine) => engine.usable(),
            Engine::Raw(engine) => engine.usable(),
        }
    }

    /// Sends a request; its answer goes to the reply that `replies` makes.
    ///
    /// # Errors
    /// If it cannot be sent; from what is given back, if no complete answer of status 2xx comes or
    /// the reply does not like it.
    pub(crate) fn exchange<'a>(
        &'a mut self,
        request: Request,
        replies: &dyn Replies,
        seen: &'a mut Seen,
    ) -> Result<Exchange<'a>, Fault> {
        // Of a connection that was opened before it was needed, a request tells nothing.
        if let (Some(opened), true) = (self.opened.take(), seen.connect_ns.is_some()) {
            seen.tls_ns = opened.tls_ns;
        }
        Ok(match &mut self.engine {
            Engine::Http1(engine) => {
                let mut receiver = replies.receiver();
                Exchange::Boxed(Box::pin(async move {
                    engine.exchange(&request, &mut receiver, seen).await
                }))
            }
            Engine::Http2(engine) => {
                let mut receiver = replies.receiver();
                Exchange::Boxed(Box::pin(async move {
                    engine.exchange(&request, &mut receiver, seen).await
                }))
            }
            Engine::Raw(engine) => Exchange::Raw(engine.exchange(&request, replies, seen)?),
        })
    }
}

/// A request in flight: a future that ends with its answer.
pub(crate) enum Exchange<'a> {
    /// On the raw engine, which keeps all of it elsewhere.
    Raw(Flight<'a>),
    /// On another, whose state is larger.
    Boxed(LocalBoxFuture<'a, Result<(), Fault>>),
}

impl Future for Exchange<'_> {
    type Output = Result<(), Fault>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Raw(flight) => Pin::new(flight).poll(cx),
            Self::Boxed(exchange) => exchange.as_mut().poll(cx),
        }
    }
}
