//! What the plugin shows to and wants from its host: one missing symbol, and Slurm loads none of
//! it; one symbol too many, and Slurm may call it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that panics has failed, which is what it is for"
)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{panicking_plugin, plugin, run};

/// Functions of Slurm that 21.08, 22.05, 24.11 and 26.05 all have, and that we use.
const COMMON_TO_ALL_RELEASES: [&str; 9] = [
    "slurm_error",
    "slurm_spank_log",
    "spank_context",
    "spank_get_item",
    "spank_getenv",
    "spank_job_control_setenv",
    "spank_option_register",
    "spank_setenv",
    "spank_unsetenv",
];

const EXPORTED: [&str; 8] = [
    "plugin_name",
    "plugin_type",
    "plugin_version",
    "slurm_spank_init",
    "slurm_spank_init_failure_mode",
    "slurm_spank_init_post_opt",
    "slurm_spank_local_user_init",
    "slurm_spank_task_init",
];

/// Bytes of the plugin: it is mapped into every srun and slurmstepd.
const SIZE_MAX: u64 = 1_000_000;

/// The last word of each line of nm.
fn symbols(which: &str, library: &Path) -> BTreeSet<String> {
    let (code, out, err) = run(Command::new("nm").args(["-D", which]).arg(library));
    assert_eq!(code, Some(0), "nm: {err}");
    out.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn only_what_slurm_looks_for_is_exported() {
    for library in [plugin(), panicking_plugin()] {
        let found = symbols("--defined-only", library);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), EXPORTED);
    }
}

#[test]
fn only_functions_of_every_release_are_wanted() {
    let wanted = symbols("--undefined-only", plugin());
    let (system, slurm): (BTreeSet<_>, BTreeSet<_>) =
        wanted.into_iter().partition(|name| name.contains("@G") || is_optional(name));
    assert!(system.len() > 20, "nm names the library of a symbol: {system:?}");
    assert_eq!(slurm.iter().map(String::as_str).collect::<Vec<_>>(), COMMON_TO_ALL_RELEASES);
}

/// Weak symbols of the C compiler's start code; nobody has to provide them.
fn is_optional(name: &str) -> bool {
    matches!(name, "_ITM_deregisterTMCloneTable" | "_ITM_registerTMCloneTable" | "__gmon_start__")
}

#[test]
fn the_installed_slurm_has_what_is_wanted() {
    let places = ["/usr/lib/x86_64-linux-gnu/slurm-wlm", "/usr/lib64/slurm", "/usr/lib/slurm"];
    let library = places.map(|place| Path::new(place).join("libslurmfull.so"));
    let Some(library) = library.iter().find(|path| path.is_file()) else {
        common::skip("Slurm's libslurmfull.so is not installed; apt-get install slurm-client");
        return;
    };
    let has = symbols("--defined-only", library);
    for name in COMMON_TO_ALL_RELEASES {
        let found = has.iter().any(|symbol| symbol.split('@').next() == Some(name));
        assert!(found, "{name} is not in {}", library.display());
    }
}

#[test]
fn libc_and_the_unwinder_are_all_it_needs() {
    let (code, out, err) = run(Command::new("readelf").arg("-d").arg(plugin()));
    assert_eq!(code, Some(0), "readelf: {err}");
    let needed = out.lines().filter(|line| line.contains("(NEEDED)"));
    for line in needed {
        let library = line.split(['[', ']']).nth(1).unwrap_or(line);
        let known = ["libc.so.6", "libgcc_s.so.1"].contains(&library)
            || library.starts_with("ld-linux")
            || library.starts_with("libdl.so") // part of libc; empty since glibc 2.34
            || library.starts_with("libpthread.so");
        assert!(known, "{line}");
    }
    assert!(!out.contains("TEXTREL") && !out.contains("RPATH") && !out.contains("RUNPATH"));
    let size = plugin().metadata().unwrap().len();
    assert!(size < SIZE_MAX, "{size} bytes");
}
