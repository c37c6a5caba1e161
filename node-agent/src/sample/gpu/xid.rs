//! Critical errors (XID) of one GPU, as the driver tells them (NVML's events).
//!
//! The driver tells that there was an error and the number of the latest: of several between two
//! looks, each counts as the last (NVML API reference, nvmlEventSetWait_v2).

use std::collections::BTreeMap;

use nvml_wrapper::{
    Device as Handle, EventSet, Nvml, bitmasks::event::EventTypes, enums::event::XidError,
    error::NvmlError,
};

use super::refusal::reason;

/// Errors taken over at one look; more wait for the next.
const AT_ONCE: u32 = 16;

/// How many errors there were of each number; absent: the driver did not know which.
pub(super) type Counts = BTreeMap<Option<u64>, u64>;

/// The errors of one GPU since it was first looked at.
pub(super) struct Xids {
    /// Source of the errors, or why there is none.
    events: Result<EventSet<'static>, &'static str>,
    counts: Counts,
    last: Option<u64>,
}

impl Xids {
    /// Asks the driver to tell them.
    pub(super) fn listen(nvml: &'static Nvml, handle: &Handle<'static>) -> Self {
        Self { events: events(nvml, handle), counts: Counts::new(), last: None }
    }

    /// Takes over what was reported meanwhile, without waiting.
    pub(super) fn take(&mut self) {
        let Ok(events) = &self.events else { return };
        for _ in 0..AT_ONCE {
            match events.wait(0) {
                Ok(event) => {
                    let Some(xid) = event.event_data else { continue };
                    let number = match xid {
                        XidError::Value(number) => Some(number),
                        XidError::Unknown => None,
                    };
                    *self.counts.entry(number).or_default() += 1;
                    self.last = number.or(self.last);
                }
                Err(error @ (NvmlError::NotSupported | NvmlError::FunctionNotFound)) => {
                    self.events = Err(reason(&error));
                    return;
                }
                // There is none, or the GPU is gone for now.
                Err(_) => return,
            }
        }
    }

    /// The errors by number, or why they are not reported.
    ///
    /// # Errors
    /// The driver does not tell them.
    pub(super) fn counts(&self) -> Result<&Counts, &'static str> {
        self.events.as_ref().map(|_| &self.counts).map_err(|reason| *reason)
    }

    /// The number of the last one.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }
}

fn events(
    nvml: &'static Nvml,
    handle: &Handle<'static>,
) -> Result<EventSet<'static>, &'static str> {
    let library = nvml.lib();
    // Without the last of them a set could not even be given back.
    if library.nvmlEventSetWait_v2.is_err() || library.nvmlEventSetFree.is_err() {
        return Err("function_not_found");
    }
    let set = nvml.create_event_set().map_err(|error| reason(&error))?;
    let registered = handle.register_events(EventTypes::CRITICAL_XID_ERROR, set);
    registered.map_err(|refused| reason(&refused.error))
}

/// What an error's number means, of those that are seen on compute nodes (NVIDIA GPU Debug
/// Guidelines, XID errors).
pub(in crate::sample) fn meaning(xid: &str) -> Option<&'static str> {
    Some(match xid {
        "13" => "exception in the graphics engine, most likely of the program",
        "31" => "memory page fault, most likely of the program",
        "43" => "the GPU stopped a program's work",
        "45" => "work was removed after an earlier error, or its program ended",
        "48" => "uncorrectable memory error",
        "63" => "a memory page or row was marked for repair",
        "64" => "a memory page or row could not be marked for repair",
        "74" => "NVLink error",
        "79" => "the GPU has fallen off the bus",
        "92" => "many corrected memory errors",
        "94" => "contained memory error",
        "95" => "uncontained memory error",
        "119" | "120" => "the GPU's system processor does not answer",
        _ => return None,
    })
}
