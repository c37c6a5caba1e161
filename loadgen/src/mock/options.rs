//! The command line of `aifb-loadgen mock`.

use aifb_schema::units::{Rate, Span};
use clap::Args;

use super::{FaultRule, Freeze};

/// Options of `mock`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Address to listen on; port 0 takes a free one. The first line on standard output says
    /// where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// From the end of a request to its first token.
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    pub(crate) ttft: Span,
    /// Between events.
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    pub(crate) itl: Span,
    /// Tokens of each answer; without it what the request asks for.
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u64>,
    /// The only model; requests that name another get 404.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Tokens in one event.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) tokens_per_event: u64,
    /// Numbers in each vector (embeddings).
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) dimension: usize,
    /// Answers at a time; further requests wait. The capacity is N / (ttft + (events - 1) * itl)
    /// requests a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// Requests that begin a second, at most, such as 50/s; further ones wait.
    #[arg(long, value_name = "RATE", conflicts_with = "slots")]
    pub(crate) capacity: Option<Rate>,
    /// Do nothing for a while: 3s:1s stands still for 1 s, 3 s after the first request.
    /// Repeatable.
    #[arg(long, value_name = "AT:FOR")]
    pub(crate) freeze: Vec<Freeze>,
    /// The model has to be pulled before it is used (Ollama).
    #[arg(long)]
    pub(crate) missing: bool,
    /// Close the connection after each streamed answer, without saying so before.
    #[arg(long)]
    pub(crate) close: bool,
    /// What goes wrong; `NAME` always, `NAME/N` in every Nth request. Repeatable.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<FaultRule>,
    /// Print the faults, a line each: name, answers it applies to, what a client should report,
    /// description.
    #[arg(long)]
    pub(crate) list_faults: bool,
}
