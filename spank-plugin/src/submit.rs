//! At submission: let the launcher check the recipe and send its snapshot along with the job.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use aifb_schema::names::env;

use crate::config::Config;
use crate::message::{Message, duration};
use crate::options::Options;
use crate::start::Wait;
use crate::sys::process::{self, DefaultActions, Ended, Program, StartError};
use crate::sys::spank::Spank;

/// How long `prepare` may take. It reads one small file; a file system that hangs longer than
/// this would also hang the submission.
const PREPARE_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of a snapshot. Slurm silently loses a variable of 128 KiB or more (tried), so a bound
/// well below; the launcher's own is smaller still.
pub(crate) const SNAPSHOT_BYTES: usize = 64 * 1024;

/// Runs `launcher prepare` and returns the snapshot that it prints. Its messages go to standard
/// error by themselves.
///
/// # Errors
/// Why there is no snapshot.
pub(crate) fn prepare(config: &Config, options: &Options) -> Result<CString, Message> {
    let Some(recipe) = &options.recipe else {
        return Err(Message::new("using an --aifb option: there is no --aifb-recipe"));
    };
    let mut args = vec![c"prepare".to_owned(), joined(c"--recipe=", recipe)];
    args.extend(options.sets.iter().map(|set| joined(c"--set=", set)));
    args.extend(options.runs.iter().map(|runs| joined(c"--runs=", runs)));
    args.extend(options.wait.iter().map(|wait| joined(c"--wait=", wait)));
    let mut environment = process::environ();
    environment.extend(for_launcher(config));

    let _kept = DefaultActions::of(process::CHILD_SIGNAL);
    let failed = |cause: String| {
        let path = config.launcher.to_string_lossy();
        Message::new(format!("checking the recipe with '{path} prepare': {cause}"))
    };
    let (output, write_end) = process::pipe().map_err(|err| failed(err.to_string()))?;
    let program = Program { path: &config.launcher, args: &args, env: &environment };
    let child =
        process::start(&program, write_end.as_fd()).map_err(|err| not_started(config, &err))?;
    drop(write_end);

    let deadline = Instant::now() + PREPARE_DEADLINE;
    let output = match read_all(output, deadline) {
        Ok(output) => output,
        // The cause is why reading stopped, however the launcher ends: without a reader it may end
        // by SIGPIPE before it is killed, or by an error of its own.
        Err(cause) => {
            child.kill();
            return Err(failed(cause));
        }
    };
    let Some(ended) = child.wait_until(deadline) else {
        child.kill();
        return Err(failed("it does not exit".to_owned()));
    };
    match ended {
        Ended::Code(0) => snapshot(&output).map_err(|cause| failed(cause.into())),
        // The launcher has printed the errors of the recipe.
        Ended::Code(2) => Err(Message::new("the job was not submitted")),
        Ended::Code(code) => Err(failed(format!("it ended with code {code}"))),
        Ended::Signal(signal) => Err(failed(format!("ended by signal {signal}"))),
    }
}

/// Puts the snapshot where the job's first node finds it.
///
/// # Errors
/// Slurm refuses.
pub(crate) fn send_along(spank: &Spank<'_>, snapshot: &CStr, wait: Wait) -> Result<(), Message> {
    for (name, value) in [(env::CONTROL_SNAPSHOT, snapshot), (env::CONTROL_WAIT, wait.as_c_str())] {
        let set = CString::new(name).map(|name| spank.control_setenv(&name, value));
        if let Ok(Err(refused)) = set {
            let text = format!("sending the recipe with the job: Slurm error {}", refused.0);
            return Err(Message::new(text));
        }
    }
    Ok(())
}

/// The launcher is missing, or is no program.
pub(crate) fn not_started(config: &Config, error: &StartError) -> Message {
    let path = config.launcher.to_string_lossy();
    Message::new(format!("starting '{path}': {}: {}", error.step, error.cause))
        .hint("plugstack.conf names it by launcher=; tell the administrators")
}

/// What the launcher learns from the plugin beyond its arguments.
pub(crate) fn for_launcher(config: &Config) -> Vec<CString> {
    let ours = aifb_schema::version_line("aifb_spank");
    let version = format!("{ours} for Slurm {}", env!("AIFB_SLURM_RELEASE"));
    let version = CString::new(version).unwrap_or_default();
    let mut variables = vec![assignment(env::PLUGIN, &version)];
    variables.extend(config.min_sample.iter().map(|time| assignment(env::MIN_SAMPLE, time)));
    variables
}

/// `NAME=value`.
pub(crate) fn assignment(name: &str, value: &CStr) -> CString {
    let bytes = [name.as_bytes(), b"=", value.to_bytes()].concat();
    CString::new(bytes).unwrap_or_default()
}

/// `--name=value`, in one word, so that a value may begin with a dash.
fn joined(first: &CStr, second: &CStr) -> CString {
    let bytes = [first.to_bytes(), second.to_bytes()].concat();
    CString::new(bytes).unwrap_or_default()
}

/// Reads until the other end is closed.
fn read_all(pipe: OwnedFd, deadline: Instant) -> Result<Vec<u8>, String> {
    let mut file = std::fs::File::from(pipe);
    let mut output = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no response within {}", duration(PREPARE_DEADLINE)));
        }
        if !process::readable(file.as_fd(), left, false).map_err(|err| err.to_string())? {
            continue;
        }
        match file.read(&mut piece) {
            Ok(0) => return Ok(output),
            Ok(count) => output.extend(piece.iter().take(count)),
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err.to_string()),
        }
        if output.len() > SNAPSHOT_BYTES {
            return Err(format!("the snapshot is longer than {SNAPSHOT_BYTES} bytes"));
        }
    }
}

/// The one printable line that `prepare` prints.
fn snapshot(output: &[u8]) -> Result<CString, &'static str> {
    let line = output.strip_suffix(b"\n").unwrap_or(output);
    if line.is_empty() {
        return Err("it printed no snapshot");
    }
    if !line.iter().all(u8::is_ascii_graphic) {
        return Err("its snapshot is not one printable line");
    }
    CString::new(line).map_err(|_| "its snapshot is not one printable line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_one_printable_line() {
        assert_eq!(snapshot(b"aifb1.abc\n").as_deref(), Ok(c"aifb1.abc"));
        assert_eq!(snapshot(b"abc").as_deref(), Ok(c"abc"));
        for output in [&b""[..], b"\n", b"a\nb\n", b"a b\n", b"a\0b", b"\xff\n", b"a\x1b[0m\n"] {
            snapshot(output).unwrap_err();
        }
    }
}
