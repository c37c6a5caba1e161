//! Build script of the SPANK plugin; spank-plugin/Cargo.toml names it.
//!
//! It finds the site's `spank.h`, lets bindgen read it and stamps the Slurm release into the
//! plugin. Which symbols the plugin exports needs nothing here: rustc gives the linker a version
//! script with the `no_mangle` ones of src/sys/exports.rs and hides the rest, and a second script
//! is more than GNU ld takes.

use std::env;
use std::error::Error;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Names the folder of `spank.h`: either the folder itself (`…/include/slurm`) or its parent.
/// Absent or empty: where pkg-config or the system has it.
const INCLUDE_VARIABLE: &str = "AIFB_SLURM_INCLUDE";

/// What a site without the headers or libclang has to do.
const HINT: &str = "hint: on Debian and Ubuntu: apt-get install libslurm-dev libclang-dev; \
    on RHEL and its kin: dnf install slurm-devel clang-devel. \
    AIFB_SLURM_INCLUDE names another folder that holds slurm/spank.h";

/// The functions that the plugin calls. All exist in Slurm 21.08 to 26.05; one that is missing
/// would keep the whole plugin from loading (tests/exports.rs is the gate).
const FUNCTIONS: &str = "spank_(option_register|get_item|getenv|setenv|unsetenv|context)\
    |spank_job_control_setenv|slurm_error|slurm_spank_log";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            for line in err.to_string().lines().chain([HINT]) {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../build.rs");
    for name in [INCLUDE_VARIABLE, "PKG_CONFIG_PATH", "LIBCLANG_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let root = include_root()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);

    let release = slurm_release(&root)?;
    println!("cargo::rustc-env=AIFB_SLURM_RELEASE={release}");
    write_bindings(&root, &out.join("spank.rs"))?;
    // The unit tests are a program, and nobody in it provides the symbols of slurmstepd. They
    // test what does not call them; the plugin itself leaves them open in any case.
    println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
    Ok(())
}

/// The folder below which `slurm/spank.h` lies.
fn include_root() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(named) = env::var_os(INCLUDE_VARIABLE).filter(|name| !name.is_empty()) {
        let named = PathBuf::from(named);
        let parent = named.parent().map(Path::to_path_buf);
        return [Some(named.clone()), parent]
            .into_iter()
            .flatten()
            .find(|root| root.join("slurm/spank.h").is_file())
            .ok_or_else(|| {
                format!(
                    "aifb_spank: looking for slurm/spank.h in '{}' ({INCLUDE_VARIABLE}): not found",
                    named.display()
                )
                .into()
            });
    }
    pkg_config_folder()
        .into_iter()
        .chain([PathBuf::from("/usr/include")])
        .find(|root| root.join("slurm/spank.h").is_file())
        .ok_or_else(|| "aifb_spank: looking for Slurm's header slurm/spank.h: not found".into())
}

/// What pkg-config says, if it is there and knows Slurm.
fn pkg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pkg-config").args(["--variable=includedir", "slurm"]).output();
    let folder = String::from_utf8(output.ok()?.stdout).ok()?;
    (!folder.trim().is_empty()).then(|| PathBuf::from(folder.trim()))
}

/// `22.05.8` from the header's version number 0x160508.
fn slurm_release(root: &Path) -> Result<String, Box<dyn Error>> {
    let path = root.join("slurm/slurm_version.h");
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path)
        .map_err(|err| format!("aifb_spank: reading '{}': {err}", path.display()))?;
    let digits = text
        .lines()
        .find_map(|line| line.strip_prefix("#define SLURM_VERSION_NUMBER 0x"))
        .ok_or_else(|| format!("aifb_spank: '{}' has no version number", path.display()))?;
    let number = u32::from_str_radix(digits.trim(), 16)
        .map_err(|err| format!("aifb_spank: version number of '{}': {err}", path.display()))?;
    if number < 0x15_08_00 {
        return Err("aifb_spank: Slurm is older than 21.08, whose error numbers differ".into());
    }
    Ok(format!("{}.{:02}.{}", number >> 16, number >> 8 & 0xff, number & 0xff))
}

/// Lets bindgen translate the part of the headers that the plugin uses.
fn write_bindings(root: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    for header in ["spank.h", "slurm.h", "slurm_errno.h"] {
        println!("cargo::rerun-if-changed={}", root.join("slurm").join(header).display());
    }
    let builder = bindgen::builder()
        .header_contents("aifb.h", "#include <slurm/slurm.h>\n#include <slurm/spank.h>\n")
        .clang_arg(format!("-I{}", root.display()))
        .allowlist_function(FUNCTIONS)
        .allowlist_type("spank_t|spank_f|spank_option|spank_item|spank_context")
        .allowlist_var("SLURM_VERSION_NUMBER|SLURM_BATCH_SCRIPT|SLURM_INTERACTIVE_STEP")
        .allowlist_var("ESPANK_.*")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(false);
    // Without libclang bindgen panics instead of returning an error.
    panic::set_hook(Box::new(|_| ()));
    let bindings = panic::catch_unwind(AssertUnwindSafe(|| builder.generate()))
        .map_err(|_| "aifb_spank: loading libclang, which reads spank.h: not found")?
        .map_err(|err| format!("aifb_spank: reading slurm/spank.h: {err}"))?;
    drop(panic::take_hook());
    bindings.write_to_file(out).map_err(Into::into)
}
