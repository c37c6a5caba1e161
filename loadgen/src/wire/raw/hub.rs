//! Who has something to read: the wakers of a thread's connections, served by one task.
//!
//! This way a single token costs little more than the kernel's part: no task of its own is woken
//! for it, with all the layers that wait for the end of the answer, only what reads the answer is
//! called.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use super::flow::InFlight;

/// Calls before the runtime's other tasks get their turn: some 0.2 ms.
const BATCH: usize = 64;

/// The connections of a thread.
pub(crate) struct Hub {
    places: RefCell<Places>,
    bells: Arc<Bells>,
}

#[derive(Default)]
struct Places {
    list: Vec<Place>,
    free: Vec<usize>,
}

struct Place {
    flow: Option<InFlight>,
    waker: Waker,
}

/// Which connections have been woken.
#[derive(Default)]
struct Bells(Mutex<Rung>);

#[derive(Default)]
struct Rung {
    places: Vec<usize>,
    /// Of the task that serves them, while it waits.
    server: Option<Waker>,
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, Rung> {
        // Nothing in between can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one place.
struct Bell {
    place: usize,
    bells: Arc<Bells>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let server = {
            let mut rung = self.bells.lock();
            rung.places.push(self.place);
            rung.server.take()
        };
        if let Some(server) = server {
            server.wake();
        }
    }
}

impl Hub {
    /// Without connections; serves them from now on, in the current runtime.
    pub(in crate::wire) fn start() -> Rc<Self> {
        let hub = Rc::new(Self { places: RefCell::default(), bells: Arc::default() });
        tokio::task::spawn_local(serve(Rc::clone(&hub)));
        hub
    }

    /// A place for a connection.
    pub(super) fn enter(&self) -> usize {
        let mut places = self.places.borrow_mut();
        if let Some(place) = places.free.pop() {
            return place;
        }
        let place = places.list.len();
        let bell = Bell { place, bells: Arc::clone(&self.bells) };
        places.list.push(Place { flow: None, waker: Arc::new(bell).into() });
        place
    }

    /// The connection of this place is gone.
    pub(super) fn leave(&self, place: usize) {
        self.take(place);
        self.places.borrow_mut().free.push(place);
    }

    /// From now on `flow` is called for this place, for the first time by the caller itself, with
    /// the waker that is given.
    pub(super) fn give(&self, place: usize, flow: InFlight) -> Option<Waker> {
        let mut places = self.places.borrow_mut();
        let place = places.list.get_mut(place)?;
        place.flow = Some(flow);
        Some(place.waker.clone())
    }

    /// Nobody is called for this place any more.
    pub(super) fn take(&self, place: usize) {
        let flow = self.places.borrow_mut().list.get_mut(place).and_then(|place| place.flow.take());
        // It may be the last that holds its connection, which leaves its place then.
        drop(flow);
    }

    fn call(&self, place: usize) {
        let called = match self.places.borrow().list.get(place) {
            Some(Place { flow: Some(flow), waker }) => (Rc::clone(flow), waker.clone()),
            // Whoever comes next looks by itself.
            _ => return,
        };
        let (flow, waker) = called;
        flow.borrow_mut().ready(&mut Context::from_waker(&waker));
    }
}

/// Serves connections for as long as the runtime lives.
async fn serve(hub: Rc<Hub>) {
    let mut served = Vec::new();
    loop {
        poll_fn(|cx| {
            let mut rung = hub.bells.lock();
            if rung.places.is_empty() {
                rung.server = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut rung.places, &mut served);
            Poll::Ready(())
        })
        .await;
        for (count, place) in served.drain(..).enumerate() {
            if count > 0 && count % BATCH == 0 {
                tokio::task::yield_now().await;
            }
            hub.call(place);
        }
    }
}
