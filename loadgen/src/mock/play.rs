//! Plays a script on its schedule, into whatever carries it.

use std::{cell::Cell, io};

use super::{
    alarm::Alarms,
    fault::{Fault, Faults},
    script::Script,
};
use crate::clock::mono_ns;

/// Events of one write, where several come together.
const COALESCED: u64 = 4;

/// What carries an answer: a body of HTTP/1.1 or HTTP/2.
pub(super) trait Sink {
    /// Sends a part of the body at once.
    async fn part(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// When events are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// When the service began.
    pub(super) start: u64,
    /// From there to the first event.
    pub(super) ttft: u64,
    /// Time between events.
    pub(super) itl: u64,
}

impl Schedule {
    /// When event `index` is due.
    pub(super) fn due(&self, index: u64) -> u64 {
        let between = self.itl.saturating_mul(index);
        self.start.saturating_add(self.ttft).saturating_add(between)
    }

    /// When an answer of this many events is over.
    pub(super) fn over(&self, events: u64) -> u64 {
        self.due(events.saturating_sub(1))
    }
}

/// What the server did so far: its own truth about itself.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// Responses started.
    pub(super) answers: Cell<u64>,
    /// Events sent.
    pub(super) events: Cell<u64>,
    /// How late they were sent, together and at most.
    pub(super) late_sum_ns: Cell<u64>,
    pub(super) late_max_ns: Cell<u64>,
}

impl Truth {
    fn sent(&self, due: u64, sent: u64) {
        let late = sent.saturating_sub(due);
        self.events.set(self.events.get() + 1);
        self.late_sum_ns.set(self.late_sum_ns.get().saturating_add(late));
        self.late_max_ns.set(self.late_max_ns.get().max(late));
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As it should.
    Whole,
    /// In its middle: the connection has to end now.
    BrokenOff,
}

/// Plays `script`.
///
/// # Errors
/// Of the sink: the client is gone.
pub(super) async fn play(
    script: &Script,
    schedule: Schedule,
    faults: Faults,
    (alarms, truth): (&Alarms, &Truth),
    sink: &mut impl Sink,
) -> io::Result<End> {
    if !script.early.is_empty() {
        alarms.until(schedule.start.saturating_add(schedule.ttft / 10)).await;
        sink.part(&script.early).await?;
    }
    let events = script.events();
    let together = if faults.has(Fault::Coalesced) { COALESCED } else { 1 };
    let mut text = script.opening.clone();
    let mut index = 0;
    for run in &script.runs {
        for _ in 0..run.count {
            let due = schedule.due(index);
            alarms.until(due).await;
            if index == events / 2 {
                text.extend_from_slice(&script.middle);
                if script.ends_in_middle || faults.has(Fault::EarlyEof) {
                    sink.part(&text).await?;
                    return Ok(if script.ends_in_middle { End::Whole } else { End::BrokenOff });
                }
            }
            let sent = mono_ns();
            run.event.stamped(due, sent, &mut text);
            truth.sent(due, sent);
            index += 1;
            if index % together == 0 || index == events {
                sink.part(&text).await?;
                text.clear();
            }
        }
    }
    if events == 0 {
        alarms.until(schedule.due(0)).await;
    }
    text.extend_from_slice(&script.closing);
    sink.part(&text).await?;
    Ok(End::Whole)
}
