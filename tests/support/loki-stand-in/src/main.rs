//! `loki-stand-in serve`: a receiver for scripts; `GET /summary` tells what came.
//! `loki-stand-in write`: log files that grow at a rate.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aifb_schema::units::{Size, Span};
use clap::Parser;
use loki_stand_in::{Config, Faults, Receiver};

/// A receiver of logs with Loki's words, and a writer of logs, for tests.
#[derive(Debug, Parser)]
#[command(name = "loki-stand-in")]
enum Command {
    /// Receive until killed; the first line of output is the URL
    Serve {
        /// Port [default: a free one]
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Share of requests that meet a fault: 429, 500, 260, resets, slowness
        #[arg(long, default_value_t = 0.0)]
        faults: f64,
        /// Where the dice begin
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Refuse entries with this text in them
        #[arg(long)]
        refuse: Option<String>,
        /// Be off the network from this time on …
        #[arg(long, requires = "down_for")]
        down_at: Option<Span>,
        /// … for this long
        #[arg(long, requires = "down_at")]
        down_for: Option<Span>,
        /// Keep numbers only
        #[arg(long)]
        counts_only: bool,
    },
    /// Write log files that grow
    Write {
        /// Folder, made if need be
        folder: PathBuf,
        /// Files, each with a writer of its own
        #[arg(long, default_value_t = 4)]
        files: u32,
        /// Bytes a second, over all files
        #[arg(long, default_value = "20MB")]
        rate: Size,
        /// For this long
        #[arg(long = "for", default_value = "20s")]
        time: Span,
        /// Bytes of a line
        #[arg(long, default_value_t = 120)]
        line: usize,
    },
}

/// Bytes of text that lines are filled from.
const FILLER: usize = 64 * 1024;

/// Pause between two bursts of a writer.
const BURST: Duration = Duration::from_millis(5);

fn main() -> io::Result<()> {
    match Command::parse() {
        Command::Serve { port, faults, seed, refuse, down_at, down_for, counts_only } => {
            let faults = Faults::mixed(faults, seed);
            let config = Config { port, faults, refuse, counts_only, ..Config::default() };
            let receiver = Receiver::start(config)?;
            let mut out = io::stdout();
            writeln!(out, "{}", receiver.url())?;
            out.flush()?;
            if let (Some(at), Some(time)) = (down_at, down_for) {
                thread::sleep(at.get());
                receiver.down_for(time.get());
            }
            loop {
                thread::park();
            }
        }
        Command::Write { folder, files, rate, time, line } => {
            fs::create_dir_all(&folder)?;
            let each = rate.0 / u64::from(files.max(1));
            let writers: Vec<_> = (0..files)
                .map(|number| {
                    let path = folder.join(format!("{number}.log"));
                    thread::spawn(move || write(&path, each, time.get(), line))
                })
                .collect();
            let mut lines = 0;
            for writer in writers {
                lines += writer.join().map_err(|_| io::Error::other("a writer panicked"))??;
            }
            writeln!(io::stdout(), "{lines}")
        }
    }
}

/// Words as logs have them, which compress as logs do; `line` more bytes than are begun at.
fn filler(line: usize) -> String {
    const WORDS: [&str; 12] = [
        "request",
        "GET",
        "/v1/chat/completions",
        "200",
        "OK",
        "avg_prompt_throughput=",
        "tokens/s",
        "Running:",
        "reqs,",
        "engine",
        "cache",
        "usage=",
    ];
    let mut random = 1_u64;
    let mut text = String::new();
    while text.len() < FILLER + line {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = usize::try_from(random >> 33).unwrap_or(0) % WORDS.len();
        text.push_str(WORDS.get(word).unwrap_or(&""));
        text.push_str(&format!("{:x} ", random >> 52));
    }
    text
}

/// Writes lines at `rate` bytes a second; how many.
fn write(path: &Path, rate: u64, time: Duration, line: usize) -> io::Result<u64> {
    let mut log = OpenOptions::new().append(true).create(true).open(path)?;
    let begun = Instant::now();
    let (mut lines, mut written) = (0_u64, 0_u64);
    let filler = filler(line);
    while begun.elapsed() < time {
        let due = u128::from(rate) * begun.elapsed().as_nanos() / 1_000_000_000;
        let mut burst = String::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        while u128::from(written) + (burst.len() as u128) < due {
            let head = format!("INFO n={lines} t={now} ");
            burst.push_str(&head);
            let from = usize::try_from(lines * 7919).unwrap_or(0) % FILLER;
            let rest = line.saturating_sub(head.len() + 1);
            burst.push_str(filler.get(from..from + rest).unwrap_or_default());
            burst.push('\n');
            lines += 1;
        }
        log.write_all(burst.as_bytes())?;
        written += burst.len() as u64;
        thread::sleep(BURST);
    }
    Ok(lines)
}
