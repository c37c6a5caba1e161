//! A driver in one file: the own protocol of text-embeddings-inference, `POST /embed`.
//!
//! docs/developer/drivers.md explains it line by line; `loadgen/src/registry/example.rs` compiles it
//! and runs it.

use std::rc::Rc;

use super::{protocol::Protocol, template::Template};
use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    record::row::Seen,
    wire::{Reply, Request, Route, Wire, reply::Answered},
};

/// The protocol: all that requests need, made once.
pub(crate) struct Embed {
    route: Rc<Route>,
    body: Template,
}

impl Protocol for Embed {
    async fn prepare(job: &Job, _: &Wire) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let route = Route::post("/embed").json().ready();
        let body = Template::new(r#"{"inputs":"document {id} on {random:1000}"}"#, load.seed)
            .map_err(|why| Fatal::usage(format!("load '{}': {why}", load.name)))?;
        Ok(Self { route, body })
    }

    fn operation(&self, _: Ask) -> &'static str {
        "embed"
    }

    fn request(&self, _: usize, ask: Ask) -> Result<Request, Fault> {
        Ok(self.route.request(self.body.fill(ask)))
    }

    fn reply(&self, _: Ask) -> impl Reply + 'static {
        Answered::new(|body: &[u8], at_ns: u64, seen: &mut Seen| {
            let vectors: Vec<Vec<f64>> = serde_json::from_slice(body)
                .map_err(|error| Fault::new(Class::Parse, error.to_string()))?;
            if vectors.iter().all(Vec::is_empty) {
                return Err(Fault::new(Class::EmptyResponse, "the answer has no vector"));
            }
            seen.content(at_ns);
            Ok(())
        })
    }
}
