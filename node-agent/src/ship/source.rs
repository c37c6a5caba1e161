//! What is shipped: a file, the labels of its Loki stream, and how its lines are read.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aifb_schema::recipe::LogLevel;

use super::protobuf;

/// Labels of a stream: Loki takes 15, and few streams are what keeps it quick.
pub(crate) const LABELS_MAX: usize = 8;

/// Bytes of a label's name and value: Loki's default limits.
const LABEL_NAME_MAX: usize = 1024;
const LABEL_VALUE_MAX: usize = 2048;

/// How the names of logs end.
const ENDINGS: [&str; 3] = [".log", ".out", ".err"];

/// Folders inside each other that are searched for logs.
const DEPTH_MAX: usize = 8;

/// Files that one search names; far fewer are shipped.
const FOUND_MAX: usize = 10_000;

/// A file that is shipped.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its name in checkpoint and ledger: the path relative to the folder that is shipped.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Labels of its stream, different for each file.
    pub(crate) labels: BTreeMap<String, String>,
    /// What goes with each of its lines besides: structured metadata, which makes no streams.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Whether lines that belong to the one before are joined to it.
    pub(crate) join: bool,
    /// Whether another file may take its place. The files of a run folder are only appended to,
    /// so one with another inode is a copy of the folder, and just as far sent.
    pub(crate) rotates: bool,
}

/// A source as it is sent: its labels rendered once, and what goes with each entry of a level.
#[derive(Debug)]
pub(super) struct Rendered {
    /// `{a="b", …}`.
    pub(super) labels: String,
    /// Structured metadata of an entry: by level, without one first.
    metadata: [Metadata; 5],
}

/// Structured metadata in both forms.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// With the keys of its fields.
    pub(super) proto: Vec<u8>,
    /// Members of an object, without its braces.
    pub(super) json: String,
}

impl Metadata {
    fn add(&mut self, name: &str, value: &str) {
        protobuf::metadata(&mut self.proto, name, value);
        let comma = if self.json.is_empty() { "" } else { "," };
        let (name, value) = (serde_json::Value::from(name), serde_json::Value::from(value));
        self.json.push_str(&format!("{comma}{name}:{value}"));
    }
}

impl Rendered {
    pub(super) fn new(source: &Source) -> Self {
        let labels = source.labels.iter();
        let pairs: Vec<String> =
            labels.map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let metadata = |level: Option<LogLevel>| {
            let mut all = Metadata::default();
            source.metadata.iter().for_each(|(name, value)| all.add(name, value));
            if let Some(level) = level {
                all.add("level", level.as_str());
            }
            all
        };
        Self {
            labels: format!("{{{}}}", pairs.join(", ")),
            metadata: [
                metadata(None),
                metadata(Some(LogLevel::Debug)),
                metadata(Some(LogLevel::Info)),
                metadata(Some(LogLevel::Warning)),
                metadata(Some(LogLevel::Error)),
            ],
        }
    }

    pub(super) fn metadata(&self, level: Option<LogLevel>) -> &Metadata {
        let [none, debug, info, warning, error] = &self.metadata;
        match level {
            None => none,
            Some(LogLevel::Debug) => debug,
            Some(LogLevel::Info) => info,
            Some(LogLevel::Warning) => warning,
            Some(LogLevel::Error) => error,
        }
    }
}

/// A value as Prometheus writes it: in quotes, with `\`, `"` and line ends escaped.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Checks labels as Loki would.
///
/// # Errors
/// What it would refuse.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    if labels.len() > LABELS_MAX {
        return Err(format!("{} labels are too many: at most {LABELS_MAX}", labels.len()));
    }
    for (name, value) in labels {
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !first || !rest || name.len() > LABEL_NAME_MAX {
            return Err(format!("label '{name}': a name has letters, digits and '_' only"));
        }
        if value.is_empty() || value.len() > LABEL_VALUE_MAX {
            return Err(format!(
                "label '{name}': its value is empty or over {LABEL_VALUE_MAX} bytes"
            ));
        }
    }
    Ok(())
}

/// What a search for logs has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names and paths, by name.
    pub(super) files: Vec<(String, PathBuf)>,
    /// Folders that may not be read, and logs whose name is not UTF-8.
    pub(super) passed_over: u64,
}

/// All log files below a folder.
pub(super) fn find(root: &Path) -> Found {
    let mut found = Found::default();
    find_in(root, "", DEPTH_MAX, &mut found);
    found.files.sort();
    found
}

fn find_in(folder: &Path, prefix: &str, depth: usize, found: &mut Found) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // It may be gone meanwhile.
        Err(error) => {
            found.passed_over += u64::from(error.kind() != io::ErrorKind::NotFound);
            return;
        }
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        let is_log = ENDINGS.iter().any(|end| name.as_encoded_bytes().ends_with(end.as_bytes()));
        let relative = match name.to_str() {
            Some(name) if prefix.is_empty() => name.to_owned(),
            Some(name) => format!("{prefix}/{name}"),
            // A label has to be UTF-8, and names that differ must not become one.
            None => {
                found.passed_over += u64::from(kind.is_dir() || (kind.is_file() && is_log));
                continue;
            }
        };
        // No links: they may lead anywhere, and in circles.
        if kind.is_dir() && depth > 1 {
            find_in(&entry.path(), &relative, depth - 1, found);
        } else if kind.is_file() && is_log {
            if found.files.len() < FOUND_MAX && relative.len() <= LABEL_VALUE_MAX {
                found.files.push((relative, entry.path()));
            } else {
                found.passed_over += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn labels_are_rendered_and_checked() {
        let source = Source {
            name: String::new(),
            path: PathBuf::new(),
            labels: labels(&[("b", "x\"\\\n"), ("a", "1")]),
            metadata: labels(&[("replica", "1"), ("q", "\"")]),
            join: true,
            rotates: false,
        };
        let rendered = Rendered::new(&source);
        assert_eq!(rendered.labels, r#"{a="1", b="x\"\\\n"}"#);
        let of = |level| rendered.metadata(level).json.as_str();
        assert_eq!(of(None), r#""q":"\"","replica":"1""#);
        assert_eq!(of(Some(LogLevel::Error)), r#""q":"\"","replica":"1","level":"error""#);
        assert!(check_labels(&labels(&[("a_1", "x")])).is_ok());
        for wrong in [("1a", "x"), ("a-b", "x"), ("a", ""), ("", "x")] {
            assert!(check_labels(&labels(&[wrong])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn logs_are_found_below_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["x.log", "a/y.out", "a/b/z.err", "a/b/z.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        let found = find(folder.path());
        let names: Vec<&str> = found.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, found.passed_over), (vec!["a/b/z.err", "a/y.out", "x.log"], 0));
    }

    #[test]
    fn logs_that_cannot_be_told_are_counted() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let folder = tempfile::tempdir().unwrap();
        for name in [&b"\xff.log"[..], b"\xff.txt", b"good.log"] {
            fs::write(folder.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let found = find(folder.path());
        assert_eq!((found.files.len(), found.passed_over), (1, 1));
        assert_eq!(find(&folder.path().join("nowhere")).passed_over, 0);
        assert_eq!(find(&folder.path().join("good.log")).passed_over, 1, "no folder");
    }
}
