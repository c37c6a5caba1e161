//! What the plugin's tests share: the plugin as it is installed, the C programs that stand in
//! for Slurm and for aifb-agent, and a scratch folder.
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder below which `slurm/spank.h` lies.
pub(crate) fn include() -> PathBuf {
    match env::var_os("AIFB_SLURM_INCLUDE") {
        Some(folder) if !folder.is_empty() => {
            let folder = PathBuf::from(folder);
            if folder.join("spank.h").is_file() { folder.join("..") } else { folder }
        }
        _ => PathBuf::from("/usr/include"),
    }
}

/// The plugin built as it is installed, against the site's own headers.
pub(crate) fn plugin() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&[], &include(), "aifb_spank.so"))
}

/// The plugin that panics where plugstack.conf says `panic=HOOK`.
pub(crate) fn panicking_plugin() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let more = ["--features", "test-panic"];
    BUILT.get_or_init(|| build(&more, &include(), "aifb_spank_panic.so"))
}

/// The plugin built against the headers below `include`.
pub(crate) fn plugin_for(include: &Path) -> PathBuf {
    build(&[], include, "aifb_spank_cluster.so")
}

/// The panicking plugin built against the headers below `include`.
pub(crate) fn panicking_plugin_for(include: &Path) -> PathBuf {
    build(&["--features", "test-panic"], include, "aifb_spank_cluster_panic.so")
}

/// The plugin built for another release of Slurm than the installed one.
pub(crate) fn foreign_plugin() -> PathBuf {
    let headers = Scratch::new("headers");
    let folder = headers.join("slurm");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(include().join("slurm")).unwrap().flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let version = folder.join("slurm_version.h");
    let text = fs::read_to_string(&version).unwrap();
    let is_number = |line: &&str| line.starts_with("#define SLURM_VERSION_NUMBER 0x");
    let number = text.lines().find(is_number).unwrap();
    fs::write(&version, text.replace(number, "#define SLURM_VERSION_NUMBER 0x150805")).unwrap();
    build(&[], &headers, "aifb_spank_foreign.so")
}

/// A program that loads the plugin as Slurm does.
pub(crate) fn host() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("host.c", &["-rdynamic", "-ldl", "-lpthread"]))
}

/// A program that behaves like aifb-agent, or badly, as variables tell it.
pub(crate) fn launcher() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("launcher.c", &[]))
}

/// An empty folder of its own for one test; it stays where the test fails.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = built().join(format!("{name}.{}.{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(fs::canonicalize(folder).unwrap())
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _left = fs::remove_dir_all(&self.0);
        }
    }
}

/// Whether a program is on PATH; without it a test is skipped loudly, or fails where CI=true.
pub(crate) fn have(program: &str, remedy: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    skip(&format!("{program} is not installed; {remedy}"));
    false
}

/// Says loudly that a test could not run; fails where CI=true.
pub(crate) fn skip(reason: &str) {
    assert_ne!(env::var("CI").as_deref(), Ok("true"), "cannot be tested: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Runs a command to its end and returns (exit code, standard output, standard error).
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn build(more: &[&str], include: &Path, name: &str) -> PathBuf {
    let out = built().join(name);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/build-for"));
    // What the outer cargo has set is meant for this test, not for the inner build.
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("CARGO_") {
            command.env_remove(key);
        }
    }
    let (code, stdout, stderr) = run(command.args(more).arg(include).arg(&out));
    assert_eq!(code, Some(0), "build-for: {stdout}{stderr}");
    out
}

fn compile(source: &str, more: &[&str]) -> PathBuf {
    let out = built().join(source.trim_end_matches(".c"));
    // By rename: another test program may be running the old one.
    let unfinished = out.with_extension(std::process::id().to_string());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host").join(source);
    let mut command = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-Wall", "-Wextra", "-Werror", "-g", "-I"]).arg(include());
    command.args([OsStr::new("-o"), unfinished.as_os_str(), source.as_os_str()]).args(more);
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{command:?}: {stdout}{stderr}");
    fs::rename(unfinished, &out).unwrap();
    out
}
