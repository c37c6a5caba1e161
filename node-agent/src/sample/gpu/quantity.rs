//! The numbers that a GPU has one of, each with its family, its unit and where it comes from.
//!
//! Sources: the NVML API reference, and nvml-wrapper for what each call gives. What is not
//! available stands there as the largest number of its type, or (in what DCGM passes on) as one
//! of the sixteen numbers at the end of the signed range: all that becomes absent.

use aifb_schema::metric::{self, Family};
use nvml_wrapper::{
    Device,
    enum_wrappers::device::{Clock, EccCounter, MemoryError, PerformancePolicy, TemperatureSensor},
    error::NvmlError,
    sys_exports::field_id,
};

use crate::sys;

/// From here on a 32-bit number is a sign for "not available".
const BLANK_32: u32 = 0x7fff_fff0;

/// From here on a 64-bit number is a sign for "not available".
const BLANK_64: u64 = 0x7fff_ffff_ffff_fff0;

/// One number of a GPU.
pub(super) struct Quantity {
    pub(super) family: &'static Family,
    /// The label besides GPU and UUID, where the family has one.
    pub(super) label: Option<(&'static str, &'static str)>,
    /// Changes seldom or is dear to ask for: once a second is enough.
    pub(super) slow: bool,
    pub(super) read: Read,
}

type Read = fn(&Device<'_>) -> Result<Option<f64>, NvmlError>;

const fn fast(family: &'static Family, read: Read) -> Quantity {
    Quantity { family, label: None, slow: false, read }
}

const fn slow(family: &'static Family, read: Read) -> Quantity {
    Quantity { family, label: None, slow: true, read }
}

impl Quantity {
    const fn labelled(self, key: &'static str, value: &'static str) -> Self {
        Self { label: Some((key, value)), ..self }
    }
}

/// All of them, in the order in which they are read: what others are compared with comes first.
pub(super) static ALL: &[Quantity] = &[
    fast(&metric::GPU_ENERGY, |gpu| Ok(wide(gpu.total_energy_consumption()?, 1e-3))),
    fast(&metric::GPU_POWER, |gpu| Ok(narrow(gpu.power_usage()?, 1e-3))),
    fast(&metric::GPU_UTILIZATION, |gpu| Ok(percent(gpu.utilization_rates()?.gpu))),
    slow(&metric::GPU_MEMORY_UTILIZATION, |gpu| Ok(percent(gpu.utilization_rates()?.memory))),
    fast(&metric::GPU_MEMORY_USED, |gpu| Ok(wide(gpu.memory_info()?.used, 1.0))),
    slow(&metric::GPU_MEMORY_TOTAL, |gpu| Ok(wide(gpu.memory_info()?.total, 1.0))),
    slow(&metric::GPU_POWER_LIMIT, |gpu| Ok(narrow(gpu.enforced_power_limit()?, 1e-3))),
    slow(&metric::GPU_TEMPERATURE, |gpu| Ok(narrow(gpu.temperature(TemperatureSensor::Gpu)?, 1.0))),
    fast(&metric::GPU_CLOCK, |gpu| Ok(narrow(gpu.clock_info(Clock::Graphics)?, 1e6)))
        .labelled("domain", "graphics"),
    fast(&metric::GPU_CLOCK, |gpu| Ok(narrow(gpu.clock_info(Clock::SM)?, 1e6)))
        .labelled("domain", "sm"),
    slow(&metric::GPU_CLOCK, |gpu| Ok(narrow(gpu.clock_info(Clock::Memory)?, 1e6)))
        .labelled("domain", "memory"),
    throttle("power", |gpu| held(gpu, PerformancePolicy::Power)),
    throttle("thermal", |gpu| held(gpu, PerformancePolicy::Thermal)),
    throttle("sync_boost", |gpu| held(gpu, PerformancePolicy::SyncBoost)),
    throttle("board_limit", |gpu| held(gpu, PerformancePolicy::BoardLimit)),
    throttle("reliability", |gpu| held(gpu, PerformancePolicy::Reliability)),
    slow(&metric::GPU_ECC_ERRORS, |gpu| errors(gpu, MemoryError::Corrected))
        .labelled("kind", "corrected"),
    slow(&metric::GPU_ECC_ERRORS, |gpu| errors(gpu, MemoryError::Uncorrected))
        .labelled("kind", "uncorrected"),
    nvlink("receive", |gpu| sent(gpu, field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX)),
    nvlink("transmit", |gpu| sent(gpu, field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX)),
];

const fn nvlink(direction: &'static str, read: Read) -> Quantity {
    slow(&metric::GPU_NVLINK, read).labelled("direction", direction)
}

/// What went over all links, which the library counts in KiB.
fn sent(gpu: &Device<'_>, field: u32) -> Result<Option<f64>, NvmlError> {
    Ok(sys::nvml_field_of_all_links(gpu, field)?.and_then(|count| wide(count, 1024.0)))
}

const fn throttle(reason: &'static str, read: Read) -> Quantity {
    slow(&metric::GPU_THROTTLE, read).labelled("reason", reason)
}

/// Time in nanoseconds for which a policy has held the clocks down.
fn held(gpu: &Device<'_>, policy: PerformancePolicy) -> Result<Option<f64>, NvmlError> {
    Ok(wide(gpu.violation_status(policy)?.violation_time, 1e-9))
}

/// Errors since the driver was loaded.
fn errors(gpu: &Device<'_>, kind: MemoryError) -> Result<Option<f64>, NvmlError> {
    Ok(wide(gpu.total_ecc_errors(kind, EccCounter::Volatile)?, 1.0))
}

fn percent(value: u32) -> Option<f64> {
    (value <= 100).then(|| f64::from(value) / 100.0)
}

fn narrow(value: u32, unit: f64) -> Option<f64> {
    (value < BLANK_32).then(|| scaled(f64::from(value), unit))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53: 9 PB, 285 years of a kW in mJ")]
fn wide(value: u64, unit: f64) -> Option<f64> {
    known(value).map(|value| scaled(value as f64, unit))
}

/// A count that is not one of the signs for "not available".
pub(super) fn known(value: u64) -> Option<u64> {
    (value < BLANK_64).then_some(value)
}

/// Divides where that is exact: 0.001 is no binary fraction.
fn scaled(value: f64, unit: f64) -> f64 {
    if unit < 1.0 { value / (1.0 / unit).round() } else { value * unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_for_not_available_are_absent() {
        for value in [u32::MAX, BLANK_32, 0x7fff_fff3] {
            assert_eq!(narrow(value, 1e-3), None, "{value:x}");
        }
        for value in [u64::MAX, BLANK_64, 9_223_372_036_854_775_794] {
            assert_eq!(wide(value, 1e-3), None, "{value:x}");
        }
        assert_eq!(percent(101), None);
    }

    #[test]
    fn units_are_exact() {
        assert_eq!(narrow(350_123, 1e-3), Some(350.123));
        assert_eq!(narrow(1_980, 1e6), Some(1_980_000_000.0));
        assert_eq!(wide(8_000_000_000_123, 1e-3), Some(8_000_000_000.123));
        assert_eq!(percent(100), Some(1.0));
    }
}
