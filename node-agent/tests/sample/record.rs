//! What the program has recorded.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use aifb_schema::samples::{self, Recording, Series};

/// Longest wait for something that takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `aifb-agent sample`, ended with the test.
pub(crate) struct Sampler {
    child: Child,
    out: PathBuf,
}

impl Sampler {
    /// Starts it with its record in `out`, on a machine without GPU unless told otherwise.
    pub(crate) fn start(out: &Path, arguments: &[&str], scenario: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aifb-agent"));
        command.arg("sample").arg("--out").arg(out).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(scenario) = scenario {
            command.env("FAKE_NVML_SCENARIO", scenario);
        }
        Self { child: command.spawn().unwrap(), out: out.to_owned() }
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until what is recorded so far is enough.
    pub(crate) fn wait_for(&self, enough: impl Fn(&Record) -> bool) -> Record {
        let start = Instant::now();
        loop {
            let bytes = fs::read(self.out.join("samples.bin")).unwrap_or_default();
            let record = Record(samples::read(&bytes).unwrap_or_default());
            if enough(&record) {
                return record;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain: {:#?}", record.last());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end: exit code, what it printed, and the record.
    pub(crate) fn end(mut self) -> (i32, String, String, Record) {
        let start = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |stream: &mut dyn std::io::Read| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let output = text(&mut self.child.stdout.take().unwrap());
        let messages = text(&mut self.child.stderr.take().unwrap());
        let bytes = fs::read(self.out.join("samples.bin")).unwrap_or_default();
        (code, output, messages, Record(samples::read(&bytes).unwrap_or_default()))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A record, with series by `name{label=value,…}` in the order of the labels' names.
pub(crate) struct Record(pub(crate) Recording);

impl Record {
    /// The values of one sample.
    pub(crate) fn at(&self, sample: usize) -> BTreeMap<String, f64> {
        let Some(sample) = self.0.samples.get(sample) else { return BTreeMap::new() };
        sample.values.iter().map(|(id, value)| (name(&self.0.series[id]), *value)).collect()
    }

    /// The values of the last sample.
    pub(crate) fn last(&self) -> BTreeMap<String, f64> {
        self.at(self.0.samples.len().saturating_sub(1))
    }

    /// All values of one series.
    pub(crate) fn values(&self, series: &str) -> Vec<f64> {
        (0..self.0.samples.len()).filter_map(|at| self.at(at).get(series).copied()).collect()
    }
}

fn name(series: &Series) -> String {
    let labels: Vec<String> =
        series.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{}{{{}}}", series.name, labels.join(","))
}
