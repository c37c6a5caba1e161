//! The shipper of this node's logs, as the rest of the agent sees it.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use aifb_schema::{
    logs::LogLedger,
    names::file,
    recipe::{EnvValue, Loki},
};

use super::{context::Context, secrets::Resolver};
use crate::ship::{self, Config, Handle, Source, Target};

/// Time for what is left at the end; what is not sent by then is sent by `aifb logs resend`.
const LAST: Duration = Duration::from_millis(800);

/// Longest time to find a file's size at the end.
const MEASURE: Duration = Duration::from_millis(50);

/// How often it is looked whether all is sent.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Logs of this node on their way to Loki. Clones are one shipper.
#[derive(Debug, Clone)]
pub(crate) struct Shipping {
    context: Rc<Context>,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
enum State {
    /// The recipe names no Loki, or shipping could not be started.
    #[default]
    Off,
    /// These files are to be shipped when it has started.
    Starting(Vec<Source>),
    On(Handle),
}

impl Shipping {
    /// Starts shipping if the recipe names a Loki. Without it the run goes on: its files are
    /// complete, and the report says that nothing was sent.
    pub(crate) fn start(context: &Rc<Context>) -> Self {
        let shipping = Self { context: Rc::clone(context), state: Rc::default() };
        let Some(loki) = context.recipe.monitor.loki.clone() else { return shipping };
        let own = ship::agent_source(&context.run_dir, &context.record, &context.node);
        *shipping.state.borrow_mut() = State::Starting(vec![own]);
        let resolver = Resolver::new(context);
        let folder = context.node_dir();
        let logging = context.logging.clone();
        // Off this thread: files may hang.
        let starting = tokio::task::spawn_blocking(move || {
            let config = Config {
                checkpoint: folder.join(file::LOG_CHECKPOINT),
                quarantine: folder.join(file::LOG_QUARANTINE),
                target: target(loki, &resolver)?,
                logging,
                sources: Vec::new(),
                folder: None,
                until_idle: false,
            };
            ship::start(config).map_err(|error| error.to_string())
        });
        let starter = shipping.clone();
        tokio::task::spawn_local(async move {
            let started = starting.await.unwrap_or_else(|error| Err(error.to_string()));
            starter.started(started);
        });
        shipping
    }

    fn started(&self, started: Result<Handle, String>) {
        let mut state = self.state.borrow_mut();
        *state = match (started, std::mem::take(&mut *state)) {
            (Ok(handle), State::Starting(sources)) => {
                handle.watch(sources);
                State::On(handle)
            }
            (Ok(_), other) => other,
            (Err(reason), _) => {
                tracing::error!(reason, "logs are not sent");
                let ledger = LogLedger { trouble: Some(reason), ..LogLedger::default() };
                close(&ledger, &self.context);
                State::Off
            }
        };
    }

    /// Ships the logs of a replica, named as its folder, too.
    pub(crate) fn watch(&self, replica: &str) {
        let Context { run_dir, record, node, .. } = &*self.context;
        let sources = || ship::service_sources(run_dir, record, node, replica);
        match &mut *self.state.borrow_mut() {
            State::Off => {}
            State::Starting(waiting) => waiting.extend(sources()),
            State::On(handle) => handle.watch(sources()),
        }
    }

    /// What became of the lines so far; absent where nothing is sent.
    pub(crate) fn ledger(&self) -> Option<LogLedger> {
        match &*self.state.borrow() {
            State::On(handle) => Some(handle.ledger()),
            State::Off | State::Starting(_) => None,
        }
    }

    /// Sends what is left, within a bounded time, and closes the ledger.
    pub(crate) async fn stop(&self) {
        let State::On(handle) = std::mem::take(&mut *self.state.borrow_mut()) else { return };
        handle.stop(LAST);
        let until = Instant::now() + LAST;
        while !handle.ended() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let mut ledger = handle.ledger();
        if !handle.ended() {
            let waits = || "the receiver does not answer".to_owned();
            ledger.trouble.get_or_insert_with(waits);
            measure(&mut ledger, &self.context).await;
        }
        if ledger.bytes_unsent() > 0 {
            tracing::warn!(
                bytes = ledger.bytes_unsent(),
                trouble = ledger.trouble,
                "some logs are not sent yet"
            );
        }
        close(&ledger, &self.context);
    }
}

/// Takes the sizes anew, where the shipper has no time for it.
async fn measure(ledger: &mut LogLedger, context: &Context) {
    for stream in &mut ledger.streams {
        let size = tokio::fs::metadata(context.run_dir.join(&stream.file));
        if let Ok(Ok(found)) = tokio::time::timeout(MEASURE, size).await {
            stream.bytes = stream.bytes.max(found.len());
        }
    }
}

fn close(ledger: &LogLedger, context: &Context) {
    if let Ok(mut json) = serde_json::to_vec_pretty(ledger) {
        json.push(b'\n');
        context.files.replace(&context.node_dir().join(file::LOG_LEDGER), 0o600, json);
    }
}

/// The receiver of the recipe, its token resolved.
fn target(loki: Loki, resolver: &Resolver) -> Result<Target, String> {
    let secret = |value: &EnvValue| resolver.secret("monitor.loki", "token", value);
    let token = loki.token.as_ref().map(secret).transpose();
    let token = token.map_err(|failure| failure.render())?;
    Ok(Target { url: loki.url, tenant: loki.tenant, token, encoding: loki.encoding })
}
