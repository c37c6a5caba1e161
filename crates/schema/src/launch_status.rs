//! The status pipe of `aifb-agent launch`: `KEY=VALUE\0` records, then `READY\0` or
//! `FAILED <code> <text>\0`. The launcher writes it; the plugin and `aifb` read it.

use std::ffi::CString;

use crate::names::exit;

/// Number of the launcher's inherited descriptor.
pub const STATUS_FD: i32 = 3;

/// Upper bound for the whole answer, in bytes; beyond it the launcher is considered faulty. A few
/// dozen variables and the tail of a log have about 10 KiB, a thousand services 250 KiB.
pub const ANSWER_BYTES: usize = 256 * 1024;

/// How the launch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The services are healthy, or the caller does not wait for them.
    Ready,
    /// Something failed.
    Failed {
        /// Exit code that says whose failure it is, from 1 to 255.
        code: i32,
        /// What is printed to the job's output.
        text: String,
    },
}

/// A variable for the job's script.
pub type Variable = (CString, CString);

/// The record that gives a variable to the caller; none for a value that cannot be one.
#[must_use]
pub fn variable_record(name: &str, value: &str) -> Option<Vec<u8>> {
    let value = (!value.contains('\0')).then_some(value)?;
    Some(format!("{name}={value}\0").into_bytes())
}

/// The last record where the script may start.
pub const READY_RECORD: &[u8] = b"READY\0";

/// The last record where the script must not start.
#[must_use]
pub fn failed_record(code: i32, text: &str) -> Vec<u8> {
    format!("FAILED {code} {}\0", text.replace('\0', "?")).into_bytes()
}

/// Reads the answer as it arrives.
#[derive(Debug, Default)]
pub struct Answer {
    variables: Vec<Variable>,
    record: Vec<u8>,
    bytes: usize,
}

impl Answer {
    /// The variables received so far.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Takes the next bytes; gives the end once it has arrived. Bytes after the end are ignored.
    ///
    /// # Errors
    /// The answer is too long, or has a record of another form.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<End>, String> {
        self.bytes += bytes.len();
        for &byte in bytes {
            if byte != 0 {
                self.record.push(byte);
                continue;
            }
            let record = std::mem::take(&mut self.record);
            if let Some(end) = self.take(&record)? {
                return Ok(Some(end));
            }
        }
        if self.bytes > ANSWER_BYTES {
            return Err(format!("sent more than {ANSWER_BYTES} bytes"));
        }
        Ok(None)
    }

    fn take(&mut self, record: &[u8]) -> Result<Option<End>, String> {
        if record == b"READY" {
            return Ok(Some(End::Ready));
        }
        if let Some(failure) = record.strip_prefix(b"FAILED ") {
            return Ok(Some(failed(failure)));
        }
        match variable(record) {
            Some(variable) => self.variables.push(variable),
            None => {
                let shown: String = String::from_utf8_lossy(record).chars().take(80).collect();
                return Err(format!("sent an unknown record '{}'", shown.escape_debug()));
            }
        }
        Ok(None)
    }
}

/// `<code> <text>`. A code that cannot be that of a failure counts as the service's.
fn failed(record: &[u8]) -> End {
    let text = String::from_utf8_lossy(record);
    let (code, text) = text.split_once(' ').unwrap_or((&text, ""));
    let code = code.parse().ok().filter(|code| (1..=255).contains(code)).unwrap_or(exit::SERVICE);
    End::Failed { code, text: text.to_owned() }
}

/// `NAME=value` where the name is one that a shell can use.
fn variable(record: &[u8]) -> Option<Variable> {
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let (name, value) = record.split_at_checked(equals)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let starts_well = name.first().is_some_and(|byte| !byte.is_ascii_digit());
    if !starts_well || !name.iter().all(plain) {
        return None;
    }
    Some((CString::new(name).ok()?, CString::new(value.get(1..)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_arrive_in_any_pieces() {
        let whole = b"AIFB_RUN_ID=c-7\0PATH=/a:/b=c\0EMPTY=\0READY\0ignored";
        for size in 1..=whole.len() {
            let mut answer = Answer::default();
            let found = whole.chunks(size).find_map(|part| answer.push(part).unwrap());
            assert_eq!(found, Some(End::Ready), "pieces of {size}");
            let names: Vec<_> =
                answer.variables().iter().map(|(n, v)| (n.to_bytes(), v.to_bytes())).collect();
            assert_eq!(
                names,
                [(&b"AIFB_RUN_ID"[..], &b"c-7"[..]), (b"PATH", b"/a:/b=c"), (b"EMPTY", b"")]
            );
        }
    }

    #[test]
    fn a_failure_keeps_its_lines_and_code() {
        let mut answer = Answer::default();
        let end = answer.push(b"FAILED 3 srun: no\nhint: ask\n\0").unwrap();
        let text = "srun: no\nhint: ask\n".to_owned();
        assert_eq!(end, Some(End::Failed { code: 3, text }));
    }

    #[test]
    fn what_is_written_is_read() {
        let records = [variable_record("A", "x=y\nz").unwrap(), failed_record(5, "nul \0 in it")];
        let mut answer = Answer::default();
        let end = answer.push(&records.concat()).unwrap();
        assert_eq!(end, Some(End::Failed { code: 5, text: "nul ? in it".to_owned() }));
        assert_eq!(answer.variables(), [(c"A".to_owned(), c"x=y\nz".to_owned())]);
        assert_eq!(variable_record("A", "\0"), None);
        assert_eq!(Answer::default().push(READY_RECORD), Ok(Some(End::Ready)));
    }

    #[test]
    fn a_failure_never_counts_as_success() {
        for record in [&b"FAILED 0 x\0"[..], b"FAILED x\0", b"FAILED 256 x\0", b"FAILED \0"] {
            let end = Answer::default().push(record).unwrap();
            assert!(matches!(end, Some(End::Failed { code: 4, .. })), "{end:?}");
        }
    }

    #[test]
    fn other_records_are_refused() {
        for record in [&b"\0"[..], b"READY \0", b"1A=b\0", b"A B=c\0", b"=x\0", b"A\0", b"\xff=\0"]
        {
            Answer::default().push(record).unwrap_err();
        }
    }

    #[test]
    fn an_endless_answer_is_cut_off() {
        let mut answer = Answer::default();
        let piece = [b'a'; 4096];
        let pushed = (0..=ANSWER_BYTES / piece.len()).find(|_| answer.push(&piece).is_err());
        assert_eq!(pushed, Some(ANSWER_BYTES / piece.len()));
    }
}
