//! What Slurm calls. Each hook runs under [`guard`], always answers 0 and so can neither end a
//! command or a step by its answer nor drain a node. Where a submission or a job's script must
//! not go on, the hook ends the process itself, which is the user's own.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aifb_schema::names::{env, exit};

use crate::config::Config;
use crate::message::Message;
use crate::options::{self, Kind, Options};
use crate::start::{self, Wait};
use crate::submit;
use crate::sys::process;
use crate::sys::spank::{Context, Spank, Step, context};

/// The answer that keeps Slurm going.
const GO_ON: i32 = 0;

/// What the hooks of one command keep for each other. In slurmstepd only `initialised` is used.
struct State {
    /// Init has run: the same library may be listed twice, and Slurm then calls it twice.
    initialised: bool,
    /// The command was started inside a job.
    in_job: bool,
    /// The options of the first component of the job.
    options: Options,
    /// Options that came after `init_post_opt` has acted on the first component.
    late: Options,
    /// Why an option cannot be used.
    problem: Option<String>,
    /// `init_post_opt` has run for the first component.
    settled: bool,
    /// What an srun that makes its own allocation has to start.
    pending: Option<(CString, Wait)>,
    #[cfg(feature = "test-panic")]
    panic_in_option: bool,
}

static STATE: Mutex<State> = Mutex::new(State {
    initialised: false,
    in_job: false,
    options: Options::NONE,
    late: Options::NONE,
    problem: None,
    settled: false,
    pending: None,
    #[cfg(feature = "test-panic")]
    panic_in_option: false,
});

/// A panic leaves nothing half done in the state that a later hook could trip over.
fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// First hook in every process: registers the options.
pub(crate) fn init(spank: &Spank<'_>, words: &[&CStr]) -> i32 {
    // This library has its own copy of Rust's runtime, so the hook is its own too: a caught panic
    // shall write nothing into the files and streams of the host.
    panic::set_hook(Box::new(|_| ()));
    guard("init", words, || match context() {
        Context::Slurmd => {
            if let Err(problem) = Config::parse(words) {
                unusable(&problem).log();
            }
        }
        Context::Other => {}
        here @ (Context::Local | Context::Allocator | Context::Remote) => {
            let mut state = state();
            if std::mem::replace(&mut state.initialised, true) {
                return;
            }
            #[cfg(feature = "test-panic")]
            {
                state.panic_in_option = words.contains(&c"panic=option");
            }
            if here != Context::Remote {
                state.in_job = ["SLURM_JOB_ID", "SLURM_JOBID"]
                    .into_iter()
                    .any(|name| std::env::var_os(name).is_some());
                if state.in_job {
                    drop_inherited(here);
                }
            }
            drop(state);
            for kind in Kind::ALL {
                if let Err(refused) = spank.register(kind) {
                    let name = kind.name();
                    Message::new(format!("registering option --{name}: Slurm error {}", refused.0))
                        .log();
                }
            }
        }
    })
}

/// An option was used. In slurmstepd nothing is to be done: the snapshot is the sign there.
pub(crate) fn option(number: i32, value: Option<&CStr>, remote: bool) -> i32 {
    if remote {
        return GO_ON;
    }
    let stored = panic::catch_unwind(AssertUnwindSafe(|| {
        if is_scrontab() {
            Message::new("scrontab does not pass on the options of plugins")
                .hint("let the crontab line start a script that calls sbatch")
                .log();
            return false;
        }
        let mut state = state();
        #[cfg(feature = "test-panic")]
        assert!(!state.panic_in_option, "asked for by panic=option");
        let State { options, late, problem, settled, .. } = &mut *state;
        let target = if *settled { late } else { options };
        if let Some(kind) = Kind::of(number)
            && let Err(cause) = target.store(kind, value.unwrap_or_default())
        {
            problem.get_or_insert(cause);
        }
        true
    }));
    if stored.unwrap_or(true) { GO_ON } else { -1 }
}

/// The command has read the options of one component of the job.
pub(crate) fn init_post_opt(spank: &Spank<'_>, words: &[&CStr]) -> i32 {
    guard("init_post_opt", words, || {
        let here = context();
        if !matches!(here, Context::Local | Context::Allocator) {
            return;
        }
        let mut state = state();
        if std::mem::replace(&mut state.settled, true) {
            if state.options.changed_by(&state.late) {
                refuse(
                    &Message::new(
                        "reading the options of a heterogeneous job: an --aifb option \
                        stands behind the first ':'",
                    )
                    .hint("give all --aifb options before the first ':'"),
                );
            }
            return;
        }
        if let Some(problem) = state.problem.take() {
            refuse(&Message::new(problem));
        }
        if !state.options.used() {
            return;
        }
        let config = Config::parse(words).unwrap_or_else(|problem| refuse(&unusable(&problem)));
        if config.off {
            refuse(&switched_off());
        }
        if here == Context::Local && state.in_job {
            refuse(
                &Message::new("using --aifb-recipe: srun inside a job cannot start services")
                    .hint("give the option to sbatch or salloc, or type: aifb up RECIPE"),
            );
        }
        if here == Context::Local && start::certainly_names_a_job() {
            refuse(&start::foreign_job());
        }
        let prepared = submit::prepare(&config, &state.options);
        let snapshot = prepared.unwrap_or_else(|message| refuse(&message));
        let wait = Wait::of(state.options.wait.as_deref());
        if here == Context::Local {
            state.pending = Some((snapshot, wait));
        } else if let Err(message) = submit::send_along(spank, &snapshot, wait) {
            refuse(&message);
        }
    })
}

/// srun is about to start its tasks.
pub(crate) fn local_user_init(spank: &Spank<'_>, words: &[&CStr]) -> i32 {
    guard("local_user_init", words, || {
        if context() != Context::Local {
            return;
        }
        let Some((snapshot, wait)) = state().pending.take() else { return };
        let Ok(config) = Config::parse(words) else { return };
        start::from_srun(spank, &config, &snapshot, wait);
    })
}

/// A task of the job is about to become the user's program.
pub(crate) fn task_init(spank: &Spank<'_>, words: &[&CStr]) -> i32 {
    guard("task_init", words, || {
        if context() == Context::Remote && spank.step() != Step::Other {
            start::from_task(spank, words);
        }
    })
}

/// Runs a hook and catches what panics in it: then the command or the job goes on without us.
fn guard(hook: &str, words: &[&CStr], body: impl FnOnce()) -> i32 {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        panic_if_asked(hook, words);
        body();
    }));
    if outcome.is_err() {
        // Telling may fail in the same way as the hook did.
        let _told = panic::catch_unwind(AssertUnwindSafe(|| tell_of_panic(hook)));
    }
    GO_ON
}

/// Tells a user of the options that the job runs without services.
fn tell_of_panic(hook: &str) {
    if matches!(context(), Context::Local | Context::Allocator) && state().options.used() {
        Message::new(format!("internal error in {hook}: the job continues without its services"))
            .log();
    }
}

/// Tests only: `panic=HOOK` in plugstack.conf.
#[cfg_attr(not(feature = "test-panic"), expect(unused_variables, reason = "tests only"))]
pub(crate) fn panic_if_asked(hook: &str, words: &[&CStr]) {
    #[cfg(feature = "test-panic")]
    {
        let asked = format!("panic={hook}");
        assert!(!words.iter().any(|word| word.to_bytes() == asked.as_bytes()), "{asked}");
    }
}

/// Ends a command before anything is submitted to Slurm.
fn refuse(message: &Message) -> ! {
    message.log();
    std::process::exit(exit::USAGE)
}

/// plugstack.conf is wrong.
pub(crate) fn unusable(problem: &str) -> Message {
    Message::new(format!("reading plugstack.conf: {problem}"))
        .hint("tell the administrators; without --aifb options jobs run as usual")
}

/// plugstack.conf says `off`.
pub(crate) fn switched_off() -> Message {
    Message::new("using --aifb-recipe: switched off by the administrators (off in plugstack.conf)")
}

/// Removes what a surrounding job left in the environment, before Slurm reads it: a command
/// inside a job inherits no recipe.
fn drop_inherited(here: Context) {
    // salloc starts its shell by `srun --interactive`, which must pass the snapshot on.
    let shell_of_salloc =
        here == Context::Local && std::env::args_os().any(|word| word == "--interactive");
    for (name, _) in std::env::vars_os() {
        let snapshot = name == env::SNAPSHOT || name == env::WAIT;
        let ours = options::is_inherited(&name) || (snapshot && !shell_of_salloc);
        if ours && let Ok(name) = CString::new(name.as_bytes()) {
            process::remove_variable(&name);
        }
    }
}

/// scrontab takes the options of plugins but has no way to pass them on.
fn is_scrontab() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&program).file_name() == Some(OsStr::new("scrontab"))
}
