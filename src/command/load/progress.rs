//! Progress of the running load on standard error: a bar on a terminal, now and then a line
//! elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use aifb_schema::{
    control::LoadStatus,
    recipe::{Load, Measure},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{agent_client::AgentClient, observe::view, output};

/// Time between two requests to the coordinator.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Time between two lines when there is no terminal for a bar.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows one repeat.
pub(super) struct Progress<'a> {
    client: Option<&'a AgentClient>,
    name: (String, u32, u32),
    /// Length of warm-up and measured part, where it is a time.
    length_ms: Option<u64>,
    bar: ProgressBar,
    queried: Instant,
    printed: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        client: Option<&'a AgentClient>,
        load: &Load,
        point: u32,
        repeat: u32,
    ) -> Self {
        let length_ms = match load.phases.measure {
            Measure::Time(span) => {
                u64::try_from((load.phases.warmup.get() + span.get()).as_millis()).ok()
            }
            Measure::Requests(_) => None,
        };
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(view::load_name(load.name.as_str(), point, repeat));
        let now = Instant::now();
        let name = (load.name.to_string(), point, repeat);
        Self { client, name, length_ms, bar, queried: now, printed: now }
    }

    /// Queries the coordinator and shows the progress, at most once per interval.
    pub(super) fn tick(&mut self) {
        let Some(client) = self.client.filter(|_| self.queried.elapsed() >= ASK_EVERY) else {
            return;
        };
        self.queried = Instant::now();
        // A coordinator that does not answer is reported by the load itself.
        let Ok(status) = client.status() else { return };
        let (load, point, repeat) = &self.name;
        let own = |status: &&LoadStatus| {
            status.load == *load && status.point == *point && status.repeat == *repeat
        };
        if let Some(status) = status.loads.iter().find(own) {
            self.show(status);
        }
    }

    fn show(&mut self, status: &LoadStatus) {
        let text = view::progress_text(status);
        if io::stderr().is_terminal() {
            match (self.length_ms, status.progress.planned) {
                (Some(length), _) => {
                    self.bar.set_length(length);
                    self.bar.set_position(status.progress.elapsed_ms.min(length));
                }
                (None, Some(planned)) => {
                    self.bar.set_length(planned);
                    self.bar.set_position(status.progress.sent.min(planned));
                }
                (None, None) => {}
            }
            self.bar.set_message(text);
        } else if self.printed.elapsed() >= LINE_EVERY {
            self.printed = Instant::now();
            let (load, point, repeat) = &self.name;
            output::note(format!("{}: {text}", view::load_name(load, *point, *repeat)));
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
