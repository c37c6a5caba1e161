//! When the job's time is over, where its environment does not say (Slurm before 23.02).

use std::{
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use crate::clock;

/// Longest time to ask: the start must not wait for a busy controller.
const PATIENCE: Duration = Duration::from_secs(2);

/// The end of the time limit in seconds since 1970; `None` where there is no limit or no answer.
pub(crate) fn ask(job: u32) -> Option<u64> {
    let mut squeue = Command::new("squeue")
        .args(["--noheader", "--format=%L", &format!("--jobs={job}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut output = squeue.stdout.take()?;
    let (sender, answer) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        if std::io::Read::read_to_string(&mut output, &mut text).is_ok() {
            let _too_late = sender.send(text);
        }
    });
    let text = answer.recv_timeout(PATIENCE);
    let _ended_already = squeue.kill();
    let _reaped = squeue.wait();
    let left = seconds(text.ok()?.lines().next()?)?;
    Some(clock::epoch_ns() / 1_000_000_000 + left)
}

/// `[days-]hours:minutes:seconds`, the leading parts may be absent.
fn seconds(text: &str) -> Option<u64> {
    let (days, rest) = match text.trim().split_once('-') {
        Some((days, rest)) => (days.parse::<u64>().ok()?, rest),
        None => (0, text.trim()),
    };
    let parts: Vec<u64> = rest.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    if parts.len() > 3 || (parts.len() == 1 && days == 0) {
        return None;
    }
    Some(parts.into_iter().fold(0, |sum, part| sum * 60 + part) + days * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurms_times_are_read() {
        for (text, expected) in [
            ("9:58", Some(598)),
            ("1:00:00\n", Some(3600)),
            ("2-00:00:01", Some(172_801)),
            ("UNLIMITED", None),
            ("INVALID", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
