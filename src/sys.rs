//! The one thing that the standard library cannot do safely: starting a process in a session of
//! its own with one more open descriptor.

#![expect(unsafe_code, reason = "what happens between fork and exec is unsafe to describe")]

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
};

use aifb_schema::launch_status::STATUS_FD;
use nix::{
    errno::Errno,
    libc,
    sys::{prctl, signal::Signal},
};

/// Starts `command` in a session of its own, so that neither Ctrl-C nor the end of a terminal
/// reaches it, with `pipe` as descriptor [`STATUS_FD`] and no other above: what the calling shell
/// has open would end up in services. With `dies_with_us` it gets SIGTERM when
/// the calling thread ends, however that comes about.
///
/// # Errors
/// As [`Command::spawn`].
pub(crate) fn spawn_detached(
    command: &mut Command,
    pipe: OwnedFd,
    dies_with_us: bool,
) -> io::Result<Child> {
    // dup2 onto itself would leave close-on-exec set: from another number, then.
    let pipe = if pipe.as_raw_fd() == STATUS_FD { pipe.try_clone()? } else { pipe };
    let source = pipe.as_raw_fd();
    let parent = nix::unistd::getpid();
    let inherited = open_descriptors();
    let prepare = move || {
        nix::unistd::setsid()?;
        if dies_with_us {
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            // It may be too late already.
            if nix::unistd::getppid() != parent {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        for &descriptor in &inherited {
            // SAFETY: plain numbers; one that is closed by now is refused without consequence.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: plain numbers; `source` is open, because `pipe` is dropped after the spawn only.
        let result = unsafe { libc::dup2(source, STATUS_FD) };
        Errno::result(result).map(drop).map_err(io::Error::from)
    };
    // SAFETY: `prepare` runs in the child between fork and exec. It calls setsid, prctl, getppid,
    // fcntl and dup2 only, which are plain system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn();
    drop(pipe);
    child
}

/// Numbers of the descriptors that are open now, but standard input, output and error. Without
/// /proc there are none to name.
fn open_descriptors() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor >= STATUS_FD)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, process::Stdio};

    #[test]
    fn a_child_has_its_pipe_and_nothing_of_ours() {
        let file = File::open("/proc/self/status").unwrap();
        // Without close-on-exec, as a shell leaves its descriptors.
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .unwrap();
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "ls -x /proc/self/fd >&3; cut -d' ' -f6 /proc/$$/stat >&3; echo $$ >&3"]);
        command.stdin(Stdio::null());
        let mut child = spawn_detached(&mut command, writing, true).unwrap();
        let mut text = String::new();
        File::from(reading).read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let own = child.id().to_string();
        // ls opens the folder that it lists, as its next descriptor.
        assert_eq!(words, ["0", "1", "2", "3", "4", own.as_str(), own.as_str()], "{text}");
    }
}
