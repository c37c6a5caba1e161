//! Standard input: the launcher's lines.

use std::{
    io::{self, BufRead, Read},
    thread,
};

use aifb_schema::control::{AgentStart, CoordinatorAt, LINE_MAX};
use tokio::sync::mpsc;

/// A line.
#[derive(Debug)]
pub(crate) enum Input {
    /// The first line.
    Start(Box<AgentStart>),
    /// The second line: `address:port`.
    Coordinator(String),
}

/// Reads on a thread of its own; a pipe cannot be waited for in any other way on all kernels.
pub(crate) fn read() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(4);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        if let Some(start) = line(&mut input) {
            let _ended = sender.blocking_send(Input::Start(start));
        }
        if let Some(CoordinatorAt { coordinator }) = line(&mut input) {
            let _ended = sender.blocking_send(Input::Coordinator(coordinator));
        }
    });
    receiver
}

/// The next line as a message; `None` at the end or for anything else.
fn line<T: serde::de::DeserializeOwned>(input: &mut impl BufRead) -> Option<T> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    let count = input.take(limit).read_until(b'\n', &mut line).ok()?;
    (count > 0).then(|| serde_json::from_slice(&line).ok())?
}
