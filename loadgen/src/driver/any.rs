//! Drivers as the loop sees them, without their types: so the loop, what it keeps of a request and
//! the engines are compiled once, whatever is asked.
//!
//! A protocol over HTTP costs an operation a fixed number of dynamic calls (its name, its request,
//! its reply) and no allocation of its own; a driver with its own connections one boxed future.

use std::{borrow::Cow, rc::Rc};

use futures_util::future::LocalBoxFuture;

use super::{Driver, protocol::Protocol};
use crate::{
    error::Fatal,
    fault::Fault,
    job::Job,
    plan::Ask,
    record::row::Seen,
    wire::{
        self, Replies, Reply, Request, Wire,
        raw::{Begin, InFlight},
        receiver::Receiver,
    },
};

/// A driver, whichever it is.
pub(crate) trait AnyDriver {
    /// Endpoints that requests are spread over.
    fn targets(&self) -> usize;

    /// Opens a connection to one of them.
    fn connect(&self, target: usize) -> LocalBoxFuture<'_, Result<Connection, Fault>>;

    /// Name of the operation that `ask` is.
    fn operation(&self, ask: Ask) -> &'static str;

    /// Whether opening connections before the start makes sense.
    fn opens_ahead(&self) -> bool;
}

/// What is kept between requests.
pub(crate) enum Connection {
    /// Of a protocol over HTTP.
    Http(HttpConnection),
    /// Of a driver with its own connections.
    Own(Box<dyn OwnConnection>),
}

impl Connection {
    /// Whether it may be used again.
    pub(crate) fn usable(&self) -> bool {
        match self {
            Self::Http(connection) => connection.wire.usable(),
            Self::Own(connection) => connection.usable(),
        }
    }

    /// Does one operation and notes what happened, as [`Driver::operate`].
    ///
    /// # Errors
    /// If it fails.
    pub(crate) async fn operate(&mut self, ask: Ask, seen: &mut Seen) -> Result<(), Fault> {
        match self {
            Self::Http(connection) => connection.operate(ask, seen).await,
            Self::Own(connection) => connection.operate(ask, seen).await,
        }
    }
}

/// The driver of protocols over HTTP.
struct HttpDriver {
    protocol: Box<dyn AnyProtocol>,
    wire: Wire,
}

/// Makes a driver of a protocol over HTTP.
///
/// # Errors
/// If the endpoints or the protocol cannot be made ready.
pub(crate) async fn over_http<P: Protocol>(job: &Job) -> Result<Box<dyn AnyDriver>, Fatal> {
    let wire = endpoints(job, P::HTTP, P::PORT).await?;
    let protocol = Box::new(P::prepare(job, &wire).await?);
    Ok(Box::new(Rc::new(HttpDriver { protocol, wire })))
}

/// The endpoints as a protocol asks for them.
async fn endpoints(
    job: &Job,
    version: Option<aifb_schema::recipe::HttpVersion>,
    port: Option<&str>,
) -> Result<Wire, Fatal> {
    let mut plan = Cow::Borrowed(&job.plan);
    if let Some(name) = port {
        for endpoint in &mut plan.to_mut().endpoints {
            endpoint.url = endpoint.url_of(name);
        }
    }
    Wire::new(&plan, version).await
}

impl AnyDriver for Rc<HttpDriver> {
    fn targets(&self) -> usize {
        self.wire.targets()
    }

    fn connect(&self, target: usize) -> LocalBoxFuture<'_, Result<Connection, Fault>> {
        Box::pin(async move {
            let wire = self.wire.connect(target).await?;
            Ok(Connection::Http(HttpConnection { driver: Self::clone(self), wire }))
        })
    }

    fn operation(&self, ask: Ask) -> &'static str {
        self.protocol.operation(ask)
    }

    fn opens_ahead(&self) -> bool {
        true
    }
}

/// A connection of a protocol over HTTP.
pub(crate) struct HttpConnection {
    driver: Rc<HttpDriver>,
    wire: wire::Connection,
}

impl HttpConnection {
    async fn operate(&mut self, ask: Ask, seen: &mut Seen) -> Result<(), Fault> {
        let protocol = &*self.driver.protocol;
        let request = protocol.request(self.wire.target, ask)?;
        seen.payload_bytes = request.payload_bytes();
        let exchange = self.wire.exchange(request, &Asking { protocol, ask }, seen)?;
        // Neither request nor question is kept until the answer.
        exchange.await
    }
}

/// A protocol over HTTP, whichever it is.
trait AnyProtocol {
    fn operation(&self, ask: Ask) -> &'static str;
    fn request(&self, target: usize, ask: Ask) -> Result<Request, Fault>;
    fn flow(&self, ask: Ask, begin: Begin) -> InFlight;
    fn receiver(&self, ask: Ask) -> Box<Receiver<dyn Reply>>;
}

impl<P: Protocol> AnyProtocol for P {
    fn operation(&self, ask: Ask) -> &'static str {
        Protocol::operation(self, ask)
    }

    fn request(&self, target: usize, ask: Ask) -> Result<Request, Fault> {
        Protocol::request(self, target, ask)
    }

    fn flow(&self, ask: Ask, begin: Begin) -> InFlight {
        begin.flow(self.reply(ask))
    }

    fn receiver(&self, ask: Ask) -> Box<Receiver<dyn Reply>> {
        Box::new(Receiver::new(self.reply(ask)))
    }
}

/// The reply to one request of a protocol.
struct Asking<'a> {
    protocol: &'a dyn AnyProtocol,
    ask: Ask,
}

impl Replies for Asking<'_> {
    fn flow(&self, begin: Begin) -> InFlight {
        self.protocol.flow(self.ask, begin)
    }

    fn receiver(&self) -> Box<Receiver<dyn Reply>> {
        self.protocol.receiver(self.ask)
    }
}

/// Makes a driver with its own connections ready.
///
/// # Errors
/// If it cannot be.
pub(crate) async fn own<D: Driver>(job: &Job) -> Result<Box<dyn AnyDriver>, Fatal> {
    Ok(Box::new(Rc::new(D::prepare(job).await?)))
}

impl<D: Driver> AnyDriver for Rc<D> {
    fn targets(&self) -> usize {
        Driver::targets(&**self)
    }

    fn connect(&self, target: usize) -> LocalBoxFuture<'_, Result<Connection, Fault>> {
        Box::pin(async move {
            let connection = Driver::connect(&**self, target).await?;
            Ok(Connection::Own(Box::new(Kept { driver: Self::clone(self), connection })))
        })
    }

    fn operation(&self, ask: Ask) -> &'static str {
        Driver::operation(&**self, ask)
    }

    fn opens_ahead(&self) -> bool {
        Driver::opens_ahead(&**self)
    }
}

/// A connection of a driver with its own connections.
pub(crate) trait OwnConnection {
    /// Whether it may be used again.
    fn usable(&self) -> bool;

    /// Does one operation.
    fn operate<'a>(
        &'a mut self,
        ask: Ask,
        seen: &'a mut Seen,
    ) -> LocalBoxFuture<'a, Result<(), Fault>>;
}

/// A connection with its driver.
struct Kept<D: Driver> {
    driver: Rc<D>,
    connection: D::Connection,
}

impl<D: Driver> OwnConnection for Kept<D> {
    fn usable(&self) -> bool {
        self.driver.usable(&self.connection)
    }

    fn operate<'a>(
        &'a mut self,
        ask: Ask,
        seen: &'a mut Seen,
    ) -> LocalBoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.driver.operate(&mut self.connection, ask, seen))
    }
}
