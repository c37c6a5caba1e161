//! The job script where no plugin starts the run: the script does so itself, first of all.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::libc;

use crate::{
    error::{CommandError, Result},
    shell::quoted,
};

/// The script that is submitted when none is given.
pub(super) const BENCHMARK: &str = include_str!("../../../sbatch-wrappers/benchmark.sbatch");

/// Bytes of a job script: Slurm's own default limit (`max_script_size`).
const SCRIPT_BYTES: u64 = 4 * 1024 * 1024;

/// Shells whose scripts can start the run.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ksh", "mksh", "zsh"];

/// Reads a user's job script.
///
/// # Errors
/// If it cannot be read, is no text, or is no script of a shell.
pub(super) fn read(path: &Path) -> Result<String> {
    let doing = || format!("reading job script '{}'", path.display());
    let wrong = |error: io::Error| CommandError::usage(doing(), error);
    // Not a pipe or device, which might never end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(wrong)?;
    if !file.metadata().map_err(wrong)?.is_file() {
        return Err(CommandError::usage(doing(), "it is not a regular file"));
    }
    let mut text = String::new();
    let length = file.take(SCRIPT_BYTES + 1).read_to_string(&mut text).map_err(wrong)?;
    if length as u64 > SCRIPT_BYTES {
        return Err(CommandError::usage(doing(), format!("it has more than {SCRIPT_BYTES} bytes")));
    }
    let first = text.lines().next().unwrap_or_default();
    let Some(interpreter) = first.strip_prefix("#!") else {
        return Err(CommandError::usage(doing(), "it does not start with '#!'")
            .hint("a job script starts with the shell that runs it, such as #!/bin/bash"));
    };
    let mut words = interpreter.split_whitespace().filter_map(|word| word.rsplit('/').next());
    let shell = match words.next() {
        Some("env") => words.next(),
        other => other,
    };
    if shell.is_none_or(|shell| !SHELLS.contains(&shell)) {
        return Err(CommandError::usage(
            doing(),
            format!("without the plugin it must be a shell script, not one for '{interpreter}'"),
        )
        .hint("call it from a shell script, or ask the administrators to install the plugin"));
    }
    Ok(text)
}

/// Puts what starts the run in front of the first command of a shell script, behind its comments
/// (and so behind its #SBATCH lines).
pub(super) fn with_start(script: &str, aifb: &Path, snapshot: &str, args: &[String]) -> String {
    let is_head = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let head: usize =
        script.split_inclusive('\n').take_while(|line| is_head(line)).map(str::len).sum();
    let (head, body) = script.split_at(head);
    let mut text = head.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!(
        "# Added by aifb run: without the plugin this job starts the run itself.\n\
         aifb_environment=$(SLURM_SPANK_AIFB_SNAPSHOT={} {} up --sh) || exit $?\n\
         eval \"$aifb_environment\"\n\
         unset aifb_environment\n",
        quoted(snapshot),
        quoted(&aifb.to_string_lossy()),
    ));
    if !args.is_empty() {
        let words: Vec<String> = args.iter().map(|word| quoted(word)).collect();
        text.push_str(&format!("set -- {}\n", words.join(" ")));
    }
    text.push_str("# Until here.\n\n");
    text.push_str(body);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_start_stands_behind_the_options() {
        let script = "#!/bin/sh\n#SBATCH -N2\n\n# words\necho \"$1\" $A\n#SBATCH ignored\n";
        let text = with_start(script, Path::new("/opt/it's/aifb"), "aifb1:x", &["a b".to_owned()]);
        assert!(text.starts_with("#!/bin/sh\n#SBATCH -N2\n\n# words\n# Added by"), "{text}");
        assert!(text.ends_with("# Until here.\n\necho \"$1\" $A\n#SBATCH ignored\n"), "{text}");
    }

    #[test]
    fn a_script_with_its_start_runs() {
        let folder = tempfile::tempdir().unwrap();
        let aifb = folder.path().join("it's aifb");
        fs::write(&aifb, "#!/bin/sh\necho \"export A='$SLURM_SPANK_AIFB_SNAPSHOT $*'\"\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&aifb, mode).unwrap();
        let script =
            "#!/bin/sh\nprintf '%s|' \"$@\" \"$A\" \"${SLURM_SPANK_AIFB_SNAPSHOT-none}\"\n";
        let text = with_start(script, &aifb, "aifb1:x", &["a b".to_owned(), "c'd".to_owned()]);
        let shell = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
        assert_eq!(
            String::from_utf8(shell.stdout).unwrap(),
            "a b|c'd|aifb1:x up --sh|none|",
            "{text}"
        );
        fs::write(&aifb, "#!/bin/sh\nexit 4\n").unwrap();
        let shell = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
        assert_eq!((shell.status.code(), shell.stdout.len()), (Some(4), 0));
    }

    #[test]
    fn only_shell_scripts_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("job");
        for (first, good) in [
            ("#!/bin/bash", true),
            ("#! /usr/bin/env bash", true),
            ("#!/bin/sh -e", true),
            ("#!/usr/bin/python3", false),
            ("echo", false),
            ("#!", false),
        ] {
            fs::write(&path, format!("{first}\ntrue\n")).unwrap();
            assert_eq!(read(&path).is_ok(), good, "{first}");
        }
    }
}
