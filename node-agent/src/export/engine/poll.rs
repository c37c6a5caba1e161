//! The threads that look at the engines' pages.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use aifb_schema::{
    metric::{self, Family},
    recipe::Tls,
};

use super::{family::family, page};
use crate::{
    http::{self, tls},
    sample::{Source, Tick},
};

/// Longest time for a page. An engine under load may respond late; until then it is not scraped
/// again.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a page: Milvus has about one MiB.
const PAGE_MAX: u64 = 4 << 20;

/// Series that one replica may have in its life. Each is declared in the record and remembered for a
/// while, so that labels which change at every look, such as an id, would fill both.
const SERIES_EVER_MAX: usize = 4 * page::SERIES_MAX;

/// The engines of this node. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Engines(Arc<Mutex<Vec<Engine>>>);

/// One replica that shows metrics; its thread ends with it.
struct Engine {
    service: String,
    replica: String,
    /// Asks for a look; taken at once or not at all.
    look: SyncSender<()>,
    shared: Arc<Shared>,
    skipped: u64,
}

/// What the thread of an engine has found.
#[derive(Default)]
struct Shared {
    /// The last page that was not in a tick yet.
    page: Mutex<Option<Page>>,
    ok: AtomicU64,
    failed: AtomicU64,
}

struct Page {
    values: Vec<(&'static Family, Vec<String>, f64)>,
    left_out: u64,
}

/// Where a page is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Its URL.
    pub(crate) url: String,
    /// Whom its https server is trusted to be, by files with whole paths.
    pub(crate) tls: Option<Tls>,
}

impl Engines {
    /// From now on the page there belongs to this replica.
    pub(crate) fn set(&self, service: &str, replica: u32, at: Address) {
        let (look, asked) = sync_channel(0);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let started = thread::Builder::new()
            .name("engine-metrics".into())
            .spawn(move || look_when_asked(&at, &asked, &of_thread));
        if let Err(error) = started {
            tracing::error!(service, replica, %error, "cannot start the thread for its own \
             metrics");
            return;
        }
        let (service, replica) = (service.to_owned(), replica.to_string());
        let mut engines = self.lock();
        engines.retain(|engine| (&engine.service, &engine.replica) != (&service, &replica));
        engines.push(Engine { service, replica, look, shared, skipped: 0 });
    }

    /// The replica is gone.
    pub(crate) fn remove(&self, service: &str, replica: u32) {
        let replica = replica.to_string();
        self.lock()
            .retain(|engine| (engine.service.as_str(), &engine.replica) != (service, &replica));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Engines {
    fn collect(&mut self, tick: &mut Tick<'_>) {
        for engine in self.lock().iter_mut() {
            engine.put(tick);
            if let Err(TrySendError::Full(())) = engine.look.try_send(()) {
                engine.skipped += 1;
            }
        }
    }
}

impl Engine {
    /// The values of the last page, once, and what became of the looks.
    fn put(&mut self, tick: &mut Tick<'_>) {
        let own = [("service", self.service.as_str()), ("replica", self.replica.as_str())];
        for (outcome, count) in [
            ("ok", self.shared.ok.load(Relaxed)),
            ("failed", self.shared.failed.load(Relaxed)),
            ("skipped", self.skipped),
        ] {
            let [service, replica] = own;
            tick.put_u64(&metric::ENGINE_POLLS, &[service, replica, ("outcome", outcome)], count);
        }
        let page = self.shared.page.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(page) = page else { return };
        tick.put_u64(&metric::ENGINE_LEFT_OUT, &own, page.left_out);
        for (family, labels, value) in &page.values {
            let of_page = labels.iter().map(String::as_str);
            let values = own.iter().map(|(_, value)| *value).chain(of_page);
            let labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
            tick.put(family, &labels, *value);
        }
    }
}

/// Scrapes on each request, until the requesting side is dropped.
fn look_when_asked(at: &Address, asked: &Receiver<()>, shared: &Shared) {
    let agent = match &at.tls {
        None => Ok(http::agent(PATIENCE)),
        Some(tls) => tls::agent(PATIENCE, tls).map_err(|error| format!("{error:#}")),
    };
    let mut known = Known::default();
    while asked.recv().is_ok() {
        let found = match &agent {
            Ok(agent) => look(agent, &at.url, &mut known).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        match found {
            Ok(page) => {
                *shared.page.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
                shared.ok.fetch_add(1, Relaxed);
            }
            Err(error) => {
                if shared.failed.fetch_add(1, Relaxed) == 0 {
                    tracing::warn!(url = at.url, "a service's own metrics: {error}");
                }
            }
        }
    }
}

/// Series that a replica has had so far, by a hash of their names and labels.
#[derive(Debug, Default)]
struct Known(HashSet<u64>);

impl Known {
    /// Whether values of this series are taken.
    fn takes(&mut self, family: &'static Family, labels: &[String]) -> bool {
        let mut hasher = DefaultHasher::new();
        (std::ptr::from_ref(family), labels).hash(&mut hasher);
        let series = hasher.finish();
        self.0.contains(&series) || (self.0.len() < SERIES_EVER_MAX && self.0.insert(series))
    }
}

fn look(agent: &ureq::Agent, url: &str, known: &mut Known) -> Result<Page, ureq::Error> {
    let mut response = agent.get(url).header("accept", "text/plain;version=0.0.4").call()?;
    let status = response.status();
    if !status.is_success() {
        return Err(ureq::Error::StatusCode(status.as_u16()));
    }
    let text = response.body_mut().with_config().limit(PAGE_MAX).read_to_string()?;
    Ok(taken(&text, known))
}

/// What is taken of a page.
fn taken(text: &str, known: &mut Known) -> Page {
    let (seen, mut left_out) = page::read(text);
    let mut values = Vec::with_capacity(seen.len());
    for one in seen {
        let Some(family) = family(&one) else {
            left_out += 1;
            continue;
        };
        let labels: Vec<String> = one.labels.into_iter().map(|(_, value)| value).collect();
        if known.takes(family, &labels) {
            values.push((family, labels, one.value));
        } else {
            left_out += 1;
        }
    }
    Page { values, left_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_change_at_every_look_come_to_an_end() {
        let mut known = Known::default();
        let page = |from: usize| {
            let line = |id| format!("p:busy{{id=\"{id}\"}} 1\n");
            let lines: String = (from..from + page::SERIES_MAX).map(line).collect();
            format!("p:steady 1\n{lines}")
        };
        let mut sums = (0, 0);
        for look in 0..20 {
            let Page { values, left_out } = taken(&page(look * page::SERIES_MAX), &mut known);
            assert_eq!(values[0].0.exported(), "p:steady");
            assert_eq!(values.len() as u64 + left_out, page::SERIES_MAX as u64 + 1);
            sums = (sums.0 + values.len() - 1, sums.1 + left_out);
        }
        assert_eq!(sums.0, SERIES_EVER_MAX - 1);
        assert!(sums.1 > 0);
    }
}
