//! The end of series whose agent was killed. Without it Prometheus shows them for five more minutes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
    sync::{Arc, mpsc::sync_channel},
};

use super::{Config, Figures, sender::Sender, series::AllSeries};

/// Bytes of a file that are read: more than an agent writes.
const FILE_MAX: u64 = 16 << 20;

/// Where the series were sent.
#[derive(Clone)]
pub(crate) struct SentTo {
    /// Its URL.
    pub(crate) url: String,
    /// Sent as `Authorization: Bearer`.
    pub(crate) token: Option<String>,
}

/// Files with the labels of series that may still live.
pub(crate) struct StaleSeries(Vec<PathBuf>);

impl StaleSeries {
    /// Those of these files that are there.
    pub(crate) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(files.into_iter().filter(|file| file.is_file()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends all series, now: later than any value of them. It takes as long as a running agent has at
    /// its own end. Where the receiver answers, the files are removed.
    pub(crate) fn end(self, receiver: SentTo) {
        let mut lines = BTreeSet::new();
        for file in &self.0 {
            let mut text = Vec::new();
            // What can be read of a file counts.
            let _torn =
                File::open(file).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
            lines.extend(text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        let labels = lines.iter().filter_map(|line| serde_json::from_slice(line).ok());
        let series = AllSeries::stale(labels);
        let config = Config {
            url: receiver.url,
            token: receiver.token,
            common: Vec::new(),
            spool: std::env::temp_dir(),
            note: Box::new(|_| {}),
        };
        let (nobody, messages) = sync_channel(1);
        drop(nobody);
        if Sender::of(config, Arc::new(Figures::default()), series).run(&messages) {
            for file in self.0 {
                // Else somebody ends them once more, which does no harm.
                let _gone = fs::remove_file(file);
            }
        }
    }
}
