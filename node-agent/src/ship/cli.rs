//! The command `ship`: the logs of a folder, or of a run after its end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aifb_schema::{
    logs::LogLedger,
    names::{exit, file},
    recipe::{LogLevel, Logging, LokiEncoding},
    time::When,
    units::Span,
};
use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use super::{
    Config, Handle,
    push::{self, is_token},
    run_folder,
    source::{LABELS_MAX, check_labels},
};
use crate::{
    disk,
    logging::SharedLogging,
    problem::{self, complain},
    sys,
};

/// How often the command looks whether the shipper has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time for the rest after a signal.
const LAST: Duration = Duration::from_secs(5);

/// Arguments of `ship`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aifb-agent ship /scratch/logs --loki http://monitor:3100 --label team=llm --follow
  aifb-agent ship aifb-runs/local-20261127T120000Z-1a2b --loki http://monitor:3100
Exit code 0: all lines are processed; 5: some are not sent yet, and the next call continues there.")]
pub(crate) struct Arguments {
    /// Folder with *.log, *.out and *.err files, or a run folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Loki's URL, such as http://monitor:3100
    #[arg(long, value_name = "URL")]
    loki: String,
    /// Tenant (header X-Scope-OrgID)
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// File with a bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Environment variable with a bearer token
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// Encoding of the requests
    #[arg(long = "loki-encoding", value_name = "FORM", default_value = "protobuf")]
    encoding: Encoding,
    /// Additional label for every stream; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Checkpoint file [default: DIR/.log-checkpoint.jsonl]
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Run until SIGTERM or SIGINT
    #[arg(long, conflicts_with = "until_idle")]
    follow: bool,
    /// End when everything is sent and no file grows (the default)
    #[arg(long)]
    until_idle: bool,
    /// Without --follow: give up after this time without progress
    #[arg(long, value_name = "TIME", default_value = "60s")]
    patience: Span,
    /// Drop lines below this level: debug, info, warning, error
    #[arg(long, value_name = "LEVEL", default_value = "debug", value_parser = level)]
    level: LogLevel,
    /// Drop lines after this time, such as 2026-12-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Print the ledger as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Encoding {
    Protobuf,
    Json,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn level(text: &str) -> Result<LogLevel, String> {
    let words = serde_json::Value::from(text);
    serde_json::from_value(words).map_err(|_| "expected debug, info, warning or error".into())
}

/// Runs the command; its exit code.
pub(crate) fn main(arguments: &Arguments) -> i32 {
    match ship(arguments) {
        Ok(ledger) => {
            print(&ledger, arguments.json);
            if ledger.is_complete() { exit::OK } else { exit::INCOMPLETE }
        }
        Err(error) => {
            let folder = arguments.folder.display();
            complain(&format!("{}: shipping the logs in '{folder}': {error:#}", problem::PROGRAM));
            complain("  hint: see aifb-agent ship --help");
            exit::USAGE
        }
    }
}

fn ship(arguments: &Arguments) -> anyhow::Result<LogLedger> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    let rest = arguments.loki.strip_prefix("http://");
    let rest = rest.or_else(|| arguments.loki.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains('@')) {
        bail!("--loki '{}': expected http://host:port or https://host:port", arguments.loki);
    }
    let mut whole = LogLedger::default();
    for config in configs(arguments)? {
        let node = config.checkpoint.with_file_name(file::LOG_LEDGER);
        let handle = super::start(config)?;
        let stopped = wait(&handle, arguments, &signals);
        let ledger = handle.ledger();
        if is_run(&arguments.folder) {
            let text = serde_json::to_vec_pretty(&ledger)?;
            disk::replace(&node, 0o600, &text)
                .with_context(|| format!("writing '{}'", node.display()))?;
        }
        whole.url = ledger.url;
        whole.streams.extend(ledger.streams);
        whole.files_left_out += ledger.files_left_out;
        whole.trouble = ledger.trouble.or(whole.trouble);
        if stopped {
            break;
        }
    }
    Ok(whole)
}

fn is_run(folder: &Path) -> bool {
    folder.join(file::RUN).is_file()
}

fn token(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    let (from, token) = match (&arguments.token_env, &arguments.token_file) {
        (Some(name), _) => {
            let from = format!("reading the token from variable '{name}'");
            let token = std::env::var(name).with_context(|| from.clone())?;
            (from, token)
        }
        (None, Some(path)) => {
            let from = format!("reading token file '{}'", path.display());
            let token = disk::read_secret(path).with_context(|| from.clone())?;
            (from, token)
        }
        (None, None) => return Ok(None),
    };
    let token = token.trim();
    if !is_token(token) {
        bail!("{from}: it contains no token");
    }
    Ok(Some(token.to_owned()))
}

/// What to ship: a folder as it is, or each node's part of a run.
fn configs(arguments: &Arguments) -> anyhow::Result<Vec<Config>> {
    let folder = &arguments.folder;
    if !folder.is_dir() {
        bail!("not a folder");
    }
    let target = push::Target {
        url: arguments.loki.clone(),
        tenant: arguments.tenant.clone(),
        token: token(arguments)?,
        encoding: match arguments.encoding {
            Encoding::Protobuf => LokiEncoding::Protobuf,
            Encoding::Json => LokiEncoding::Json,
        },
    };
    let logging = Logging { level: arguments.level, until: arguments.until };
    let config = |checkpoint: PathBuf, quarantine: PathBuf| Config {
        checkpoint,
        quarantine,
        target: target.clone(),
        logging: SharedLogging::new(Some(logging)),
        sources: Vec::new(),
        folder: None,
        until_idle: !arguments.follow,
    };
    if is_run(folder) {
        if arguments.follow || arguments.checkpoint.is_some() || !arguments.labels.is_empty() {
            bail!("a run is sent with its own labels and checkpoints, without --follow");
        }
        let nodes = run_folder::nodes(folder)?.into_iter().map(|node| {
            let named = |name: &str| node.folder.join(name);
            let mut config = config(named(file::LOG_CHECKPOINT), named(file::LOG_QUARANTINE));
            config.sources = node.sources;
            config
        });
        return Ok(nodes.collect());
    }
    let mut labels: BTreeMap<String, String> = arguments.labels.iter().cloned().collect();
    labels.entry("job".into()).or_insert_with(|| "aifb".into());
    let service = labels.get("service").cloned().unwrap_or_else(|| "aifb".into());
    labels.entry("service_name".into()).or_insert(service);
    if labels.len() >= LABELS_MAX {
        bail!("--label: at most {} in addition to job, service_name and file", LABELS_MAX - 3);
    }
    check_labels(&labels).map_err(anyhow::Error::msg)?;
    let checkpoint =
        arguments.checkpoint.clone().unwrap_or_else(|| folder.join(".log-checkpoint.jsonl"));
    let quarantine = checkpoint.with_extension("quarantine.jsonl");
    let mut config = config(checkpoint, quarantine);
    config.folder = Some((folder.clone(), labels));
    Ok(vec![config])
}

/// Waits until it ends by itself, nothing could be sent for too long, or a signal says to end;
/// whether it was a signal.
fn wait(handle: &Handle, arguments: &Arguments, signals: &SigSet) -> bool {
    let (mut moved, mut since) = (0, Instant::now());
    while !handle.ended() {
        if sys::wait_signal(signals, LOOK_EVERY).is_some() {
            handle.stop(LAST);
            let until = Instant::now() + LAST;
            while !handle.ended() && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
            return true;
        }
        let sent: u64 = handle.ledger().streams.iter().map(|stream| stream.bytes_done).sum();
        if sent != moved {
            (moved, since) = (sent, Instant::now());
        }
        if !arguments.follow && since.elapsed() >= arguments.patience.get() {
            return false;
        }
    }
    false
}

fn print(ledger: &LogLedger, json: bool) {
    if json {
        if let Ok(text) = serde_json::to_string(ledger) {
            problem::print(&text);
        }
        return;
    }
    for stream in &ledger.streams {
        problem::print(&format!(
            "{}: {} lines read = {} acknowledged + {} quarantined + {} spooled + {} filtered; {} \
             bytes not sent",
            stream.file,
            stream.lines_read,
            stream.lines_acknowledged,
            stream.lines_quarantined,
            stream.lines_spooled,
            stream.lines_filtered,
            stream.bytes_unsent(),
        ));
    }
    if ledger.files_left_out > 0 {
        complain(&format!(
            "{}: {} files or folders were skipped: too many, unreadable, or with a name that is not UTF-8",
            problem::PROGRAM,
            ledger.files_left_out
        ));
    }
    if let Some(trouble) = &ledger.trouble {
        complain(&format!("{}: sending to '{}': {trouble}", problem::PROGRAM, ledger.url));
    }
}
