//! A response that is read in one of two ways, depending on the request.

use crate::{
    fault::Fault,
    record::row::Seen,
    wire::{Fields, Head, Reply},
};

/// One of two.
pub(super) enum Either<A, B> {
    /// The one.
    A(A),
    /// The other.
    B(B),
}

impl<A: Reply, B: Reply> Reply for Either<A, B> {
    fn head(&mut self, head: &Head<'_>, seen: &mut Seen) -> Result<(), Fault> {
        match self {
            Self::A(reply) => reply.head(head, seen),
            Self::B(reply) => reply.head(head, seen),
        }
    }

    fn body(&mut self, bytes: &[u8], at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        match self {
            Self::A(reply) => reply.body(bytes, at_ns, seen),
            Self::B(reply) => reply.body(bytes, at_ns, seen),
        }
    }

    fn trailers(&mut self, fields: &Fields<'_>, seen: &mut Seen) -> Result<(), Fault> {
        match self {
            Self::A(reply) => reply.trailers(fields, seen),
            Self::B(reply) => reply.trailers(fields, seen),
        }
    }

    fn end(&mut self, at_ns: u64, seen: &mut Seen) -> Result<(), Fault> {
        match self {
            Self::A(reply) => reply.end(at_ns, seen),
            Self::B(reply) => reply.end(at_ns, seen),
        }
    }
}
