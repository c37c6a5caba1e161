//! A receiver of logs with Loki's words, limits and answers, over real sockets, with faults on
//! order: for tests and benchmarks. It records what came, in which order, and how often.

mod decode;
mod fault;
mod http;
mod limits;
mod store;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use decode::{Entry, Pushed, decode};
pub use fault::{Fault, Faults};
pub use store::{Store, Stream};

use fault::Dice;
use http::Request;

/// How a receiver behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port; 0: a free one.
    pub port: u16,
    /// What goes wrong.
    pub faults: Faults,
    /// Entries with this text in them are refused with 400, the others of the request stored.
    pub refuse: Option<String>,
    /// `Authorization` that requests must have.
    pub token: Option<String>,
    /// Keep numbers only, not the entries.
    pub counts_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { port: 0, faults: Faults::none(), refuse: None, token: None, counts_only: false }
    }
}

/// A running receiver; it ends with the process.
#[derive(Debug, Clone)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    dice: Mutex<Dice>,
    store: Mutex<Store>,
    tenants: Mutex<Vec<String>>,
    /// Nobody listens, and open connections are cut.
    down: AtomicBool,
}

impl Receiver {
    /// Starts one on the loopback address.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", config.port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            dice: Mutex::new(config.faults.clone().dice()),
            store: Mutex::new(Store::new(config.counts_only)),
            tenants: Mutex::default(),
            down: AtomicBool::new(false),
            config,
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || accept(listener, address, &of_thread));
        Ok(Self { address, shared })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has received so far.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.shared.store)
    }

    /// Tenants of the requests so far.
    #[must_use]
    pub fn tenants(&self) -> Vec<String> {
        lock(&self.shared.tenants).clone()
    }

    /// Takes it off the network (`true`), or back.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            // Wakes the one that accepts, so that the port closes now.
            let _refused = TcpStream::connect(self.address);
        }
    }

    /// Takes it off the network for this long, and returns at once.
    pub fn down_for(&self, time: Duration) {
        let receiver = self.clone();
        receiver.set_down(true);
        thread::spawn(move || {
            thread::sleep(time);
            receiver.set_down(false);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(first: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listener = Some(first);
    loop {
        if shared.down.load(Ordering::SeqCst) {
            listener = None;
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(address).ok();
            continue;
        };
        let Ok((stream, _)) = open.accept() else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A broken connection is the sender's to notice.
            let _broken = serve(stream, &shared);
        });
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = http::read(&mut stream, &mut buffer)? {
        if shared.down.load(Ordering::SeqCst) {
            return reset(&stream);
        }
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/summary") {
            http::answer(&mut stream, 200, &lock(&shared.store).summary().to_string())?;
            continue;
        }
        if request.path != "/loki/api/v1/push" || request.method != "POST" {
            http::answer(&mut stream, 404, "no such page")?;
            continue;
        }
        if !push(&mut stream, &request, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Stores and answers, or whatever the dice say; whether the connection goes on.
fn push(stream: &mut TcpStream, request: &Request, shared: &Shared) -> io::Result<bool> {
    let fault = lock(&shared.dice).draw();
    let answer = |stream: &mut TcpStream, status: u16, text: &str| {
        *lock(&shared.store).answers.entry(status).or_default() += 1;
        http::answer(stream, status, text).map(|()| true)
    };
    let none = || *lock(&shared.store).answers.entry(0).or_default() += 1;
    match fault {
        Some(Fault::Status(status)) => return answer(stream, status, "a fault on order"),
        Some(Fault::Reset) => {
            none();
            return reset(stream).map(|()| false);
        }
        _ => {}
    }
    let (status, text) = store(request, shared);
    match fault {
        Some(Fault::StoredStatus(status)) => answer(stream, status, "a fault on order"),
        Some(Fault::StoredReset) => {
            none();
            reset(stream).map(|()| false)
        }
        Some(Fault::Silent(time)) => {
            none();
            thread::sleep(time);
            Ok(false)
        }
        Some(Fault::Slow(time)) => {
            thread::sleep(time);
            answer(stream, status, &text)
        }
        _ => answer(stream, status, &text),
    }
}

/// Closing with unsent data thrown away: the other side sees a reset.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Stores what is right with a request; status and text of the answer.
fn store(request: &Request, shared: &Shared) -> (u16, String) {
    if let Some(token) = &shared.config.token
        && request.header("authorization") != Some(&format!("Bearer {token}"))
    {
        return (401, "no such token".into());
    }
    if let Some(tenant) = request.header("x-scope-orgid") {
        lock(&shared.tenants).push(tenant.to_owned());
    }
    let kind = request.header("content-type").unwrap_or_default();
    let streams = match decode(kind, &request.body) {
        Err(reason) => return (400, reason),
        Ok(streams) if streams.is_empty() => return (422, "no streams".into()),
        Ok(streams) => streams,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let refused = |entry: &Entry, newest: u64| {
        let text = shared.config.refuse.as_ref().filter(|text| entry.text.contains(*text));
        text.map(|text| format!("an entry with '{text}' is not taken"))
            .or_else(|| limits::entry(entry, now, newest))
    };
    let mut reason = None;
    for pushed in streams {
        let found = match limits::stream(&pushed) {
            Some(reason) => Some(reason),
            None => lock(&shared.store).add(pushed, now, refused),
        };
        reason = reason.or(found);
    }
    reason.map_or((204, String::new()), |reason| (400, reason))
}
