//! Protocols over HTTP: requests and the interpretation of responses, without sockets.
//!
//! A new protocol is one file with a type that is a [`Protocol`], and one line in
//! [`crate::registry`]. [`super::any::over_http`] makes a driver of it, on every engine.

use aifb_schema::recipe::HttpVersion;

use crate::{
    error::Fatal,
    fault::Fault,
    job::Job,
    plan::Ask,
    wire::{Reply, Request, Wire},
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

    /// What its answer means.
    fn reply(&self, ask: Ask) -> impl Reply + 'static;
}
