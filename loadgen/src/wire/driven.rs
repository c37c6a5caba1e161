//! A connection whose engine is a future of its own, run inside the task of its request: a byte
//! that arrives wakes exactly one task.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::socket::Socket;

/// The half of a connection that has to be run.
pub(crate) struct Driven<C> {
    /// Absent once it has ended.
    connection: Option<Pin<Box<C>>>,
    /// Why it ended, if by an error.
    ended: Option<String>,
    /// What is below it.
    socket: Socket,
}

impl<C, E> Driven<C>
where
    C: Future<Output = Result<(), E>>,
    E: Error,
{
    pub(crate) fn new(connection: C, socket: Socket) -> Self {
        Self { connection: Some(Box::pin(connection)), ended: None, socket }
    }

    /// Whether it has not ended.
    pub(crate) fn alive(&self) -> bool {
        self.connection.is_some()
    }

    /// Why it ended, if by an error.
    pub(crate) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Gives the connection a turn.
    fn turn(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(result) = connection.as_mut().poll(cx)
        {
            self.connection = None;
            self.ended = result.err().map(|error| chain(&error));
        }
    }

    /// Lets the connection see whether the peer wants to close it.
    pub(crate) async fn settle(&mut self) {
        std::future::poll_fn(|cx| {
            self.turn(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Runs `future` and the connection together.
    pub(crate) async fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            // What was already read is used up before anything more is read: so each part of an
            // answer has the stamp of its own read.
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            self.turn(cx);
            let polled = future.as_mut().poll(cx);
            if polled.is_pending() {
                self.socket.waits();
            }
            polled
        })
        .await
    }
}

/// An error with its causes, in one line; a cause that its error already says is not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
