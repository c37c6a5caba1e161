//! A program run once a request; exit code 0 is success.
//!
//! Its output is read and counted but not kept; of what it says on standard error the end becomes
//! the message of its failure. It runs in a process group of its own: a request that times out or
//! is cancelled takes everything that it started with it.

use std::process::Stdio;

use futures_util::FutureExt;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, ChildStdout},
};

use super::Driver;
use crate::{
    clock::mono_ns,
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::{Ask, Phase},
    record::row::Seen,
};

/// Bytes of standard error that are kept, its end: the last lines say why.
const SAID_BYTES: usize = 400;

/// Bytes of output read at a time.
const READ_BYTES: usize = 8 * 1024;

/// Reads after the end: what two full pipes (64 KiB each) can hold, and their ends.
const REST_READS: usize = 18;

/// The driver.
pub(crate) struct Command {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Driver for Command {
    type Connection = ();

    async fn prepare(job: &Job) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let mut environment = vec![("AIFB_LOAD".to_owned(), load.name.to_string())];
        let mut words = load.command.clone().unwrap_or_default().argv;
        if let Some(endpoint) = job.plan.endpoints.first() {
            let port = endpoint.port.to_string();
            for (word, name, value) in [
                ("{host}", "SERVICE_HOSTNAME", &endpoint.host),
                ("{port}", "SERVICE_PORT", &port),
                ("{url}", "SERVICE_URL", &endpoint.url),
            ] {
                words.iter_mut().for_each(|text| *text = text.replace(word, value));
                environment.push((name.to_owned(), value.clone()));
            }
        }
        if words.is_empty() {
            return Err(Fatal::usage(format!("load '{}': command is empty", load.name))
                .hint("command: {argv: [program, argument, …]}"));
        }
        let program = words.remove(0);
        Ok(Self { program, arguments: words, environment })
    }

    fn targets(&self) -> usize {
        1
    }

    async fn connect(&self, _: usize) -> Result<(), Fault> {
        Ok(())
    }

    fn usable(&self, (): &()) -> bool {
        false
    }

    fn operation(&self, _: Ask) -> &'static str {
        "command"
    }

    fn opens_ahead(&self) -> bool {
        false
    }

    async fn operate(&self, (): &mut (), ask: Ask, seen: &mut Seen) -> Result<(), Fault> {
        let id = ask.id.to_string();
        let phase = if ask.phase == Phase::Warmup { "warmup" } else { "measure" };
        seen.first_write_ns = Some(mono_ns());
        let child = tokio::process::Command::new(&self.program)
            .args(self.arguments.iter().map(|text| text.replace("{id}", &id)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("AIFB_REQUEST", &id)
            .env("AIFB_PHASE", phase)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| {
            Fault::new(Class::Spawn, format!("starting '{}': {error}", self.program))
        })?;
        let mut group = Group(child.id());
        let mut output =
            Output { out: child.stdout.take(), err: child.stderr.take(), said: Vec::new() };
        let status = loop {
            tokio::select! {
                biased;
                // What it leaves running may hold its output open: that is not waited for.
                status = child.wait() => break status,
                () = output.read(seen) => {}
            }
        };
        group.0 = None;
        let now = mono_ns();
        for _ in 0..REST_READS {
            if output.read(seen).now_or_never().is_none() {
                break;
            }
        }
        seen.end_ns = Some(now);
        seen.first_byte_ns = seen.first_byte_ns.or(Some(now));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Fault::new(
                Class::ExitStatus,
                format!("'{}' ended with {status}{}", self.program, output.last_words()),
            )),
            Err(error) => Err(Fault::new(
                Class::ExitStatus,
                format!("waiting for '{}': {error}", self.program),
            )),
        }
    }
}

/// Processes that end with the request.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Its leader has not been waited for, so the id is still its own.
            let _gone = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// What a program says.
struct Output {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    /// The end of what came on standard error.
    said: Vec<u8>,
}

impl Output {
    /// Reads what is there from either; never returns once both have ended.
    async fn read(&mut self, seen: &mut Seen) {
        let (mut out, mut err) = ([0; READ_BYTES], [0; READ_BYTES]);
        tokio::select! {
            biased;
            count = some(&mut self.out, &mut out) => match count {
                0 => self.out = None,
                count => {
                    seen.first_byte_ns = seen.first_byte_ns.or_else(|| Some(mono_ns()));
                    seen.reads = seen.reads.saturating_add(1);
                    seen.bytes_received += u64::try_from(count).unwrap_or(0);
                }
            },
            count = some(&mut self.err, &mut err) => match count {
                0 => self.err = None,
                count => {
                    self.said.extend_from_slice(err.get(..count).unwrap_or_default());
                    let spare = self.said.len().saturating_sub(SAID_BYTES);
                    self.said.drain(..spare);
                }
            },
        }
    }

    /// The end of standard error, behind a colon.
    fn last_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        match said.trim() {
            "" => String::new(),
            said => format!(": {said}"),
        }
    }
}

/// Bytes read; waits for ever where nothing more comes.
async fn some<R: tokio::io::AsyncRead + Unpin>(from: &mut Option<R>, buffer: &mut [u8]) -> usize {
    match from {
        Some(from) => from.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
