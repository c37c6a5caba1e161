//! One GPU, read again and again.

use std::{collections::BTreeMap, sync::Arc};

use nvml_wrapper::{
    Device as Handle, Nvml, enums::device::UsedGpuMemory, error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};

use super::{
    Device, Identity, Instance, Process,
    quantity::{self, known},
    refusal::reason,
    xid::Xids,
};

/// A GPU with what has to be remembered between readings.
pub(super) struct Watcher {
    /// How to ask for it, or why that is refused.
    handle: Result<Handle<'static>, &'static str>,
    identity: Arc<Identity>,
    numbers: Numbers,
    processes: Vec<Process>,
    instances: Vec<Instance>,
    /// Absent if the GPU may not be read at all.
    xids: Option<Xids>,
}

/// One place for each of `quantity::ALL`.
struct Numbers {
    /// Those that this GPU will never have.
    refused: Vec<bool>,
    /// The last values: what is slow stands here in between.
    values: Vec<Option<f64>>,
}

impl Watcher {
    pub(super) fn new(nvml: &'static Nvml, index: u32, driver: &str) -> Self {
        let handle = nvml.device_by_index(index);
        let ask = |of: fn(&Handle<'static>) -> Result<String, NvmlError>| {
            handle.as_ref().ok().and_then(|handle| of(handle).ok()).unwrap_or_default()
        };
        let identity = Identity {
            gpu: index.to_string(),
            uuid: ask(Handle::uuid),
            name: ask(Handle::name),
            driver: driver.to_owned(),
        };
        Self {
            xids: handle.as_ref().ok().map(|handle| Xids::listen(nvml, handle)),
            handle: handle.map_err(|error| reason(&error)),
            identity: Arc::new(identity),
            numbers: Numbers::new(),
            processes: Vec::new(),
            instances: Vec::new(),
        }
    }

    /// All values; `slow` also asks for what is dear.
    pub(super) fn read(&mut self, slow: bool) -> Device {
        let throttled = self.ask(slow);
        if let Some(xids) = &mut self.xids {
            xids.take();
        }
        let good = throttled.is_ok();
        fn copy<T: Clone>(good: bool, values: &[T]) -> Vec<T> {
            if good { values.to_vec() } else { Vec::new() }
        }
        Device {
            identity: Arc::clone(&self.identity),
            absent: throttled.err(),
            throttled: throttled.ok().flatten(),
            values: copy(good, &self.numbers.values),
            processes: copy(good, &self.processes),
            instances: copy(good, &self.instances),
            xids: self.xids.as_ref().map(|xids| xids.counts().cloned()),
            last_xid: self.xids.as_ref().and_then(Xids::last),
        }
    }

    /// Takes the values over; gives the reasons that hold clocks down.
    ///
    /// # Errors
    /// Why the GPU as a whole cannot be read.
    fn ask(&mut self, slow: bool) -> Result<Option<u64>, &'static str> {
        let handle = self.handle.as_ref().map_err(|reason| *reason)?;
        self.numbers.read(handle, slow).map_err(|error| reason(&error))?;
        if slow {
            self.instances = instances(handle);
            self.processes = processes(handle);
        }
        throttled(handle).map_err(|error| reason(&error))
    }
}

impl Numbers {
    fn new() -> Self {
        let count = quantity::ALL.len();
        Self { refused: vec![false; count], values: vec![None; count] }
    }

    /// # Errors
    /// The GPU as a whole cannot be used any more.
    fn read(&mut self, handle: &Handle<'_>, slow: bool) -> Result<(), NvmlError> {
        let known = self.values.iter_mut().zip(&mut self.refused);
        for (quantity, (value, refused)) in quantity::ALL.iter().zip(known) {
            if *refused || (quantity.slow && !slow) {
                continue;
            }
            *value = match (quantity.read)(handle) {
                Ok(value) => value,
                Err(error) if is_end(&error) => return Err(error),
                Err(error) => {
                    *refused = is_final(&error);
                    None
                }
            };
        }
        Ok(())
    }
}

/// Parts of the GPU; none where MIG is off or unknown.
fn instances(handle: &Handle<'_>) -> Vec<Instance> {
    let read = |(number, part): (u32, Handle<'_>)| {
        let memory = part.memory_info().ok();
        Instance {
            number: number.to_string(),
            uuid: part.uuid().unwrap_or_default(),
            used: memory.as_ref().and_then(|memory| known(memory.used)),
            total: memory.as_ref().and_then(|memory| known(memory.total)),
        }
    };
    parts(handle).map(read).collect()
}

/// Processes with memory on the GPU. Where it is parted only its parts may list them.
fn processes(handle: &Handle<'_>) -> Vec<Process> {
    let mut bytes_by_pid: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, part) in parts(handle) {
        for (pid, bytes) in listed(&part) {
            *bytes_by_pid.entry(pid).or_default() += bytes;
        }
    }
    if bytes_by_pid.is_empty() {
        bytes_by_pid = listed(handle);
    }
    bytes_by_pid.into_iter().map(|(pid, bytes)| Process { pid, bytes }).collect()
}

/// Bytes by process, as one GPU or part of one lists them.
fn listed(handle: &Handle<'_>) -> BTreeMap<u32, u64> {
    let mut bytes_by_pid = BTreeMap::new();
    for list in [handle.running_compute_processes(), handle.running_graphics_processes()] {
        for Process { pid, bytes } in list.unwrap_or_default().iter().filter_map(process) {
            // A process that computes and draws is in both lists with all it has.
            let known = bytes_by_pid.entry(pid).or_insert(0);
            *known = bytes.max(*known);
        }
    }
    bytes_by_pid
}

/// The instances of a GPU that is parted (MIG), with their numbers.
fn parts<'n>(handle: &Handle<'n>) -> impl Iterator<Item = (u32, Handle<'n>)> {
    let parted = handle.mig_mode().is_ok_and(|mode| mode.current != 0);
    let count = if parted { handle.mig_device_count().unwrap_or(0) } else { 0 };
    // Numbers without an instance are in between.
    (0..count).filter_map(|number| Some((number, handle.mig_device_by_index(number).ok()?)))
}

fn throttled(handle: &Handle<'_>) -> Result<Option<u64>, NvmlError> {
    match handle.current_throttle_reasons() {
        Ok(reasons) => Ok(Some(reasons.bits())),
        Err(error) if is_end(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn process(info: &ProcessInfo) -> Option<Process> {
    match info.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(Process { pid: info.pid, bytes: known(bytes)? }),
        UsedGpuMemory::Unavailable => None,
    }
}

/// The GPU is gone, until it is reset at least.
fn is_end(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired)
}

/// Asking again will not help.
fn is_final(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)
    )
}
