//! The library's symbols.
//!
//! A device handle is no pointer but a number: its place in the scenario from 1, and in the upper
//! half that of a part of it from 1. Nothing ever reads through it.
#![expect(unsafe_code, reason = "symbols of C")]
#![allow(clippy::missing_safety_doc, reason = "each keeps the contract of NVML's own")]

use std::{
    ffi::{c_char, c_int, c_uint, c_ulonglong},
    ptr,
    sync::OnceLock,
};

use nvml_wrapper_sys::bindings::{
    self as nvml, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlFieldValue_t, nvmlMemory_v2_t,
    nvmlProcessInfo_t, nvmlReturn_t, nvmlUtilization_t, nvmlViolationTime_t,
};

use crate::scenario::{self, Device, Process, Scenario, code};

type Answer<T> = Result<T, nvmlReturn_t>;

const SUCCESS: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_SUCCESS;
const INVALID: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const TOO_SMALL: nvmlReturn_t = nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;

/// Where the number of a part begins in a handle.
const PART_BITS: u32 = 16;

fn scenario() -> Answer<&'static Scenario> {
    scenario::current().ok_or(nvml::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED)
}

fn handle(device: usize, part: Option<usize>) -> nvmlDevice_t {
    let part = part.map_or(0, |part| part + 1);
    ptr::without_provenance_mut((device + 1) | (part << PART_BITS))
}

fn device(handle: nvmlDevice_t) -> Answer<&'static Device> {
    let number = handle.addr();
    let place = (number & ((1 << PART_BITS) - 1)).checked_sub(1).ok_or(INVALID)?;
    let whole = scenario()?.devices.get(place).ok_or(INVALID)?;
    match (number >> PART_BITS).checked_sub(1) {
        None => Ok(whole),
        Some(part) => whole.mig.get(part).ok_or(INVALID),
    }
}

/// Writes an answer where the caller wants it.
///
/// # Safety
/// `out` is null or may be written.
unsafe fn give<T>(call: &str, out: *mut T, answer: Answer<T>) -> nvmlReturn_t {
    scenario::take_time(call);
    match answer {
        Err(error) => error,
        Ok(_) if out.is_null() => INVALID,
        Ok(value) => {
            // SAFETY: not null, and the caller of NVML gives a place for a `T`.
            unsafe { out.write(value) };
            SUCCESS
        }
    }
}

/// # Safety
/// `out` has room for `length` bytes.
unsafe fn give_text(out: *mut c_char, length: c_uint, text: Answer<&str>) -> nvmlReturn_t {
    let text = match text {
        Ok(text) => text,
        Err(error) => return error,
    };
    if out.is_null() || text.len() >= length as usize {
        return TOO_SMALL;
    }
    // SAFETY: the text and its end are shorter than the caller's room, which is not ours.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len()) };
    // SAFETY: within the room, as above.
    let end = unsafe { out.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    SUCCESS
}

fn narrow(value: Answer<u64>) -> Answer<c_uint> {
    value.map(|value| c_uint::try_from(value).unwrap_or(c_uint::MAX))
}

fn number(of: nvmlDevice_t, name: &str) -> Answer<u64> {
    device(of)?.next(name)
}

/// Calls that give one number of a device.
macro_rules! numbers {
    ($($call:ident($kind:ty) = $name:literal, $convert:expr;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $call(of: nvmlDevice_t, out: *mut $kind) -> nvmlReturn_t {
                let convert: fn(Answer<u64>) -> Answer<$kind> = $convert;
                // SAFETY: NVML's own contract.
                unsafe { give(stringify!($call), out, convert(number(of, $name))) }
            }
        )*
    };
}

numbers! {
    nvmlDeviceGetPowerUsage(c_uint) = "power", narrow;
    nvmlDeviceGetEnforcedPowerLimit(c_uint) = "power_limit", narrow;
    nvmlDeviceGetTotalEnergyConsumption(c_ulonglong) = "energy", |value| value;
    nvmlDeviceGetCurrentClocksThrottleReasons(c_ulonglong) = "throttle_reasons", |value| value;
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    scenario::take_time("nvmlInit_v2");
    match scenario() {
        Ok(scenario) => scenario.init.as_deref().map_or(SUCCESS, code),
        Err(_) => nvml::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(out: *mut c_char, length: c_uint) -> nvmlReturn_t {
    let text = scenario().map(|scenario| scenario.driver.as_str());
    // SAFETY: NVML's own contract.
    unsafe { give_text(out, length, text) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> nvmlReturn_t {
    let count = scenario().map(|scenario| scenario.devices.len() as c_uint);
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetCount_v2", out, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let index = index as usize;
    let found = scenario().and_then(|scenario| {
        let device = scenario.devices.get(index).ok_or(INVALID)?;
        device.handle.as_deref().map_or_else(|| Ok(handle(index, None)), |name| Err(code(name)))
    });
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetHandleByIndex_v2", out, found) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(
    of: nvmlDevice_t,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's own contract.
    unsafe { give_text(out, length, device(of).map(|device| device.name.as_str())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(
    of: nvmlDevice_t,
    out: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's own contract.
    unsafe { give_text(out, length, device(of).map(|device| device.uuid.as_str())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    of: nvmlDevice_t,
    out: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    let both = || {
        let gpu = narrow(number(of, "utilization"))?;
        // One call gives both: what is missing is a number that cannot be.
        let memory = narrow(number(of, "memory_utilization")).unwrap_or(c_uint::MAX);
        Ok(nvmlUtilization_t { gpu, memory })
    };
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetUtilizationRates", out, both()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    of: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    let info = || {
        let (total, used) = (number(of, "memory_total")?, number(of, "memory_used")?);
        let free = total.saturating_sub(used);
        Ok(nvmlMemory_v2_t { version: 2, total, reserved: 0, free, used })
    };
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetMemoryInfo_v2", out, info()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(
    of: nvmlDevice_t,
    _sensor: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetTemperature", out, narrow(number(of, "temperature"))) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetClockInfo(
    of: nvmlDevice_t,
    clock: c_uint,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let name = match clock {
        nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS => "clock_graphics",
        nvml::nvmlClockType_enum_NVML_CLOCK_SM => "clock_sm",
        _ => "clock_memory",
    };
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetClockInfo", out, narrow(number(of, name))) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetViolationStatus(
    of: nvmlDevice_t,
    policy: c_uint,
    out: *mut nvmlViolationTime_t,
) -> nvmlReturn_t {
    let policies = ["power", "thermal", "sync_boost", "board_limit", "low", "reliability"];
    let policy = policies.get(policy as usize).ok_or(INVALID);
    let time = policy.and_then(|policy| number(of, &format!("violation_{policy}")));
    let time = time.map(|ns| nvmlViolationTime_t { referenceTime: 0, violationTime: ns });
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetViolationStatus", out, time) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    of: nvmlDevice_t,
    kind: c_uint,
    _counter: c_uint,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    let name = if kind == 0 { "ecc_corrected" } else { "ecc_uncorrected" };
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetTotalEccErrors", out, number(of, name)) }
}

/// Only NVLink's payload over all links.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    of: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    scenario::take_time("nvmlDeviceGetFieldValues");
    let Ok(count) = usize::try_from(count) else { return INVALID };
    if values.is_null() {
        return INVALID;
    }
    // SAFETY: the caller gives `count` initialised values, which nobody else uses meanwhile.
    for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
        let name = match (value.fieldId, value.scopeId) {
            (nvml::field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, c_uint::MAX) => {
                "nvlink_receive"
            }
            (nvml::field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, c_uint::MAX) => {
                "nvlink_transmit"
            }
            _ => "",
        };
        value.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        match number(of, name) {
            Ok(count) => {
                value.nvmlReturn = SUCCESS;
                value.value.ullVal = count;
            }
            Err(error) => value.nvmlReturn = error,
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: NVML's own contract.
    unsafe { give_processes(count, out, device(of).map(|device| device.processes.as_slice())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: NVML's own contract.
    unsafe { give_processes(count, out, device(of).map(|device| device.graphics.as_slice())) }
}

/// # Safety
/// `count` may be read and written; `out` has room for as many processes as it says.
unsafe fn give_processes(
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
    processes: Answer<&[Process]>,
) -> nvmlReturn_t {
    let processes = match processes {
        Ok(processes) => processes,
        Err(error) => return error,
    };
    // SAFETY: NVML's own contract.
    let Some(count) = (unsafe { count.as_mut() }) else { return INVALID };
    let room = std::mem::replace(count, processes.len() as c_uint) as usize;
    if room < processes.len() {
        return TOO_SMALL;
    }
    for (place, process) in processes.iter().enumerate() {
        let info = nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.memory.unwrap_or(u64::MAX),
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        // SAFETY: within the room that the caller gives.
        let at = unsafe { out.add(place) };
        // SAFETY: as above.
        unsafe { at.write(info) };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    of: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    let on = device(of).map(|device| c_uint::from(!device.mig.is_empty()));
    // SAFETY: NVML's own contract.
    let answer = unsafe { give("nvmlDeviceGetMigMode", current, on) };
    if answer != SUCCESS {
        return answer;
    }
    // SAFETY: NVML's own contract.
    unsafe { give("", pending, on) }
}

/// One more than there are: a number without a part is ordinary.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    of: nvmlDevice_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    let count = device(of).map(|device| device.mig.len() as c_uint + 1);
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetMaxMigDeviceCount", out, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    of: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let index = index as usize;
    let part = device(of).and_then(|device| {
        device.mig.get(index).ok_or(nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?;
        Ok(handle(of.addr() - 1, Some(index)))
    });
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlDeviceGetMigDeviceHandleByIndex", out, part) }
}

/// Which device each set of events is of. A set is a number from 1, like a device.
static SETS: OnceLock<std::sync::Mutex<Vec<usize>>> = OnceLock::new();

fn sets() -> std::sync::MutexGuard<'static, Vec<usize>> {
    let sets = SETS.get_or_init(Default::default);
    sets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    let mut sets = sets();
    sets.push(0);
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlEventSetCreate", out, Ok(ptr::without_provenance_mut(sets.len()))) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    of: nvmlDevice_t,
    _kinds: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    scenario::take_time("nvmlDeviceRegisterEvents");
    let refused = match device(of) {
        Ok(device) => device.events.as_deref().map(code),
        Err(error) => Some(error),
    };
    match (refused, sets().get_mut(set.addr().wrapping_sub(1))) {
        (Some(error), _) => error,
        (None, None) => INVALID,
        (None, Some(device)) => {
            *device = of.addr();
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    out: *mut nvmlEventData_t,
    _timeout_ms: c_uint,
) -> nvmlReturn_t {
    let of = sets().get(set.addr().wrapping_sub(1)).copied().unwrap_or(0);
    let of: nvmlDevice_t = ptr::without_provenance_mut(of);
    let xid = device(of).and_then(Device::next_xid);
    let event = xid.map(|xid| nvmlEventData_t {
        device: of,
        eventType: u64::from(nvml::nvmlEventTypeXidCriticalError),
        eventData: xid,
        gpuInstanceId: c_uint::MAX,
        computeInstanceId: c_uint::MAX,
    });
    // SAFETY: NVML's own contract.
    unsafe { give("nvmlEventSetWait_v2", out, event) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(_set: nvmlEventSet_t) -> nvmlReturn_t {
    SUCCESS
}
