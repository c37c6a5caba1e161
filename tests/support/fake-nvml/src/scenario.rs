//! What the devices say, and when.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use nvml_wrapper_sys::bindings as nvml;
use serde::Deserialize;

/// The environment variable that names the scenario's file.
pub const VARIABLE: &str = "FAKE_NVML_SCENARIO";

/// A whole scenario.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Error that loading gives; none: it works.
    #[serde(default)]
    pub init: Option<String>,
    /// Version of the driver.
    #[serde(default)]
    pub driver: String,
    /// Milliseconds that a call takes, by its name.
    #[serde(default)]
    pub slow_ms: BTreeMap<String, u64>,
    /// The GPUs.
    pub devices: Vec<Device>,
}

/// A GPU, or a part of one.
#[derive(Debug, Default, Deserialize)]
pub struct Device {
    /// Name of its kind.
    #[serde(default)]
    pub name: String,
    /// Unique name.
    pub uuid: String,
    /// Error that getting its handle gives.
    #[serde(default)]
    pub handle: Option<String>,
    /// Numbers by name: `utilization` and `memory_utilization` (percent), `memory_total` and
    /// `memory_used` (bytes), `power` and `power_limit` (mW), `energy` (mJ), `temperature` (°C),
    /// `clock_graphics`, `clock_sm` and `clock_memory` (MHz), `throttle_reasons` (bits),
    /// `violation_<policy>` (ns), `ecc_corrected`, `ecc_uncorrected`, `nvlink_receive` and
    /// `nvlink_transmit` (KiB).
    #[serde(flatten)]
    pub numbers: BTreeMap<String, Number>,
    /// Error that asking for critical errors to be told gives.
    #[serde(default)]
    pub events: Option<String>,
    /// Critical errors that are told, one a call; `null`: none at this call.
    #[serde(default)]
    xids: Vec<Option<Step>>,
    /// Processes that compute.
    #[serde(default)]
    pub processes: Vec<Process>,
    /// Processes that draw.
    #[serde(default)]
    pub graphics: Vec<Process>,
    /// Parts, where MIG is on.
    #[serde(default)]
    pub mig: Vec<Device>,
    /// Critical errors told so far.
    #[serde(skip)]
    pub told: AtomicUsize,
}

/// A process on a GPU.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number on the host.
    pub pid: u32,
    /// Bytes; `null`: the library does not know.
    pub memory: Option<u64>,
}

/// A number over time.
#[derive(Debug, Deserialize)]
#[serde(from = "Written")]
pub struct Number {
    steps: Vec<Step>,
    calls: AtomicUsize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Step {
    Value(u64),
    Error(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Always(Step),
    OneAfterTheOther(Vec<Step>),
}

impl From<Written> for Number {
    fn from(written: Written) -> Self {
        let steps = match written {
            Written::Always(step) => vec![step],
            Written::OneAfterTheOther(steps) => steps,
        };
        Self { steps, calls: AtomicUsize::new(0) }
    }
}

impl Device {
    /// The next value of a number.
    ///
    /// # Errors
    /// The one that the scenario names; NOT_SUPPORTED for a number that is not there.
    pub fn next(&self, name: &str) -> Result<u64, nvml::nvmlReturn_t> {
        let number = self.numbers.get(name).ok_or_else(|| code("NOT_SUPPORTED"))?;
        let call = number.calls.fetch_add(1, Ordering::Relaxed);
        match number.steps.get(call).or_else(|| number.steps.last()) {
            Some(Step::Value(value)) => Ok(*value),
            Some(Step::Error(name)) => Err(code(name)),
            None => Err(code("NOT_SUPPORTED")),
        }
    }

    /// The next critical error.
    ///
    /// # Errors
    /// TIMEOUT where there is none at this call, or the one that the scenario names.
    pub fn next_xid(&self) -> Result<u64, nvml::nvmlReturn_t> {
        match self.xids.get(self.told.fetch_add(1, Ordering::Relaxed)) {
            Some(Some(Step::Value(xid))) => Ok(*xid),
            Some(Some(Step::Error(name))) => Err(code(name)),
            Some(None) | None => Err(code("TIMEOUT")),
        }
    }
}

/// The number of an error.
#[must_use]
pub fn code(name: &str) -> nvml::nvmlReturn_t {
    match name {
        "DRIVER_NOT_LOADED" => nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED,
        "FUNCTION_NOT_FOUND" => nvml::nvmlReturn_enum_NVML_ERROR_FUNCTION_NOT_FOUND,
        "GPU_IS_LOST" => nvml::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
        "NO_PERMISSION" => nvml::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
        "NOT_SUPPORTED" => nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        "RESET_REQUIRED" => nvml::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
        "TIMEOUT" => nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT,
        _ => nvml::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}

/// The scenario of this process; absent where none is named, or it cannot be read, which is told.
pub fn current() -> Option<&'static Scenario> {
    static CURRENT: OnceLock<Option<Scenario>> = OnceLock::new();
    CURRENT.get_or_init(|| std::env::var_os(VARIABLE).and_then(|file| read(&file))).as_ref()
}

#[expect(clippy::print_stderr, reason = "a test that goes wrong shows it")]
fn read(file: &OsStr) -> Option<Scenario> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string());
    let scenario = bytes.and_then(|bytes| {
        serde_json::from_slice(&bytes).map_err(|error: serde_json::Error| error.to_string())
    });
    let told = |error| eprintln!("fake-nvml: {VARIABLE} '{}': {error}", file.display());
    scenario.map_err(told).ok()
}

/// Takes the time that the scenario gives to this call.
pub fn take_time(call: &str) {
    let ms = current().and_then(|scenario| scenario.slow_ms.get(call));
    if let Some(ms) = ms {
        thread::sleep(Duration::from_millis(*ms));
    }
}
