//! Servers that mean harm: whatever they send, a request ends within its limit, in bounded memory,
//! with the class that says what happened.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aifb_schema::result::LoadResult;
use support::measured;

/// Largest resident set of a client: the program itself takes some 15 MiB when built for tests,
/// an event may have 16 MiB, and a buffer that grows is there twice.
const RSS_MAX: u64 = 80 << 20;

/// Limit of a request that ends by itself: not reached on a busy machine either.
const FAR: &str = "30s";

/// Limit of a request that does not end by itself.
const NEAR: &str = "2s";

/// What the server does with a connection whose request it has read.
type Attack = fn(&mut TcpStream) -> io::Result<()>;

/// A server with one answer to everything.
struct Hostile {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Hostile {
    fn start(attack: Attack) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // Ends with the process; each of its threads ends when its client closes.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(stream, attack));
            }
        });
        Self { address, connections }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers each request of a connection.
fn serve(mut stream: TcpStream, attack: Attack) {
    // No client here reads so slowly: a thread that outlives its client ends.
    let limit = Some(Duration::from_secs(20));
    stream.set_write_timeout(limit).expect("a time limit");
    stream.set_read_timeout(limit).expect("a time limit");
    stream.set_nodelay(true).expect("no delay");
    // An error says that the client has gone, which is what most attacks wait for.
    while request(&mut stream).is_ok() && attack(&mut stream).is_ok() {}
}

/// Reads one request: its head, and as much body as that announces.
fn request(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
    io::copy(&mut stream.take(length), &mut io::sink()).map(|_| ())
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tok \"}}]}\n\n";

fn say(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())
}

fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", bytes.len())?;
    stream.write_all(bytes)?;
    say(stream, "\r\n")
}

/// Writes `piece` until the client goes; 1 GiB at most.
fn endless(stream: &mut TcpStream, piece: &str) -> io::Result<()> {
    let many = piece.repeat((1 << 20) / piece.len());
    (0..1024).try_for_each(|_| say(stream, &many))
}

/// The same in the chunks of a stream.
fn endless_stream(stream: &mut TcpStream, piece: &str) -> io::Result<()> {
    let many = piece.repeat((1 << 18) / piece.len());
    (0..4096).try_for_each(|_| chunk(stream, many.as_bytes()))
}

/// Writes one byte every 20 ms, until the client goes.
fn drip(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    text.bytes().cycle().take(1000).try_for_each(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(&[byte])
    })
}

fn wait_for_the_end(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink())?;
    Err(io::ErrorKind::BrokenPipe.into())
}

fn reset(stream: &mut TcpStream) -> io::Result<()> {
    // No lingering: what is not sent is thrown away and the peer gets a reset.
    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}

fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..times).try_for_each(|_| packed.write_all(bytes)).expect("pack");
    packed.finish().expect("pack")
}

/// The head of an answer is wrong: name, attack, class.
const HEADS: &[(&str, Attack, &str)] = &[
    (
        "endless header",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\nx: ")?;
            endless(s, "a")
        },
        "parse",
    ),
    (
        "endless headers",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\n")?;
            endless(s, "x-more: and more\r\n")
        },
        "parse",
    ),
    (
        "endless status line",
        |s| {
            say(s, "HTTP/1.1 200 ")?;
            endless(s, "O")
        },
        "parse",
    ),
    ("binary garbage", |s| endless(s, "\u{0}\u{1}\u{fffd}\u{7f}"), "parse"),
    (
        "another protocol",
        |s| {
            say(s, "SSH-2.0-OpenSSH_9.2\r\n")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "negative length",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nx")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "two lengths",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nxyz")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "no number as length",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nxy")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "endless interim answers",
        |s| endless(s, "HTTP/1.1 102 Processing\r\n\r\n"),
        "parse or timeout_total",
    ),
    (
        "dripping head",
        |s| drip(s, "HTTP/1.1 200 OK\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
        "timeout_total",
    ),
    ("silence", wait_for_the_end, "timeout_first_byte"),
    ("reset", reset, "reset_before_response"),
    (
        "redirection to itself",
        |s| say(s, "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"),
        "status_3xx",
    ),
];

/// The frame of a body is wrong.
const BODIES: &[(&str, Attack, &str)] = &[
    (
        "chunk beyond 64 bits",
        |s| {
            say(s, STREAM)?;
            say(s, "fffffffffffffffff\r\nxx")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "chunk of 16 EiB",
        |s| {
            say(s, STREAM)?;
            say(s, "ffffffffffffffff\r\n")?;
            endless(s, ": ping\n\n")
        },
        "timeout_total",
    ),
    (
        "chunk without a size",
        |s| {
            say(s, STREAM)?;
            say(s, "zz\r\nxx\r\n")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "endless chunk extension",
        |s| {
            say(s, STREAM)?;
            say(s, "1;x=")?;
            endless(s, "y")
        },
        "parse",
    ),
    (
        "endless trailers",
        |s| {
            say(s, STREAM)?;
            say(s, "0\r\n")?;
            endless(s, "x-more: and more\r\n")
        },
        "parse",
    ),
    (
        "length of 4 EiB",
        |s| {
            say(
                s,
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 4611686018427387904\r\n\r\n",
            )?;
            endless(s, ": ping\n\n")
        },
        "timeout_total",
    ),
    (
        "dripping body",
        |s| {
            say(s, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")?;
            drip(s, ": ping\n\n")
        },
        "timeout_total",
    ),
    (
        "reset in the middle",
        |s| {
            say(s, STREAM)?;
            chunk(s, TOKEN.as_bytes())?;
            // The client has to have read it, or the reset would overtake it.
            std::thread::sleep(Duration::from_millis(500));
            reset(s)
        },
        "truncated_stream",
    ),
    (
        "end in the middle",
        |s| {
            say(s, STREAM)?;
            chunk(s, TOKEN.as_bytes())?;
            Err(io::ErrorKind::BrokenPipe.into())
        },
        "truncated_stream",
    ),
];

/// The body is framed well; what it says is wrong.
const STREAMS: &[(&str, Attack, &str)] = &[
    (
        "line of 1 GiB",
        |s| {
            say(s, STREAM)?;
            chunk(s, b"data: ")?;
            endless_stream(s, "x")
        },
        "parse",
    ),
    (
        "event of 1 GiB in short lines",
        |s| {
            say(s, STREAM)?;
            endless_stream(s, &format!("data: {}\n", "x".repeat(4000)))
        },
        "parse",
    ),
    (
        "endless comments",
        |s| {
            say(s, STREAM)?;
            endless_stream(s, ": ping\n\n")
        },
        "timeout_total",
    ),
    (
        "endless answer after the end",
        |s| {
            say(s, STREAM)?;
            chunk(s, TOKEN.as_bytes())?;
            chunk(s, b"data: [DONE]\n\n")?;
            endless_stream(s, ": ping\n\n")
        },
        "timeout_total",
    ),
    (
        "silence after the end",
        |s| {
            say(s, STREAM)?;
            chunk(s, TOKEN.as_bytes())?;
            chunk(s, b"data: [DONE]\n\n")?;
            wait_for_the_end(s)
        },
        "timeout_total",
    ),
    (
        "nested without end",
        |s| {
            say(s, STREAM)?;
            chunk(s, format!("data: {}\n\n", "[".repeat(1 << 20)).as_bytes())?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "an error of eight million parts",
        |s| {
            say(s, STREAM)?;
            chunk(s, format!("data: {{\"error\":[{}0]}}\n\n", "0,".repeat(7 << 20)).as_bytes())?;
            wait_for_the_end(s)
        },
        "error_event_in_200",
    ),
    (
        "five million choices",
        |s| {
            say(s, STREAM)?;
            chunk(
                s,
                format!("data: {{\"choices\":[{}{{}}]}}\n\n", "{},".repeat(5 << 20)).as_bytes(),
            )?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "no text",
        |s| {
            say(s, STREAM)?;
            chunk(s, b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n")?;
            wait_for_the_end(s)
        },
        "parse",
    ),
    (
        "an error page without end",
        |s| {
            say(s, "HTTP/1.1 500 Oh\r\n\r\n")?;
            endless(s, "no ")
        },
        "timeout_total",
    ),
];

fn run(driver: &str, engine: &[&str], server: &Hostile, requests: &str, limit: &str) -> LoadResult {
    let url = server.url();
    let options = [
        "--driver",
        driver,
        "--url",
        &url,
        "--concurrency",
        "1",
        "--requests",
        requests,
        "--timeout",
        limit,
        "--drain",
        "120s",
    ];
    // Plain HTTP has no model, and an option without meaning is refused.
    let of_a_model: &[&str] =
        if driver == "http" { &[] } else { &["--model", "m", "--output-tokens", "4"] };
    measured(&[&options[..], of_a_model, engine].concat())
}

/// The ways in which bytes are read: all have to stand it.
const ENGINES: &[&[&str]] = &[&["--engine", "hyper"], &["--engine", "raw"]];

fn stand(driver: &str, attacks: &[(&str, Attack, &str)]) {
    let mut wrong = Vec::new();
    for (name, attack, class) in attacks {
        let server = Hostile::start(*attack);
        for engine in ENGINES {
            // The first request must not harm the next; one that has to be waited for comes once.
            let (count, limit) = if class.contains("timeout") { (1, NEAR) } else { (2, FAR) };
            let result = run(driver, engine, &server, &count.to_string(), limit);
            let right = |class: &str| result.errors.get(class) == Some(&count);
            if result.errors.len() != 1 || !class.split(" or ").any(right) {
                wrong.push(format!(
                    "{engine:?}, {name}: {:?} {:?}",
                    result.counts, result.error_examples
                ));
            }
            let rss = result.client.peak_rss_bytes;
            if !(1 << 20..RSS_MAX).contains(&rss) {
                wrong.push(format!("{engine:?}, {name}: {rss} bytes resident"));
            }
        }
    }
    assert!(wrong.is_empty(), "{driver}:\n{}", wrong.join("\n"));
}

#[test]
fn heads_for_chat() {
    stand("openai-chat", HEADS);
}

#[test]
fn heads_for_http() {
    stand("http", HEADS);
}

#[test]
fn bodies_for_chat() {
    stand("openai-chat", BODIES);
}

#[test]
fn bodies_for_http() {
    stand("http", BODIES);
}

#[test]
fn streams() {
    stand("openai-chat", STREAMS);
}

/// A second answer behind the first belongs to no request: the connection is not used again.
#[test]
fn an_answer_too_many_is_nobodys() {
    let server = Hostile::start(|s| {
        say(
            s,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
        )
    });
    for engine in ENGINES {
        let before = server.connections.load(Ordering::SeqCst);
        let result = run("http", engine, &server, "5", FAR);
        assert_eq!((result.counts.ok, result.counts.failed), (5, 0), "{:?}", result.errors);
        // One may have been opened ahead, and not more than one for each request.
        let opened = server.connections.load(Ordering::SeqCst) - before;
        assert!((5..=6).contains(&opened), "{opened} connections for 5 requests");
    }
}

/// 256 MiB of nothing, packed into 256 KiB, that nobody asked for.
#[test]
fn packed_answers_are_not_unpacked_into_memory() {
    let server = Hostile::start(|s| {
        let body = gzip(&[b'\n'; 1 << 20], 256);
        say(s, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n")?;
        write!(s, "content-length: {}\r\n\r\n", body.len())?;
        s.write_all(&body)
    });
    for engine in ENGINES {
        let result = run("openai-chat", engine, &server, "1", FAR);
        assert_eq!((result.counts.ok, result.counts.failed), (0, 1), "{:?}", result.errors);
        let rss = result.client.peak_rss_bytes;
        assert!(rss < RSS_MAX, "{rss} bytes resident");
    }
}
