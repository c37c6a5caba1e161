//! Checks of what a load sends, when, and when it ends.

use super::{
    super::{
        Arrival, Dataset, DatasetKind, Driver, LENGTH_MAX, Lengths, Load, Measure, WINDOW_SECONDS,
        document::{shown, step},
    },
    Checker,
};

/// Most arrivals of one load: at 8 bytes each the schedule of a single worker takes 800 MB.
const ARRIVALS_MAX: f64 = 1e8;

/// Most requests of a conversation: its last request carries all before it.
const TURNS_MAX: u32 = 1_000;

/// Most shared beginnings: each is kept in memory.
const GROUPS_MAX: u32 = 100_000;

/// Most tokens of all shared beginnings: at 5 bytes a token they take 500 MB.
const PREFIX_TOKENS_MAX: u64 = 100_000_000;

impl Checker<'_> {
    pub(super) fn arrival(&mut self, at: &str, load: &Load) {
        let name = &load.name;
        let arrival_at = step(at, "arrival");
        let (over, counted) = match &load.arrival {
            Arrival::Closed { concurrency, .. } if *concurrency < load.clients => {
                self.at(
                    &arrival_at,
                    format!("load '{name}': concurrency {concurrency} for {} clients", load.clients),
                )
                .hint("each client needs at least one request in flight: raise concurrency or lower clients");
                return;
            }
            Arrival::Closed { ramp: Some(ramp), .. } if ramp.from < load.clients => {
                self.at(
                    &arrival_at,
                    format!(
                        "load '{name}': the ramp starts at {} for {} clients",
                        ramp.from, load.clients
                    ),
                )
                .hint(
                    "each client needs at least one request in flight: raise from or lower clients",
                );
                return;
            }
            Arrival::Closed { ramp: Some(ramp), .. } => (Some(ramp.over), None),
            Arrival::Open { rate, ramp, .. } => (
                ramp.map(|ramp| ramp.over),
                Some(ramp.map_or(rate.get(), |ramp| ramp.from.get().max(rate.get()))),
            ),
            Arrival::Trace { file, .. } => {
                self.file(&step(&arrival_at, "trace"), load, file);
                (None, None)
            }
            Arrival::Closed { ramp: None, .. } => (None, None),
        };
        if over == Some(None) && matches!(load.phases.measure, Measure::Requests(_)) {
            self.at(&arrival_at, format!("load '{name}': the length of the ramp is not set"))
                .hint("measure for a time, or add over: 60s to the ramp");
        }
        let requests = match (load.phases.measure, counted) {
            (Measure::Time(span), Some(rate)) => {
                rate * (span.get().as_secs_f64() + load.phases.warmup.get().as_secs_f64())
            }
            _ => 0.0,
        };
        if requests > ARRIVALS_MAX {
            self.at(
                &arrival_at,
                format!("load '{name}': {requests:.0} requests are more than {ARRIVALS_MAX:.0}"),
            )
            .hint("check the unit of the rate, measure for a shorter time, or repeat the load");
        }
    }

    /// A file that is read on the clients' nodes: it may not exist here.
    fn file(&mut self, at: &str, load: &Load, file: &str) {
        if file.is_empty() || file.chars().any(char::is_control) {
            self.at(at, format!("load '{}': '{}' is not a path", load.name, shown(file)))
                .hint("a file that the clients' nodes can read");
        }
    }

    pub(super) fn dataset(&mut self, at: &str, load: &Load, dataset: &Dataset) {
        let name = &load.name;
        let at = step(at, "dataset");
        let synthetic = dataset.kind == DatasetKind::Synthetic;
        let from_file = dataset.kind.from_file();
        if (dataset.kind == DatasetKind::Prompt) != dataset.prompt.is_some() {
            self.at(&at, format!("load '{name}': kind prompt and the key prompt go together"))
                .hint("dataset: {kind: prompt, prompt: \"…\", output_tokens: 100}");
        }
        if from_file != dataset.file.is_some() {
            self.at(
                &at,
                format!("load '{name}': kinds sharegpt and jsonl need a file, others have none"),
            )
            .hint("dataset: {kind: sharegpt, file: /data/ShareGPT.json}");
        }
        for (key, given, fits, hint) in [
            ("prefix", dataset.prefix.is_some(), synthetic, "kind synthetic has it"),
            (
                "turns",
                dataset.turns.is_some(),
                synthetic || from_file,
                "kinds synthetic, sharegpt and jsonl have them",
            ),
            (
                "keep_tokens",
                dataset.keep_tokens.is_some(),
                from_file,
                "kinds sharegpt and jsonl have it",
            ),
        ] {
            if given && !fits {
                self.key(
                    &step(&at, key),
                    format!("load '{name}': {key} has no meaning for this kind"),
                )
                .hint(hint);
            }
        }
        if dataset.kind == DatasetKind::Ids && load.driver != Driver::OpenaiCompletions {
            self.at(
                &step(&at, "kind"),
                format!("load '{name}': driver {} takes no token ids", load.driver.as_str()),
            )
            .hint("driver openai-completions does; or kind: synthetic");
        }
        if dataset.vocabulary == 0 {
            self.at(&step(&at, "vocabulary"), format!("load '{name}': the vocabulary is empty"))
                .hint("the model's number of tokens, such as 32000");
        }
        if let Some(prefix) = &dataset.prefix {
            let tokens = u64::from(prefix.tokens) * u64::from(prefix.groups);
            if prefix.tokens == 0
                || !(1..=GROUPS_MAX).contains(&prefix.groups)
                || tokens > PREFIX_TOKENS_MAX
            {
                self.at(&step(&at, "prefix"), format!("load '{name}': the prefix is out of range"))
                    .hint(format!("at least 1 token, 1 to {GROUPS_MAX} groups, at most {PREFIX_TOKENS_MAX} tokens in all"));
            }
        }
        if let Some([min, max]) = dataset.keep_tokens
            && (min > max || max > LENGTH_MAX)
        {
            self.at(
                &step(&at, "keep_tokens"),
                format!("load '{name}': no prompt has {min} to {max} tokens"),
            )
            .hint("keep_tokens: [4, 2048]");
        }
        for (key, file) in [("file", &dataset.file), ("tokenizer", &dataset.tokenizer)] {
            if let Some(file) = file {
                self.file(&step(&at, key), load, file);
            }
        }
        if let Some(turns) = &dataset.turns {
            self.turns(&at, load, &turns.count);
        }
    }

    fn turns(&mut self, at: &str, load: &Load, count: &Lengths) {
        let name = &load.name;
        if !matches!(count, Lengths::Fixed(_))
            && load.dataset.as_ref().is_some_and(|d| d.kind.from_file())
        {
            self.at(
                &step(at, "turns"),
                format!("load '{name}': a file's conversations have their own numbers of turns"),
            )
            .hint("turns: {count: N} takes at most N of each");
        }
        if count.most() > TURNS_MAX {
            self.at(&step(at, "turns"), format!("load '{name}': more than {TURNS_MAX} turns"))
                .hint("the last request of a conversation contains all before it");
        }
        if matches!(load.arrival, Arrival::Open { .. } | Arrival::Trace { .. })
            && matches!(load.phases.measure, Measure::Requests(_))
        {
            self.at(
                &step(at, "turns"),
                format!(
                    "load '{name}': arrivals start conversations, so \
             the number of requests depends on the responses"
                ),
            )
            .hint("measure for a time, or use concurrency instead of a rate");
        }
    }

    pub(super) fn stop(&mut self, at: &str, load: &Load) {
        let Some(stop) = &load.stop else { return };
        let name = &load.name;
        let at = step(at, "stop");
        if stop.errors.is_none() && stop.saturation.is_none() && stop.steady.is_none() {
            self.at(&at, format!("load '{name}': stop has no rule"))
                .hint("stop: {errors: 5%}, {saturation: {}} or {steady: {metric: throughput}}");
        }
        if stop.saturation.is_some() && matches!(load.arrival, Arrival::Closed { .. }) {
            self.at(
                &step(&at, "saturation"),
                format!(
                    "load '{name}': a closed load waits for its service, so it cannot saturate it"
                ),
            )
            .hint("saturation belongs to an open load: arrival: {rate: 20/s}");
        }
        let windows = [
            ("saturation", stop.saturation.map(|rule| rule.window)),
            ("steady", stop.steady.map(|rule| rule.window)),
        ];
        for (key, window) in windows {
            let Some(window) = window else { continue };
            if !WINDOW_SECONDS.contains(&window.get().as_secs()) {
                self.at(&step(&at, key), format!("load '{name}': {window} is out of range")).hint(
                    format!("from {} s to {} s", WINDOW_SECONDS.start(), WINDOW_SECONDS.end()),
                );
            }
            if let Measure::Time(measure) = load.phases.measure
                && window >= measure
            {
                self.at(&step(&at, key), format!("load '{name}': a window of {window} does not fit into a measured part of {measure}"))
                    .hint("measure longer: the rule ends the load when it is fulfilled");
            }
        }
    }
}
