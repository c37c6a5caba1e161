//! Many waits for exact instants on one timer.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::BinaryHeap,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Poll, Waker},
};

use tokio::sync::Notify;

use crate::clock::{mono_ns, pacer::Pacer};

/// A waiter, ordered by its instant.
struct Waiter {
    at: u64,
    waker: Waker,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Waiter {}
impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// All waits of a server.
#[derive(Clone)]
pub(super) struct Alarms(Rc<Shared>);

struct Shared {
    waiters: RefCell<BinaryHeap<Reverse<Waiter>>>,
    /// An earlier instant was added.
    earlier: Notify,
}

impl Alarms {
    /// Starts the task that wakes the waiters.
    pub(super) fn start() -> io::Result<Self> {
        let alarms = Self(Rc::new(Shared { waiters: RefCell::default(), earlier: Notify::new() }));
        let pacer = Pacer::new(false)?;
        let shared = Rc::clone(&alarms.0);
        tokio::task::spawn_local(async move { shared.run(pacer).await });
        Ok(alarms)
    }

    /// Returns at `at`, never before.
    pub(super) async fn until(&self, at: u64) {
        poll_fn(|cx| {
            if mono_ns() >= at {
                return Poll::Ready(());
            }
            let mut waiters = self.0.waiters.borrow_mut();
            let first = waiters.peek().is_none_or(|Reverse(next)| at < next.at);
            waiters.push(Reverse(Waiter { at, waker: cx.waker().clone() }));
            if first {
                self.0.earlier.notify_one();
            }
            Poll::Pending
        })
        .await;
    }
}

impl Shared {
    async fn run(&self, mut pacer: Pacer) {
        loop {
            let next = self.waiters.borrow().peek().map(|Reverse(waiter)| waiter.at);
            match next {
                None => self.earlier.notified().await,
                Some(at) => tokio::select! {
                    biased;
                    // Without a timer nothing can be promised: the waits end at once.
                    _ = pacer.until(at) => self.wake(),
                    () = self.earlier.notified() => {}
                },
            }
        }
    }

    fn wake(&self) {
        let now = mono_ns();
        let mut waiters = self.waiters.borrow_mut();
        while waiters.peek().is_some_and(|Reverse(waiter)| waiter.at <= now) {
            if let Some(Reverse(waiter)) = waiters.pop() {
                waiter.waker.wake();
            }
        }
    }
}
