//! Statistics of aifb: pure functions, each formula with its source.
//!
//! One rank rule for all percentiles ([`rank`]), whether they come from raw values or from a
//! histogram, so that both sources can be compared.
#![forbid(unsafe_code)]

pub mod binomial;
pub mod distribution;
pub mod growth;
pub mod histogram;
pub mod interpolated;
pub mod moments;
pub mod plateau;
pub mod rank;
pub mod resources;
pub mod search;
pub mod stopping;
