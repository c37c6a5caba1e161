//! Search for the highest load that a service sustains within its limits.
//!
//! A pure function of the probes so far: coordinator, `aifb load` and report compute the same next
//! probe from their results. Below the first failure the load is tripled from probe to probe; then
//! the bracket is narrowed in logarithms. A probe whose load was too high shows the capacity of the
//! service (its responses per second), and the next two are placed close to it.

use std::collections::BTreeMap;

use aifb_schema::{
    recipe::{Arrival, Load, Search},
    result::{LoadResult, Verdict},
    search::{Objective, ProbeOutcome, ProbeRecord, SearchResult},
};

use crate::binomial::{CONFIDENCE, surely_beyond, surely_within};

/// Growth of the load from probe to probe until one fails.
const STEP: f64 = 3.0;

/// Reason of a search that is not over.
pub const GOES_ON: &str = "goes on";

/// What is to be searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest load.
    pub from: f64,
    /// Largest load.
    pub to: f64,
    /// Relative width of the last bracket.
    pub within: f64,
    /// Most probes.
    pub probes: usize,
    /// Whether only whole numbers are loads.
    pub whole: bool,
}

impl Range {
    /// Of a recipe's search.
    #[must_use]
    pub fn of(search: &Search, arrival: &Arrival) -> Self {
        Self {
            from: search.from.get(),
            to: search.to.get(),
            within: search.within.get(),
            probes: usize::try_from(search.probes).unwrap_or(usize::MAX),
            whole: matches!(arrival, Arrival::Closed { .. }),
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Another probe.
    Probe(f64),
    /// Nothing: why.
    Done(&'static str),
}

/// The probe that follows `probes`.
#[must_use]
pub fn next(range: &Range, probes: &[ProbeRecord]) -> Next {
    let levels = pool(range, probes);
    if levels.is_empty() {
        return Next::Probe(range.fit((range.from * range.to).sqrt()));
    }
    let bracket = Bracket::of(&levels);
    let left = range.probes.saturating_sub(probes.len());
    let found = bracket.next(range);
    if left == 0 {
        return match found {
            Next::Done(reason) => Next::Done(reason),
            Next::Probe(_) => Next::Done("no probe is left"),
        };
    }
    // An end of the last bracket that may be chance is looked at once more.
    if let Next::Done("converged") = found
        && let Some(again) = bracket.unsure()
    {
        return Next::Probe(again);
    }
    found
}

/// What a search found so far: `results` are those of one load and point, in the order of their
/// repeats.
#[must_use]
pub fn outcome(load: &Load, point: u32, results: &[&LoadResult]) -> Option<SearchResult> {
    let search = load.search.as_ref()?;
    let range = Range::of(search, &load.arrival);
    let probed: Vec<(&LoadResult, &ProbeRecord)> =
        results.iter().filter_map(|result| Some((*result, result.probe.as_deref()?))).collect();
    let probes: Vec<ProbeRecord> = probed.iter().map(|(_, probe)| (*probe).clone()).collect();
    let levels = pool(&range, &probes);
    let bracket = Bracket::of(&levels);
    let reason = match next(&range, &probes) {
        Next::Probe(_) => GOES_ON,
        Next::Done(reason) => reason,
    };
    let outcomes = probed.iter().map(|(result, probe)| {
        let judged = Judged::of(&range, probe);
        ProbeOutcome {
            repeat: result.repeat,
            level: probe.level,
            passed: judged.passed,
            certain: judged.certain,
            why: judged.why,
            answered_per_second: probe.answered_per_second,
        }
    });
    let capacity = bracket.low.map(|low| low.level.min(low.offered.unwrap_or(low.level)));
    let same = |level: f64| move |probe: &ProbeRecord| same(probe.level, level);
    let repeat = bracket.low.and_then(|low| {
        let of = probed.iter().rev().find(|(_, probe)| same(low.level)(probe))?;
        Some(of.0.repeat)
    });
    let beyond = bracket.high.map(|high| high.level);
    let of_client = |verdict: &Verdict| {
        ["client_saturated", "client_stall", "rate_not_delivered"].contains(&verdict.kind.as_str())
    };
    let client_limited = probed.iter().any(|(result, probe)| {
        beyond.is_some_and(|level| same(level)(probe)) && result.verdicts.iter().any(of_client)
    });
    Some(SearchResult {
        load: load.name.to_string(),
        point,
        unit: if range.whole { "requests in flight" } else { "1/s" }.to_owned(),
        capacity,
        beyond,
        knee: knee(&probes),
        repeat,
        reason: reason.to_owned(),
        client_limited,
        probes: outcomes.collect(),
    })
}

/// The load with the largest power: answers a second ÷ mean response time (L. Kleinrock, "Power
/// and deterministic rules of thumb for probabilistic problems in computer communications", ICC
/// 1979).
fn knee(probes: &[ProbeRecord]) -> Option<f64> {
    let power = |probe: &ProbeRecord| {
        let response = probe.mean_response_seconds.filter(|seconds| *seconds > 0.0)?;
        Some((probe.level, probe.answered_per_second? / response))
    };
    let best = probes.iter().filter_map(power).max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(best.0)
}

impl Range {
    /// The nearest possible load.
    fn fit(&self, level: f64) -> f64 {
        let level = if self.whole { level.round() } else { level };
        level.clamp(self.from, self.to)
    }

    /// Whether two loads are as close as the search goes.
    fn close(&self, low: f64, high: f64) -> bool {
        high <= low * (1.0 + self.within) * (1.0 + 1e-9) || (self.whole && high - low <= 1.0)
    }
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// All probes at one load.
#[derive(Debug, Clone, PartialEq)]
struct At {
    level: f64,
    probes: usize,
    judged: Judged,
    /// Requests a second that were due.
    offered: Option<f64>,
    /// Answers a second where requests pile up: what the service can do.
    limit: Option<f64>,
}

/// Probes of the same load are taken together, ascending.
fn pool(range: &Range, probes: &[ProbeRecord]) -> Vec<At> {
    let mut levels: Vec<(f64, Vec<&ProbeRecord>)> = Vec::new();
    for probe in probes {
        match levels.iter_mut().find(|(level, _)| same(*level, probe.level)) {
            Some((_, there)) => there.push(probe),
            None => levels.push((probe.level, vec![probe])),
        }
    }
    levels.sort_by(|a, b| a.0.total_cmp(&b.0));
    levels
        .into_iter()
        .map(|(level, probes)| {
            let together = together(&probes);
            let judged = Judged::of(range, &together);
            let limit = together.answered_per_second.filter(|_| judged.piles_up);
            At { level, probes: probes.len(), judged, offered: together.offered_per_second, limit }
        })
        .collect()
}

fn together(probes: &[&ProbeRecord]) -> ProbeRecord {
    let Some((first, others)) = probes.split_first() else { return ProbeRecord::default() };
    let mut sum = (*first).clone();
    let mut objectives: BTreeMap<String, Objective> =
        sum.objectives.drain(..).map(|one| (one.name.clone(), one)).collect();
    for other in others.iter().flat_map(|probe| &probe.objectives) {
        if let Some(one) = objectives.get_mut(&other.name) {
            one.beyond += other.beyond;
            one.of += other.of;
            one.measured = None;
        }
    }
    sum.objectives = objectives.into_values().collect();
    // Requests pile up at this load if they did in the probe in which they did it least.
    let least = |a: &&ProbeRecord, b: &&ProbeRecord| {
        let slope = |probe: &ProbeRecord| probe.response_growth.map_or(0.0, |growth| growth.slope);
        slope(a).total_cmp(&slope(b))
    };
    sum.response_growth = probes.iter().copied().min_by(least).and_then(|p| p.response_growth);
    sum
}

/// What is thought of a load.
#[derive(Debug, Clone, PartialEq)]
struct Judged {
    passed: bool,
    certain: bool,
    piles_up: bool,
    why: String,
}

impl Judged {
    fn of(range: &Range, probe: &ProbeRecord) -> Self {
        // At a load of r/C = 1 + x answers take x s longer each second: above a third of the
        // requested precision, the load is the cause.
        let piles_up = !range.whole
            && probe.response_growth.is_some_and(|growth| {
                growth.slope > range.within / 3.0 && growth.slope - growth.error > 0.0
            });
        let within = |one: &Objective| {
            let share = float(one.beyond) / float(one.of.max(1));
            one.of > 0 && share <= one.allowed_ratio * (1.0 + 1e-9)
        };
        let failed = probe.objectives.iter().find(|one| !within(one));
        let sure = |one: &Objective, good: bool| {
            if good {
                surely_within(one.beyond, one.of, one.allowed_ratio, CONFIDENCE)
            } else {
                one.of == 0 || surely_beyond(one.beyond, one.of, one.allowed_ratio, CONFIDENCE)
            }
        };
        let passed = failed.is_none() && !piles_up;
        let certain = if passed {
            probe.objectives.iter().all(|one| sure(one, true))
        } else {
            piles_up || probe.objectives.iter().any(|one| !within(one) && sure(one, false))
        };
        let closest = || {
            let used = |one: &Objective| {
                float(one.beyond) / float(one.of.max(1)) / one.allowed_ratio.max(f64::MIN_POSITIVE)
            };
            probe.objectives.iter().max_by(|a, b| used(a).total_cmp(&used(b)))
        };
        let why = match (failed, probe.response_growth) {
            (Some(one), _) => describe(one),
            (None, Some(growth)) if piles_up => format!(
                "requests queue up: response times grow by {:.1} ms per second",
                growth.slope * 1e3
            ),
            (None, _) => closest().map_or_else(String::new, describe),
        };
        Self { passed, certain, piles_up, why }
    }
}

fn describe(one: &Objective) -> String {
    format!(
        "{}: {} of {} beyond the limit, {:.1} % allowed",
        one.name,
        one.beyond,
        one.of,
        one.allowed_ratio * 100.0
    )
}

#[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
fn float(count: u64) -> f64 {
    count as f64
}

/// The largest load that passes below the smallest that fails, and that one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bracket<'a> {
    low: Option<&'a At>,
    high: Option<&'a At>,
}

impl<'a> Bracket<'a> {
    fn of(levels: &'a [At]) -> Self {
        let high = levels.iter().find(|at| !at.judged.passed);
        let below = |at: &&At| high.is_none_or(|high| at.level < high.level);
        let low = levels.iter().rev().filter(below).find(|at| at.judged.passed);
        Self { low, high }
    }

    /// An end that may be chance and was probed only once; the failure first.
    fn unsure(&self) -> Option<f64> {
        let once = |at: &&At| !at.judged.certain && at.probes == 1;
        self.high.filter(once).or_else(|| self.low.filter(once)).map(|at| at.level)
    }

    fn next(&self, range: &Range) -> Next {
        match (self.low, self.high) {
            (Some(low), None) if range.close(low.level, range.to) => {
                if same(low.level, range.to) {
                    Next::Done("the largest load passes")
                } else {
                    Next::Probe(range.to)
                }
            }
            (Some(low), None) => Next::Probe(range.fit(low.level * STEP)),
            (None, Some(high)) if same(high.level, range.from) => {
                Next::Done("the smallest load fails")
            }
            (None, Some(high)) if range.close(range.from, high.level) => Next::Probe(range.from),
            (Some(low), Some(high)) if range.close(low.level, high.level) => {
                Next::Done("converged")
            }
            (low, Some(high)) => {
                Next::Probe(range.fit(between(range, low.map_or(range.from, |at| at.level), high)))
            }
            (None, None) => Next::Probe(range.fit((range.from * range.to).sqrt())),
        }
    }
}

/// A load between a bracket's ends: beside what the service was seen to do, else the middle in
/// logarithms.
fn between(range: &Range, low: f64, high: &At) -> f64 {
    let middle = (low * high.level).sqrt();
    let Some(limit) = high.limit.filter(|limit| (low..high.level).contains(limit)) else {
        return middle;
    };
    // Two thirds of the precision apart, so that the two ends close the bracket.
    let (under, over) = (limit * (1.0 - range.within / 3.0), limit * (1.0 + range.within / 2.0));
    let apart = 1.0 + range.within / 4.0;
    if under > low * apart {
        under
    } else if over > low * apart && over * apart < high.level {
        over
    } else {
        middle
    }
}

#[cfg(test)]
mod tests {
    use aifb_schema::search::Growth;

    use super::*;

    const RANGE: Range = Range { from: 1.0, to: 100.0, within: 0.03, probes: 10, whole: false };

    /// A service that answers `capacity` a second at most, and is slow beyond `slo`.
    fn probe(level: f64, capacity: f64, slo: f64) -> ProbeRecord {
        let slope = (level / capacity - 1.0).max(0.0);
        let beyond = if level > slo { 50 } else { 0 };
        ProbeRecord {
            level,
            objectives: vec![Objective {
                name: "ttft_p99".into(),
                limit: 0.5,
                measured: None,
                beyond,
                of: 1_000,
                allowed_ratio: 0.01,
            }],
            offered_per_second: Some(level),
            answered_per_second: Some(level.min(capacity)),
            mean_response_seconds: Some(0.1 + slope * 5.0),
            response_growth: Some(Growth { slope, error: 0.003 }),
        }
    }

    fn run(range: &Range, probe: impl Fn(f64) -> ProbeRecord) -> (Vec<ProbeRecord>, &'static str) {
        let mut probes = Vec::new();
        loop {
            match next(range, &probes) {
                Next::Probe(level) => {
                    assert!((range.from..=range.to).contains(&level), "{level}");
                    probes.push(probe(level));
                }
                Next::Done(reason) => return (probes, reason),
            }
        }
    }

    fn ends(range: &Range, probes: &[ProbeRecord]) -> (Option<f64>, Option<f64>) {
        let levels = pool(range, probes);
        let bracket = Bracket::of(&levels);
        (bracket.low.map(|at| at.level), bracket.high.map(|at| at.level))
    }

    #[test]
    fn capacity_is_found_within_the_precision() {
        for capacity in [1.3, 7.7, 10.0, 31.0, 50.0, 83.0, 97.0] {
            let (probes, reason) = run(&RANGE, |level| probe(level, capacity, f64::INFINITY));
            let (low, high) = ends(&RANGE, &probes);
            assert_eq!(reason, "converged", "{capacity}: {probes:#?}");
            let (low, high) = (low.unwrap(), high.unwrap());
            assert!(low <= capacity && high > capacity && high <= low * 1.0301, "{low} {high}");
            assert!(probes.len() <= 7, "{capacity}: {} probes", probes.len());
        }
    }

    #[test]
    fn limits_below_the_capacity_are_found_too() {
        for slo in [2.0, 12.0, 40.0, 77.0] {
            let (probes, reason) = run(&RANGE, |level| probe(level, 80.0, slo));
            let (low, high) = ends(&RANGE, &probes);
            assert_eq!(reason, "converged");
            assert!(low.unwrap() <= slo && high.unwrap() > slo);
            assert!(probes.len() <= 10, "{slo}: {} probes", probes.len());
        }
    }

    #[test]
    fn the_ends_of_the_range_are_answers() {
        let (probes, reason) = run(&RANGE, |level| probe(level, 1e6, f64::INFINITY));
        assert_eq!((reason, ends(&RANGE, &probes).0), ("the largest load passes", Some(100.0)));
        let (probes, reason) = run(&RANGE, |level| probe(level, 1e6, 0.5));
        assert_eq!((reason, ends(&RANGE, &probes)), ("the smallest load fails", (None, Some(1.0))));
        let few = Range { probes: 3, ..RANGE };
        let (probes, reason) = run(&few, |level| probe(level, 80.0, 40.0));
        assert_eq!((probes.len(), reason), (3, "no probe is left"));
    }

    #[test]
    fn whole_numbers_are_found_exactly() {
        let range = Range { from: 1.0, to: 64.0, within: 0.01, probes: 10, whole: true };
        for slo in [1, 5, 13, 40, 63] {
            let (probes, _) = run(&range, |level| probe(level, 1e6, f64::from(slo)));
            assert!(probes.iter().all(|probe| probe.level.fract() == 0.0));
            assert_eq!(ends(&range, &probes).0, Some(f64::from(slo)), "{probes:#?}");
        }
    }

    /// A failure by chance next to the edge is looked at again, and counts together with it.
    #[test]
    fn an_end_that_may_be_chance_is_repeated() {
        let unsure = |level: f64, beyond: u64| {
            let mut record = probe(level, 1e6, f64::INFINITY);
            record.objectives[0].beyond = beyond;
            record
        };
        let probes = vec![unsure(50.0, 0), unsure(51.0, 12)];
        assert_eq!(next(&RANGE, &probes), Next::Probe(51.0));
        let mut both = probes.clone();
        both.push(unsure(51.0, 2));
        // 14 of 2000 are within 1 %: the failure was chance.
        assert_eq!(ends(&RANGE, &both), (Some(51.0), None));
        both[2] = unsure(51.0, 30);
        assert_eq!(next(&RANGE, &both), Next::Done("converged"));
    }

    /// A Poisson process of 103/s that happened to bring 101/s shows a capacity of 101/s.
    #[test]
    fn a_capacity_is_not_more_than_what_was_due() {
        let text = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x}\nload:\n  - \
                    {name: l, driver: http, arrival: {rate: 1/s}, phases: {measure: 1s}, \
                    search: {slo: {e2e_p99: 1s}, from: 1/s, to: 103/s}}\n";
        let load = aifb_schema::recipe::parse(text, &[]).unwrap().load.remove(0);
        let mut record = probe(103.0, 1e6, f64::INFINITY);
        record.offered_per_second = Some(101.0);
        let result: LoadResult = serde_json::from_value(serde_json::json!({
            "version": 1, "load": "l", "point": 0, "repeat": 4, "service": "a", "driver": "http",
            "counts": {"sent": 1, "ok": 1, "failed": 0, "cancelled": 0, "unfinished": 0, "warmup": 0},
            "metrics": {}, "verdicts": [], "complete": true, "source": "rows", "probe": record,
            "plan": {"seed": 0, "hash": "", "workers": 1},
            "client": {"cpu_seconds": 0.1, "peak_rss_bytes": 1},
            "measure_start_epoch_ns": 0, "measure_end_epoch_ns": 0,
        }))
        .unwrap();
        let found = outcome(&load, 0, &[&result]).unwrap();
        assert_eq!((found.capacity, found.repeat), (Some(101.0), Some(4)));
        assert_eq!(found.reason, "the largest load passes");
    }

    #[test]
    fn the_knee_has_the_largest_power() {
        let probes: Vec<_> =
            [10.0, 40.0, 50.0, 60.0].map(|level| probe(level, 50.0, f64::INFINITY)).into();
        assert_eq!(knee(&probes), Some(50.0));
        assert_eq!(knee(&[]), None);
    }
}
