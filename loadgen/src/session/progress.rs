//! The line on standard error that shows how far a measurement is, once a second.

use std::{
    io::{IsTerminal, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aifb_schema::recipe::{Load, Measure};

use crate::record::Progress;

/// Characters of the bar.
const BAR: usize = 24;

/// How long or how much the whole is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Whole {
    /// Warm-up and measured part last so long.
    Time(Duration),
    /// So many requests.
    Requests(u64),
}

impl Whole {
    /// Of a load.
    pub(crate) fn of(load: &Load) -> Self {
        match load.phases.measure {
            Measure::Time(span) => Self::Time(load.phases.warmup.get() + span.get()),
            Measure::Requests(requests) => Self::Requests(requests),
        }
    }
}

/// The line. On a terminal it is overwritten; elsewhere, only on request, one line per second.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    terminal: bool,
    wanted: bool,
    shown: bool,
    /// What stands in front, such as the number of a probe.
    pub(crate) title: String,
    started: Option<Instant>,
    before: (u64, u64),
}

impl ProgressLine {
    /// Shown on a terminal, or wherever it is `asked` for.
    pub(crate) fn new(asked: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            terminal,
            wanted: terminal || asked,
            shown: false,
            title: String::new(),
            started: None,
            before: (0, 0),
        }
    }

    /// The start.
    pub(crate) fn begin(&mut self) {
        self.started = Some(Instant::now());
    }

    /// Shows the figures of now; called once a second.
    pub(crate) fn show(&mut self, whole: &Whole, progress: &Progress) {
        let word = progress.phase_word();
        if !self.wanted || word == "ready" {
            return;
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        let text = self.text(whole, progress, started.elapsed());
        let mut stderr = std::io::stderr().lock();
        // A closed standard error is no reason to stop measuring.
        let _ignored = if self.terminal {
            self.shown = true;
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
    }

    fn text(&mut self, whole: &Whole, progress: &Progress, elapsed: Duration) -> String {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let (ok, failed, tokens) =
            (of(&progress.ok), of(&progress.failed), of(&progress.output_tokens));
        let share = match whole {
            Whole::Time(time) => elapsed.as_secs_f64() / time.as_secs_f64().max(1e-9),
            Whole::Requests(requests) => ratio(ok + failed, *requests),
        };
        let (ok_before, tokens_before) = std::mem::replace(&mut self.before, (ok, tokens));
        let mut text = format!(
            "{}{} {} sent {} ok {ok} ({}/s) failed {failed} in flight {}",
            self.title,
            bar(share),
            progress.phase_word(),
            of(&progress.sent),
            ok.saturating_sub(ok_before),
            of(&progress.in_flight),
        );
        if tokens > 0 {
            text.push_str(&format!(
                " tokens {tokens} ({}/s)",
                tokens.saturating_sub(tokens_before)
            ));
        }
        text
    }

    /// Takes the line away, and begins anew.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _ignored = write!(std::io::stderr(), "\r\x1b[K");
        }
        (self.shown, self.started, self.before) = (false, None, (0, 0));
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        if self.wanted {
            let _ignored = writeln!(std::io::stderr(), "{text}");
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a bar of two dozen characters")]
    let ratio = part as f64 / whole.max(1) as f64;
    ratio
}

fn bar(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped"
    )]
    let full = (share.clamp(0.0, 1.0) * BAR as f64) as usize;
    format!(
        "[{}{}] {:>3.0} %",
        "=".repeat(full),
        " ".repeat(BAR - full),
        share.clamp(0.0, 1.0) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let progress = Progress::default();
        for (place, value) in [
            (&progress.sent, 30),
            (&progress.ok, 20),
            (&progress.failed, 5),
            (&progress.in_flight, 5),
            (&progress.output_tokens, 400),
            (&progress.phase, 2),
        ] {
            place.store(value, Ordering::Relaxed);
        }
        let mut line = ProgressLine::new(true);
        let half = Duration::from_secs(5);
        let time = Whole::Time(Duration::from_secs(10));
        assert_eq!(
            line.text(&time, &progress, half),
            "[============            ]  50 % measure sent 30 ok 20 (20/s) failed 5 in flight 5 \
             tokens 400 (400/s)"
        );
        progress.ok.store(22, Ordering::Relaxed);
        let text = line.text(&Whole::Requests(27), &progress, half);
        assert!(
            text.contains("100 %") && text.contains("ok 22 (2/s)") && text.contains("(0/s)"),
            "{text}"
        );
        // Drains for longer than it measures.
        assert!(line.text(&time, &progress, half * 9).contains("] 100 %"));
    }
}
