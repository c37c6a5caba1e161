//! Checks of a load's search.

use std::time::Duration;

use super::{
    super::{
        Arrival, Level, Load, SEARCH_METRICS, Search, SearchLimit, Target,
        document::{shown, step},
    },
    Checker,
};

/// Most probes of one search: far beyond what any bracket needs.
const PROBES_MAX: u32 = 100;

impl Checker<'_> {
    pub(super) fn search(&mut self, at: &str, load: &Load) {
        let Some(search) = &load.search else { return };
        let at = step(at, "search");
        let name = &load.name;
        if load.repeat != 1 {
            self.at(&at, format!("load '{name}': search and repeat exclude each other"))
                .hint("remove repeat: the probes of a search take the place of repeats");
        }
        if !(1..=PROBES_MAX).contains(&search.probes) {
            self.at(&step(&at, "probes"), format!("load '{name}': search.probes is out of range"))
                .hint(format!("from 1 to {PROBES_MAX}"));
        }
        if search.probe.get() < Duration::from_secs(1) {
            self.at(&step(&at, "probe"), format!("load '{name}': search.probe is too short"))
                .hint("at least 1s; 20s or more for a service that answers in seconds");
        }
        self.range(&at, load, search);
        self.limits(&at, load, search);
    }

    fn range(&mut self, at: &str, load: &Load, search: &Search) {
        let name = &load.name;
        let steady = matches!(
            load.arrival,
            Arrival::Open { ramp: None, .. } | Arrival::Closed { ramp: None, .. }
        );
        if !steady {
            self.at(
                at,
                format!("load '{name}': each probe of a search is one rate or concurrency"),
            )
            .hint("arrival: {rate: 1/s} or {concurrency: 1}, without ramp or trace");
            return;
        }
        let (word, example) = match load.arrival {
            Arrival::Open { .. } | Arrival::Trace { .. } => ("a rate", "from: 1/s, to: 100/s"),
            Arrival::Closed { .. } => ("a number of requests in flight", "from: 1, to: 256"),
        };
        for (key, level) in [("from", search.from), ("to", search.to)] {
            let fits = matches!(
                (&load.arrival, level),
                (Arrival::Open { .. }, Level::Rate(_))
                    | (Arrival::Closed { .. }, Level::Concurrency(1..))
            );
            if !fits {
                self.at(
                    &step(at, key),
                    format!("load '{name}': search.{key} has to be {word}, as its arrival is"),
                )
                .hint(example);
            }
        }
        if search.from.get() >= search.to.get() {
            self.at(&step(at, "to"), format!("load '{name}': search.to is not above search.from"))
                .hint(example);
        }
        if let Level::Concurrency(from) = search.from
            && from < load.clients
        {
            self.at(
                &step(at, "from"),
                format!("load '{name}': search.from {from} for {} clients", load.clients),
            )
            .hint("each client needs at least one request in flight");
        }
    }

    fn limits(&mut self, at: &str, load: &Load, search: &Search) {
        let name = &load.name;
        let at = step(at, "slo");
        if search.slo.is_empty() {
            self.at(&at, format!("load '{name}': search.slo has no limit"))
                .hint("for example slo: {ttft_p99: 500ms}");
        }
        for (key, limit) in &search.slo {
            let at = step(&at, key);
            match (Target::of(key), limit) {
                (None, _) => {
                    self.key(
                        &at,
                        format!("load '{name}': search.slo: unknown limit '{}'", shown(key)),
                    )
                    .hint(format!(
                        "{} with _p50, _p90, _p95 or _p99, or attainment",
                        SEARCH_METRICS.join(", ")
                    ));
                }
                (Some(Target::Attainment), SearchLimit::Share(share))
                    if *share > 0.0 && *share < 1.0 =>
                {
                    if load.slo.is_none() {
                        self.at(
                            &at,
                            format!(
                                "load '{name}': attainment needs the limits of an \
                         SLO"
                            ),
                        )
                        .hint("add slo: {ttft: 500ms} to the load");
                    }
                }
                (Some(Target::Attainment), _) => {
                    self.at(&at, format!("load '{name}': attainment is not a share"))
                        .hint("a number above 0 and below 1, such as 0.99");
                }
                (Some(Target::Quantile(metric, _)), SearchLimit::Time(span)) => {
                    if span.get().is_zero() {
                        self.at(&at, format!("load '{name}': a limit of 0 always fails"))
                            .hint("a time above zero, such as 500ms");
                    }
                    if matches!(metric, "ttft" | "tpot") && !load.driver.has_tokens() {
                        self.key(
                            &at,
                            format!(
                                "load '{name}': {metric} has no meaning for driver {}",
                                load.driver.as_str()
                            ),
                        )
                        .hint("limit e2e or total");
                    }
                }
                (Some(Target::Quantile(..)), SearchLimit::Share(_)) => {
                    self.at(&at, format!("load '{name}': {} is a time", shown(key)))
                        .hint("with its unit, such as 500ms");
                }
            }
        }
    }
}
