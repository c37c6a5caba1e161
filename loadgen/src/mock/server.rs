//! What the server knows, and what it decides about a request before anything is sent.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use aifb_schema::units::Span;

use super::{
    Options,
    alarm::Alarms,
    fault::{Fault, Faults},
    gate::{Gate, Hold, Slot},
    play::{Schedule, Truth},
    protocol::{self, Request, Settings},
    script::{Answer, Whole},
};
use crate::clock::mono_ns;

/// The server.
pub(super) struct Server {
    options: Options,
    pub(super) alarms: Alarms,
    pub(super) truth: Truth,
    gate: Option<Gate>,
    /// The model still has to be pulled.
    missing: Cell<bool>,
    /// Freezes that have not been scheduled yet.
    freezes: RefCell<Vec<Freeze>>,
}

/// A time in which the server does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freeze {
    /// After the first request.
    at: Duration,
    length: Duration,
}

impl std::str::FromStr for Freeze {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, length) = text
            .split_once(':')
            .ok_or_else(|| format!("'{text}': expected AT:FOR, such as 3s:1s"))?;
        let span = |text: &str| text.parse::<Span>().map_err(|error| error.to_string());
        Ok(Self { at: span(at)?.get(), length: span(length)?.get() })
    }
}

/// An answer with what goes wrong in it.
pub(super) struct Decision {
    pub(super) answer: Answer,
    pub(super) faults: Faults,
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Server {
    pub(super) fn new(options: Options, alarms: Alarms) -> Self {
        let gate = match (options.slots, options.capacity) {
            (Some(slots), _) => Some(Gate::new(slots, Hold::Answer, alarms.clone())),
            (None, Some(rate)) => {
                let hold = nanos(Duration::from_secs_f64(1.0 / rate.get()));
                Some(Gate::new(1, Hold::Nanos(hold), alarms.clone()))
            }
            (None, None) => None,
        };
        let (missing, freezes) = (Cell::new(options.missing), RefCell::new(options.freeze.clone()));
        Self { options, alarms, truth: Truth::default(), gate, missing, freezes }
    }

    /// Decides what the answer is. A request that is part of the load is counted.
    pub(super) fn decide(&self, request: &Request<'_>) -> Decision {
        if request.path == "/truth" {
            let answer = Answer::Plain(Whole::json(self.own_truth().to_string(), 0));
            return Decision { answer, faults: Faults::default() };
        }
        let number = self.truth.answers.get() + 1;
        let faults: Faults =
            self.options.fault.iter().filter_map(|rule| rule.applies(number)).collect();
        let settings = Settings {
            model: self.options.model.as_deref(),
            tokens: self.options.tokens,
            tokens_per_event: self.options.tokens_per_event,
            dimension: self.options.dimension,
            missing: &self.missing,
            faults,
        };
        let answer = match protocol::answer(request, &settings) {
            answer @ (Answer::Plain(_) | Answer::Aside(_)) => {
                return Decision { answer, faults: Faults::default() };
            }
            answer => answer,
        };
        self.truth.answers.set(number);
        Decision { answer: replaced(answer, faults), faults }
    }

    /// Waits for capacity; gives when the service begins, and the slot to hold meanwhile.
    pub(super) async fn admit(&self, arrived: u64, events: u64) -> (Schedule, Option<Slot<'_>>) {
        let (mut start, mut held) = (arrived, None);
        if let Some(gate) = &self.gate {
            let slot = gate.enter(arrived).await;
            start = slot.start;
            held = Some(slot);
        }
        let schedule = self.schedule(start);
        if let Some(slot) = &mut held {
            slot.over_at(schedule.over(events));
        }
        (schedule, held.filter(Slot::is_held))
    }

    /// The schedule of a service that began at `start`.
    pub(super) fn schedule(&self, start: u64) -> Schedule {
        let (ttft, itl) = (self.options.ttft.get(), self.options.itl.get());
        Schedule { start, ttft: nanos(ttft), itl: nanos(itl) }
    }

    /// Whether connections end after each streamed answer.
    pub(super) fn closes(&self) -> bool {
        self.options.close
    }

    /// Schedules the freezes, once, from the first request on.
    pub(super) fn first_request(&self, at: u64) {
        for freeze in self.freezes.take() {
            let alarms = self.alarms.clone();
            tokio::task::spawn_local(async move {
                let from = at.saturating_add(nanos(freeze.at));
                alarms.until(from).await;
                // The only thread sleeps: nothing is accepted, read or written.
                let end = from.saturating_add(nanos(freeze.length));
                std::thread::sleep(Duration::from_nanos(end.saturating_sub(mono_ns())));
            });
        }
    }

    fn own_truth(&self) -> serde_json::Value {
        let Truth { answers, events, late_sum_ns, late_max_ns } = &self.truth;
        serde_json::json!({
            "answers": answers.get(),
            "events": events.get(),
            "late_mean_ns": late_sum_ns.get().checked_div(events.get()),
            "late_max_ns": late_max_ns.get(),
            "ttft_ns": nanos(self.options.ttft.get()),
            "itl_ns": nanos(self.options.itl.get()),
            "slots": self.options.slots,
            "capacity_per_second": self.options.capacity.map(|rate| rate.get()),
        })
    }
}

/// The answer, or what is sent in its place.
fn replaced(answer: Answer, faults: Faults) -> Answer {
    const JSON: &str = "application/json";
    let instead = |status, content_type, body: &[u8]| {
        Answer::Served(Whole { content_type, ..Whole::status(status, body, 1) })
    };
    let error = br#"{"error":{"message":"asked for"}}"#;
    if faults.has(Fault::Status500) {
        Answer::Plain(Whole::status("500 Internal Server Error", error.as_slice(), 0))
    } else if faults.has(Fault::Status429) {
        Answer::Plain(Whole::status("429 Too Many Requests", error.as_slice(), 0))
    } else if faults.has(Fault::ErrorBody) {
        instead("200 OK", JSON, error)
    } else if faults.has(Fault::Html) {
        instead("200 OK", "text/html", b"<html><body>Please log in.</body></html>")
    } else if matches!(answer, Answer::Served(_)) && faults.has(Fault::Garbage) {
        instead("200 OK", JSON, b"{broken")
    } else if matches!(answer, Answer::Served(_)) && faults.has(Fault::BadUtf8) {
        instead("200 OK", JSON, b"{\"error\":\"\xff\"}")
    } else {
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezes_are_read() {
        let freeze: Freeze = "1500ms:1s".parse().unwrap();
        assert_eq!(
            (freeze.at, freeze.length),
            (Duration::from_millis(1500), Duration::from_secs(1))
        );
        for wrong in ["", "1s", "1s:", "x:1s", "1:2"] {
            assert!(wrong.parse::<Freeze>().is_err(), "{wrong}");
        }
    }
}
