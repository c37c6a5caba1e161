//! At job start: detach `aifb-agent launch` and wait for what it says.

use std::ffi::{CStr, CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use aifb_schema::launch_status::{Answer, End, Variable};
use aifb_schema::names::{env, exit, option};

use crate::config::Config;
use crate::hooks;
use crate::message::{Message, duration, print};
use crate::options;
use crate::submit::{self, assignment};
use crate::sys::process::{self, DefaultActions, Program};
use crate::sys::spank::Spank;

/// How often a waiting job says that it waits.
const PROGRESS: Duration = Duration::from_secs(30);

/// How long a launcher may take that waits for nothing: it makes a folder and answers.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of a snapshot in a job's environment. More than any that `prepare` makes; the launcher
/// checks it again.
const SNAPSHOT_BYTES: usize = 128 * 1024;

/// What the job's script waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until all services are healthy.
    Healthy,
    /// For nothing.
    Nothing,
}

impl Wait {
    /// From an option or a variable; the default where it is absent or unknown.
    pub(crate) fn of(value: Option<&CStr>) -> Self {
        if value == Some(c"none") { Self::Nothing } else { Self::Healthy }
    }

    /// As it travels with the job.
    pub(crate) fn as_c_str(self) -> &'static CStr {
        match self {
            Self::Healthy => c"healthy",
            Self::Nothing => c"none",
        }
    }
}

/// Why the script must not start, and with which code.
struct Failure {
    code: i32,
    message: FailureText,
}

enum FailureText {
    /// The launcher's own words.
    Given(String),
    Ours(Message),
}

/// In the task of a batch or interactive step. Does nothing unless the job carries a snapshot.
pub(crate) fn from_task(spank: &Spank<'_>, words: &[&CStr]) {
    let Ok(snapshot_name) = CString::new(env::SNAPSHOT) else { return };
    if spank.getenv(&snapshot_name, SNAPSHOT_BYTES).is_none() {
        return;
    }
    hooks::panic_if_asked("task_init_used", words);
    let environment = spank.job_env();
    let wait = Wait::of(variable(&environment, env::WAIT));
    forget(spank, &environment);
    if spank.task().is_some_and(|task| task != 0) {
        return;
    }
    let config = match usable(words, variable(&environment, "SLURM_JOB_PARTITION")) {
        Ok(config) => config,
        Err(failure) => stop_task(&failure),
    };
    let mut environment: Vec<CString> =
        environment.into_iter().filter(|entry| !is_inherited_option(entry)).collect();
    replace(&mut environment, submit::for_launcher(&config));
    match launch(&config, &[c"launch".to_owned()], &environment, wait, false) {
        Ok(variables) => {
            for (name, value) in &variables {
                if spank.setenv(name, value).is_err() {
                    let name = name.to_string_lossy();
                    Message::new(format!("setting variable '{name}' for the script: too long"))
                        .print();
                }
            }
        }
        Err(failure) => stop_task(&failure),
    }
}

/// In an srun that has made its own allocation.
pub(crate) fn from_srun(spank: &Spank<'_>, config: &Config, snapshot: &CStr, wait: Wait) {
    let partition = std::env::var_os("SLURM_JOB_PARTITION");
    let partition = partition.and_then(|name| CString::new(name.as_bytes()).ok());
    if names_a_job(spank.command_words().unwrap_or(0)) {
        stop_srun(&Failure { code: exit::USAGE, message: FailureText::Ours(foreign_job()) });
    }
    if let Err(failure) = allowed(config, partition.as_deref()) {
        stop_srun(&failure);
    }
    let Some(job) = job_of_srun(spank) else { return };
    let mut environment: Vec<CString> =
        process::environ().into_iter().filter(|entry| !is_inherited_option(entry)).collect();
    let mut added = submit::for_launcher(config);
    added.push(assignment(env::SNAPSHOT, snapshot));
    added.push(assignment(env::WAIT, wait.as_c_str()));
    replace(&mut environment, added);
    let args = [c"launch".to_owned(), c"--jobid".to_owned(), job];
    match launch(config, &args, &environment, wait, true) {
        Ok(variables) => {
            for (name, value) in &variables {
                process::set_variable(name, value);
            }
        }
        Err(failure) => stop_srun(&failure),
    }
}

/// The configuration, where jobs of this partition may use it.
fn usable(words: &[&CStr], partition: Option<&CStr>) -> Result<Config, Failure> {
    let ours = |code, message| Failure { code, message: FailureText::Ours(message) };
    let config =
        Config::parse(words).map_err(|problem| ours(exit::SLURM, hooks::unusable(&problem)))?;
    if config.off {
        return Err(ours(exit::USAGE, hooks::switched_off()));
    }
    allowed(&config, partition)?;
    Ok(config)
}

fn allowed(config: &Config, partition: Option<&CStr>) -> Result<(), Failure> {
    let partition = partition.unwrap_or_default().to_string_lossy();
    if config.allows(&partition) {
        return Ok(());
    }
    let text = format!("using --aifb-recipe in partition '{partition}': not allowed there");
    let hint = format!("allowed in: {} (plugstack.conf)", config.partitions.join(", "));
    let message = FailureText::Ours(Message::new(text).hint(hint));
    Err(Failure { code: exit::USAGE, message })
}

/// Detaches the launcher and waits until it says how its work ended.
fn launch(
    config: &Config,
    args: &[CString],
    environment: &[CString],
    wait: Wait,
    killable: bool,
) -> Result<Vec<Variable>, Failure> {
    let (status, write_end) = process::pipe().map_err(|err| Failure {
        code: exit::SLURM,
        message: FailureText::Ours(Message::new(format!("making the status pipe: {err}"))),
    })?;
    let program = Program { path: &config.launcher, args, env: environment };
    process::detach(&program, write_end.as_fd()).map_err(|err| Failure {
        code: exit::SLURM,
        message: FailureText::Ours(submit::not_started(config, &err)),
    })?;
    drop(write_end);
    let limit = match wait {
        Wait::Healthy => config.wait_max,
        Wait::Nothing => ANSWER_DEADLINE,
    };
    follow(status, limit, killable)
}

/// Reads the launcher's answer, with a word to the user every now and then.
fn follow(status: OwnedFd, limit: Duration, killable: bool) -> Result<Vec<Variable>, Failure> {
    let start = Instant::now();
    let _killable = killable.then(|| DefaultActions::of(process::END_SIGNALS));
    let mut file = std::fs::File::from(status);
    let mut answer = Answer::default();
    let mut piece = [0; 4096];
    let mut next_word = PROGRESS;
    loop {
        let waited = start.elapsed();
        if waited >= limit {
            return Err(too_late(&answer, limit));
        }
        let pause = next_word.min(limit).saturating_sub(waited);
        match process::readable(file.as_fd(), pause, killable) {
            Ok(true) => {}
            Ok(false) => {
                if start.elapsed() >= next_word && next_word < limit {
                    say_waiting(next_word, limit);
                    next_word += PROGRESS;
                }
                continue;
            }
            Err(err) => return Err(lost(&answer, &format!("waiting failed: {err}"))),
        }
        let count = match file.read(&mut piece) {
            Ok(count) => count,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(lost(&answer, &format!("reading failed: {err}"))),
        };
        if count == 0 {
            return Err(lost(&answer, "the launcher died without a message"));
        }
        match answer.push(piece.get(..count).unwrap_or_default()) {
            Ok(None) => {}
            Ok(Some(End::Ready)) => return Ok(answer.variables().to_vec()),
            Ok(Some(End::Failed { code, text })) => {
                return Err(Failure { code, message: FailureText::Given(text) });
            }
            Err(cause) => return Err(lost(&answer, &format!("the launcher {cause}"))),
        }
    }
}

fn say_waiting(waited: Duration, limit: Duration) {
    let (waited, limit) = (duration(waited), duration(limit));
    let text = format!("waiting for healthy services: {waited} so far, at most {limit}");
    Message::new(text).print();
}

fn too_late(answer: &Answer, limit: Duration) -> Failure {
    let text = format!(
        "waiting for healthy services: not within {} (cause: service; wait_max= in \
         plugstack.conf is the limit)",
        duration(limit)
    );
    Failure { code: exit::SERVICE, message: FailureText::Ours(with_folder(answer, &text)) }
}

fn lost(answer: &Answer, cause: &str) -> Failure {
    let text = format!("waiting for healthy services: {cause} (cause: node)");
    Failure { code: exit::INCOMPLETE, message: FailureText::Ours(with_folder(answer, &text)) }
}

/// Adds the run folder, where the launcher got as far as naming it.
fn with_folder(answer: &Answer, text: &str) -> Message {
    let message = Message::new(text);
    let folder =
        answer.variables().iter().find(|(name, _)| name.to_bytes() == env::RUN_DIR.as_bytes());
    match folder {
        Some((_, folder)) => message.hint(format!("see the logs in {}", folder.to_string_lossy())),
        None => message.hint(
            "the launcher made no run folder; check the installation of aifb-agent on this node",
        ),
    }
}

/// Ends the task, so that the script never starts: Slurm ignores what an optional plugin answers.
fn stop_task(failure: &Failure) -> ! {
    tell(failure);
    process::exit_now(failure.code)
}

/// Ends srun, whose own watchdog then gives the allocation back.
fn stop_srun(failure: &Failure) -> ! {
    tell(failure);
    std::process::exit(failure.code)
}

fn tell(failure: &Failure) {
    match &failure.message {
        FailureText::Given(text) => print(text),
        FailureText::Ours(message) => message.print(),
    }
}

/// Takes away what the script and everything it submits would inherit.
fn forget(spank: &Spank<'_>, environment: &[CString]) {
    for entry in environment {
        let name = name_of(entry);
        let ours = name == OsStr::new(env::SNAPSHOT) || name == OsStr::new(env::WAIT);
        if (ours || options::is_inherited(name))
            && let Ok(name) = CString::new(name.as_bytes())
        {
            let _not_set = spank.unsetenv(&name);
        }
    }
}

/// Whether srun's own words, without the `command_words` of the user's command, name a job to
/// enter instead of making one.
fn names_a_job(command_words: usize) -> bool {
    let own = std::env::args_os().count().saturating_sub(command_words);
    std::env::args_os().take(own).any(|word| is_jobid(&word))
}

/// The same before srun says which words are its own: true only where `--jobid` is certainly not
/// part of the user's command, because nothing before it can be that command.
pub(crate) fn certainly_names_a_job() -> bool {
    let words = || std::env::args_os().skip(1);
    let Some(place) = words().position(|word| is_jobid(&word)) else { return false };
    let recipe = format!("--{}", option::RECIPE);
    words().skip(place).any(|word| word.as_bytes().starts_with(recipe.as_bytes()))
        || words().take(place).all(|word| word.as_bytes().starts_with(b"-"))
}

fn is_jobid(word: &OsStr) -> bool {
    word == "--jobid" || word.as_bytes().starts_with(b"--jobid=")
}

/// The error for srun with `--jobid`.
pub(crate) fn foreign_job() -> Message {
    Message::new("using --aifb-recipe: srun --jobid enters a job that runs already")
        .hint("inside that job type: aifb up RECIPE")
}

/// The id of the job that srun has just made; the leader's in a heterogeneous job.
fn job_of_srun(spank: &Spank<'_>) -> Option<CString> {
    let set = ["SLURM_JOB_ID_PACK_GROUP_0", "SLURM_JOB_ID"].into_iter().find_map(std::env::var_os);
    match set {
        Some(id) => CString::new(id.as_bytes()).ok(),
        None => spank.job().and_then(|id| CString::new(id.to_string()).ok()),
    }
}

/// Adds assignments in place of older ones of the same names.
fn replace(environment: &mut Vec<CString>, added: Vec<CString>) {
    environment.retain(|old| added.iter().all(|new| name_of(new) != name_of(old)));
    environment.extend(added);
}

fn is_inherited_option(entry: &CString) -> bool {
    options::is_inherited(name_of(entry))
}

fn variable<'a>(environment: &'a [CString], name: &str) -> Option<&'a CStr> {
    let entry = environment.iter().find(|entry| name_of(entry) == OsStr::new(name))?;
    let value = entry.to_bytes_with_nul().get(name.len() + 1..)?;
    CStr::from_bytes_with_nul(value).ok()
}

/// The part of `NAME=value` before the first `=`.
fn name_of(entry: &CStr) -> &OsStr {
    let name = entry.to_bytes().split(|&byte| byte == b'=').next();
    OsStr::from_bytes(name.unwrap_or_default())
}
