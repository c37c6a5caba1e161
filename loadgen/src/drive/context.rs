//! What all requests of one worker share, and the life of one request.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use tokio::sync::Notify;

use super::source::{Due, Source};
use crate::{
    clock::mono_ns,
    driver::any::{AnyDriver, Connection},
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::{Sends, WorkerPlan},
    record::{
        Recorder,
        row::{Outcome, Row, Seen},
    },
};

/// Connections opened at a time before the start: below the usual backlog of a listener (128).
const OPEN_AT_ONCE: usize = 64;

/// Most connections that an open load opens before the start.
const OPEN_AHEAD_MAX: u64 = 128;

/// Longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Pause of a closed slot after it could not connect: without it a service that is gone would be
/// "asked" a hundred thousand times a second.
const CONNECT_PAUSE_NS: u64 = 100_000_000;

/// What all requests of one worker share.
pub(super) struct Context {
    driver: Box<dyn AnyDriver>,
    /// Kept connections by target; the latest used is used first.
    pools: RefCell<Vec<Vec<Connection>>>,
    pub(super) recorder: RefCell<Recorder>,
    pub(super) source: RefCell<Source>,
    /// A lane ended or has a later request.
    pub(super) changed: Notify,
    timeout: Duration,
    rank: u64,
    /// How long before its instant a request is taken up, to be ready at it.
    pub(super) ahead_ns: u64,
    /// Time spent on waiting for these instants.
    pub(super) held_ns: Cell<u64>,
}

impl Context {
    pub(super) fn new(
        driver: Box<dyn AnyDriver>,
        recorder: Recorder,
        job: &Job,
        ahead_ns: u64,
    ) -> Self {
        let pools = (0..driver.targets()).map(|_| Vec::new()).collect();
        let nothing = WorkerPlan {
            sends: Sends::Open { warmup: Vec::new(), measure: Vec::new() },
            measure_start_ns: 0,
            measure_end_ns: None,
            hash: String::new(),
            trace: None,
        };
        Self {
            driver,
            pools: RefCell::new(pools),
            recorder: RefCell::new(recorder),
            source: RefCell::new(Source::new(&nothing, (0, 1), 0, None)),
            changed: Notify::new(),
            timeout: job.plan.load.timeout.get(),
            rank: u64::from(job.rank),
            ahead_ns,
            held_ns: Cell::new(0),
        }
    }

    fn target(&self, id: u64) -> usize {
        let targets = u64::try_from(self.driver.targets()).unwrap_or(1).max(1);
        usize::try_from((id + self.rank) % targets).unwrap_or(0)
    }

    /// Opens the connections that the start will need.
    ///
    /// # Errors
    /// If none can be opened.
    pub(super) async fn open_ahead(&self, plan: &WorkerPlan) -> Result<(), Fatal> {
        if !self.driver.opens_ahead() {
            return Ok(());
        }
        let wanted = match &plan.sends {
            Sends::Closed { slots, .. } => u64::from(*slots),
            Sends::Open { measure, .. } => {
                let length = plan.measure_end_ns.unwrap_or(0).saturating_sub(plan.measure_start_ns);
                let count = u64::try_from(measure.len()).unwrap_or(u64::MAX);
                // What is sent in a tenth of a second.
                let tenth = count.saturating_mul(100_000_000) / length.max(1);
                tenth.clamp(1, OPEN_AHEAD_MAX)
            }
        };
        let ids: Vec<u64> = (0..wanted).collect();
        let (mut opened, mut failed) = (0_u64, None);
        for part in ids.chunks(OPEN_AT_ONCE) {
            let connects = part.iter().map(|id| async {
                let target = self.target(*id);
                self.connect(target).await.map(|connection| self.keep(target, connection))
            });
            for result in futures_util::future::join_all(connects).await {
                match result {
                    Ok(()) => opened += 1,
                    Err(fault) => failed = Some(fault),
                }
            }
            if let (0, Some(fault)) = (opened, &failed) {
                return Err(Fatal::service(format!("opening a connection: {}", fault.message))
                    .hint("check that the service is running and its address is right"));
            }
        }
        Ok(())
    }

    async fn connect(&self, target: usize) -> Result<Connection, Fault> {
        tokio::time::timeout(CONNECT_MAX, self.driver.connect(target)).await.unwrap_or_else(|_| {
            Err(Fault::new(Class::ConnectTimeout, format!("no connection within {CONNECT_MAX:?}")))
        })
    }

    /// A new connection for a request.
    async fn connect_for(&self, target: usize, seen: &mut Seen) -> Result<Connection, Fault> {
        let from = mono_ns();
        let connection = self.connect(target).await?;
        seen.connect_ns = Some(mono_ns().saturating_sub(from));
        Ok(connection)
    }

    /// A kept connection that can still be used.
    fn kept(&self, target: usize) -> Option<Connection> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(target)?;
        std::iter::from_fn(|| pool.pop()).find(Connection::usable)
    }

    fn keep(&self, target: usize, connection: Connection) {
        if connection.usable()
            && let Some(pool) = self.pools.borrow_mut().get_mut(target)
        {
            pool.push(connection);
        }
    }

    /// Closes the kept connections.
    pub(super) fn close(&self) {
        self.pools.borrow_mut().clear();
    }

    /// Waits for the instant of a request that was taken up ahead of it. It is so close that giving
    /// the thread away would miss it.
    fn hold(&self, until_ns: u64) {
        let from = mono_ns();
        let mut now = from;
        while now < until_ns && now.saturating_sub(from) < self.ahead_ns {
            std::hint::spin_loop();
            now = mono_ns();
        }
        self.held_ns.set(self.held_ns.get().saturating_add(now.saturating_sub(from)));
    }

    /// One request on a kept or new connection.
    async fn attempt(&self, due: Due, seen: &mut Seen) -> Result<(), Fault> {
        let target = self.target(due.ask.id);
        loop {
            let kept = if seen.resent { None } else { self.kept(target) };
            let was_kept = kept.is_some();
            self.hold(due.planned_ns);
            let mut connection = match kept {
                Some(connection) => connection,
                // On the heap: a stream waits long for its tokens, and hardly ever for this.
                None => Box::pin(self.connect_for(target, seen)).await?,
            };
            let result = connection.operate(due.ask, seen).await;
            let stale = was_kept
                && seen.first_byte_ns.is_none()
                && matches!(&result, Err(fault) if matches!(fault.class, Class::Send | Class::ResetBeforeResponse));
            if !stale {
                self.keep(target, connection);
                return result;
            }
            // The server had closed it; the request did not reach anybody.
            seen.resent = true;
        }
    }

    /// One request with its record; gives its end and the pause that has to follow.
    async fn request(&self, due: Due) -> (u64, u64) {
        let mut flight = Flight::begin(self, due);
        let within = {
            // Pinned here: as an argument it would be kept twice, for each stream.
            let attempt = std::pin::pin!(self.attempt(due, &mut flight.row.seen));
            within(self.timeout, attempt).await
        };
        let result = within.unwrap_or_else(|| {
            let class = match flight.row.seen.first_byte_ns {
                None => Class::TimeoutFirstByte,
                Some(_) => Class::TimeoutTotal,
            };
            Err(Fault::new(class, format!("no complete response within {:?}", self.timeout)))
        });
        flight.end(result)
    }
}

/// Runs `future` for at most `most`: `None` when it is not over by then. The runtime's timer only
/// wakes the task; between its start and its end it costs a look at the clock, not a look at the
/// timer, each time that something is read.
async fn within<F: Future>(most: Duration, mut future: Pin<&mut F>) -> Option<F::Output> {
    // Before the timer's own end: when it wakes the task this is over too.
    let end = mono_ns().saturating_add(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX));
    let mut timer = std::pin::pin!(tokio::time::sleep(most));
    let mut set = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        // The task is the same at each poll, so the timer knows whom to wake from the first on.
        if (!set || mono_ns() >= end) && timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        set = true;
        Poll::Pending
    })
    .await
}

/// Sends `due` and whatever follows it in the same slot.
pub(super) async fn lane(cx: Rc<Context>, due: Due) {
    let mut next = Some(due);
    while let Some(due) = next.take() {
        let (end, pause) = cx.request(due).await;
        next = cx.source.borrow_mut().after(due.ask, end, pause);
    }
    cx.changed.notify_one();
}

/// A started request; dropping it before its end counts it as cancelled.
struct Flight<'a> {
    cx: &'a Context,
    row: Row,
    over: bool,
}

impl<'a> Flight<'a> {
    fn begin(cx: &'a Context, due: Due) -> Self {
        let dequeued_ns = mono_ns();
        let row = Row {
            phase: due.ask.phase,
            id: due.ask.id,
            operation: cx.driver.operation(due.ask).into(),
            planned_ns: due.planned_ns,
            dequeued_ns,
            end_ns: 0,
            outcome: Outcome::Cancelled,
            error: Some(Class::CancelledAtEnd),
            seen: Seen::default(),
        };
        cx.recorder.borrow_mut().begin(&row);
        Self { cx, row, over: false }
    }

    fn end(mut self, result: Result<(), Fault>) -> (u64, u64) {
        let now = mono_ns();
        let (message, pause) = match result {
            Ok(()) => {
                self.row.outcome = Outcome::Ok;
                self.row.error = None;
                self.row.end_ns = self.row.seen.end_ns.unwrap_or(now);
                (None, 0)
            }
            Err(Fault { class, message }) => {
                self.row.outcome = Outcome::Failed;
                self.row.error = Some(class);
                self.row.end_ns = now;
                let connect =
                    matches!(class, Class::ConnectRefused | Class::ConnectFailed | Class::Spawn);
                (Some(message), if connect { CONNECT_PAUSE_NS } else { 0 })
            }
        };
        let end = self.row.end_ns;
        self.write(message);
        (end, pause)
    }

    fn write(&mut self, message: Option<String>) {
        self.over = true;
        let row = std::mem::replace(&mut self.row, Row::blank());
        self.cx.recorder.borrow_mut().end(row, message);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.row.end_ns = mono_ns();
            self.write(None);
        }
    }
}
