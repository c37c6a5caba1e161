//! Protocols over HTTP: what is asked and what an answer means, without sockets.
//!
//! A new protocol is one file with a type that is a [`Protocol`], and one line in
//! [`crate::registry`]. [`HttpDriver`] makes a driver of it, on every engine.

use std::borrow::Cow;

use aifb_schema::recipe::HttpVersion;

use super::Driver;
use crate::{
    error::Fatal,
    fault::Fault,
    job::Job,
    plan::Ask,
    record::row::Seen,
    wire::{Connection, Reply, Request, Wire},
};

/// One protocol over HTTP.
pub(crate) trait Protocol: Sized + 'static {
    /// The only version of HTTP that it can be spoken over; `None` leaves it to the recipe.
    const HTTP: Option<HttpVersion> = None;

    /// Name of the endpoint's port that speaks it, where that is another than the first.
    const PORT: Option<&'static str> = None;

    /// Makes ready all that requests need, before the start: routes, bodies, models. It may ask
    /// the endpoints ([`Wire::json`], [`Wire::ask`]), with a deadline for each question.
    async fn prepare(job: &Job, wire: &Wire) -> Result<Self, Fatal>;

    /// Name of the operation that `ask` is.
    fn operation(&self, ask: Ask) -> &'static str;

    /// What is sent to endpoint `target`.
    fn request(&self, target: usize, ask: Ask) -> Result<Request, Fault>;

    /// Bytes of user data in a request, where the protocol moves such; its reply adds its own.
    fn payload(&self, _: &Request) -> Option<u64> {
        None
    }

    /// What its answer means.
    fn reply(&self, ask: Ask) -> impl Reply + 'static;
}

/// The driver of a protocol over HTTP.
pub(crate) struct HttpDriver<P> {
    protocol: P,
    wire: Wire,
}

impl<P: Protocol> Driver for HttpDriver<P> {
    type Connection = Connection;

    async fn prepare(job: &Job) -> Result<Self, Fatal> {
        let mut plan = Cow::Borrowed(&job.plan);
        if let Some(name) = P::PORT {
            for endpoint in &mut plan.to_mut().endpoints {
                endpoint.url = endpoint.url_of(name);
            }
        }
        let wire = Wire::new(&plan, P::HTTP).await?;
        let protocol = P::prepare(job, &wire).await?;
        Ok(Self { protocol, wire })
    }

    fn targets(&self) -> usize {
        self.wire.targets()
    }

    async fn connect(&self, target: usize) -> Result<Connection, Fault> {
        self.wire.connect(target).await
    }

    fn usable(&self, connection: &Connection) -> bool {
        connection.usable()
    }

    fn operation(&self, ask: Ask) -> &'static str {
        self.protocol.operation(ask)
    }

    async fn operate(
        &self,
        connection: &mut Connection,
        ask: Ask,
        seen: &mut Seen,
    ) -> Result<(), Fault> {
        let request = self.protocol.request(connection.target, ask)?;
        seen.payload_bytes = self.protocol.payload(&request);
        connection.exchange(&request, || self.protocol.reply(ask), seen).await.map(drop)
    }
}
