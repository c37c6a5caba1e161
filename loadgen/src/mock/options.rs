//! The command line of `aifb-loadgen mock`.

use aifb_schema::units::{Rate, Span};
use clap::Args;

use super::{FaultRule, Freeze};

/// Options of `mock`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Address to listen on; port 0 selects a free port. The first line on standard output is the
    /// actual address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(crate) listen: std::net::SocketAddr,
    /// Time from the end of a request to the first token.
    #[arg(long, value_name = "TIME", default_value = "50ms")]
    pub(crate) ttft: Span,
    /// Time between events.
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    pub(crate) itl: Span,
    /// Tokens of each response [default: the number in the request].
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u64>,
    /// The only model; requests that name another get 404.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Tokens per event.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) tokens_per_event: u64,
    /// Dimension of the vectors (embeddings).
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) dimension: usize,
    /// Maximum number of concurrent responses; further requests wait. The capacity is
    /// N / (ttft + (events - 1) * itl) requests per second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) slots: Option<u32>,
    /// Maximum rate at which requests are served, such as 50/s; further requests wait.
    #[arg(long, value_name = "RATE", conflicts_with = "slots")]
    pub(crate) capacity: Option<Rate>,
    /// Freeze the server: 3s:1s stops it for 1 s, 3 s after the first request.
    /// Repeatable.
    #[arg(long, value_name = "AT:FOR")]
    pub(crate) freeze: Vec<Freeze>,
    /// The model must be pulled before it is used (Ollama).
    #[arg(long)]
    pub(crate) missing: bool,
    /// Close the connection after each streamed response, without announcing it.
    #[arg(long)]
    pub(crate) close: bool,
    /// Inject a fault: `NAME` in every response, `NAME/N` in every Nth. Repeatable.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<FaultRule>,
    /// Print the faults, one per line: name, responses it applies to, what a client should report,
    /// description.
    #[arg(long)]
    pub(crate) list_faults: bool,
}
