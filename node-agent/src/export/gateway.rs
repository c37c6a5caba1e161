//! The summary of the run on a Pushgateway: pushed by the coordinator after each load, as the
//! whole of the run's group, and deleted when the run is stopped or fails.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use aifb_schema::{
    gateway::{self, BUCKETS_SECONDS, Summed},
    names::file,
    result::LoadResult,
};
use aifb_stats::histogram::of_logs;
use tokio::sync::oneshot;

use crate::http;

/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(2);

/// Attempts of one push; the next load pushes everything anew.
const TRIES: u32 = 3;

/// Orders that may wait: a load takes longer than a push.
const QUEUE: usize = 16;

/// Results in one summary; a gateway keeps all of it in memory.
const RESULTS_MAX: usize = 200;

/// Bytes of a file of a result that are read: a worker's histograms have some 100 KiB.
const FILE_MAX: u64 = 16 << 20;

enum Order {
    Push,
    Delete,
}

/// The way to the gateway's thread.
pub(crate) struct Gateway {
    orders: Option<SyncSender<Order>>,
    ended: oneshot::Receiver<()>,
}

impl Gateway {
    /// Starts the thread for the group of this run at `url`.
    pub(crate) fn start(url: &str, run_id: &str, run_dir: &Path) -> Self {
        let (orders, given) = sync_channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let path = gateway::group_path(gateway::JOB, run_id);
        let group = Group {
            agent: http::agent(PATIENCE),
            url: format!("{}{path}", url.trim_end_matches('/')),
            run_id: run_id.to_owned(),
            loads: run_dir.join(file::LOAD),
        };
        thread::spawn(move || {
            group.carry_out(&given);
            let _nobody_waits = end.send(());
        });
        Self { orders: Some(orders), ended }
    }

    /// Pushes all results that there are.
    pub(crate) fn push(&self) {
        self.give(Order::Push);
    }

    /// Deletes the group; it is the last order.
    pub(crate) fn delete(&mut self) {
        self.give(Order::Delete);
        self.orders = None;
    }

    /// Waits for the thread, at most so long.
    pub(crate) async fn finish(mut self, patience: Duration) {
        self.orders = None;
        let _ended_or_late = tokio::time::timeout(patience, &mut self.ended).await;
    }

    fn give(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.try_send(order).is_err()
        {
            tracing::warn!("the Pushgateway does not respond; a push was skipped");
        }
    }
}

struct Group {
    agent: ureq::Agent,
    url: String,
    run_id: String,
    loads: PathBuf,
}

impl Group {
    fn carry_out(&self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            let told = (0..TRIES).find_map(|attempt| {
                thread::sleep(Duration::from_millis(100) * attempt);
                match self.ask(&order) {
                    Ok(()) => Some(()),
                    Err(error) => {
                        // Without the URL: one from the environment may hold a password.
                        tracing::warn!("Pushgateway: {error}");
                        None
                    }
                }
            });
            if told.is_some() {
                tracing::info!("pushed");
            }
        }
    }

    fn ask(&self, order: &Order) -> Result<(), ureq::Error> {
        let response = match order {
            Order::Delete => self.agent.delete(&self.url).call()?,
            Order::Push => {
                let page = gateway::page(&self.run_id, &results(&self.loads));
                let put = self.agent.put(&self.url).header("content-type", gateway::CONTENT_TYPE);
                put.send(page)?
            }
        };
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(ureq::Error::StatusCode(status.as_u16())) }
    }
}

/// The results of a run, in the order of their folders.
fn results(loads: &Path) -> Vec<Summed> {
    let below = |folder: PathBuf| {
        let mut found: Vec<PathBuf> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    };
    let repeats = below(loads.to_owned()).into_iter().flat_map(below).flat_map(below);
    repeats.filter_map(|repeat| summed(&repeat)).take(RESULTS_MAX).collect()
}

/// One result, with the buckets of its workers' histograms where all of them are there.
fn summed(repeat: &Path) -> Option<Summed> {
    let result: LoadResult = serde_json::from_str(&read(&repeat.join(file::RESULT))?).ok()?;
    let logs =
        (0..result.plan.workers).map(|rank| read(&repeat.join(format!("worker-{rank}.hdr"))));
    let whole = of_logs(logs, "total");
    Some(Summed { result, buckets: whole.map(|sum| sum.cumulative(&BUCKETS_SECONDS)) })
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_is_put_and_deleted() {
        use std::sync::{Arc, Mutex};

        use crate::export::fixture::{Reply, Stand};

        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let of_server = Arc::clone(&asked);
        let stand = Stand::start(move |number, request| {
            of_server.lock().unwrap().push(request.line.clone());
            // One failure: it is tried again.
            Reply::Status(if number == 0 { 503 } else { 202 }, String::new())
        });
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://{}/", stand.address);
        let mut gateway = Gateway::start(&url, "local-1", folder.path());
        gateway.push();
        gateway.delete();
        gateway.push();
        gateway.finish(Duration::from_secs(30)).await;
        let path = "/metrics/job/ai_factory_benchmark/instance/local-1 HTTP/1.1";
        let (put, delete) = (format!("PUT {path}"), format!("DELETE {path}"));
        assert_eq!(*asked.lock().unwrap(), [put.clone(), put, delete]);
    }
}
