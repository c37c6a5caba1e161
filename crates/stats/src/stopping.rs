//! Evaluates the stop rules of a load: error budget, saturation, steady state.
//!
//! A [`Judge`] receives the figures of the whole load once per second and reports which rule is
//! fulfilled, and why. It uses no clock and no files, so it can be tested on any series.

use std::collections::{BTreeMap, VecDeque};

use aifb_schema::recipe::{ErrorBudget, Saturation, Steady, SteadyMetric, Stop};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The figures of a load, of all its workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// When, in milliseconds from any zero.
    pub at_ms: u64,
    /// Sent so far in the measured part.
    pub sent: u64,
    /// Succeeded so far.
    pub ok: u64,
    /// Failed so far.
    pub failed: u64,
    /// In flight now.
    pub in_flight: u64,
    /// Output tokens so far.
    pub output_tokens: u64,
    /// Times that ended since the last figures, as (nanoseconds, how many).
    pub recent: Vec<(u64, u64)>,
}

/// Why a load should end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule's key in the recipe.
    pub rule: &'static str,
    /// What was seen and what the limit is.
    pub reason: String,
}

/// Looks at a load.
#[derive(Debug, Clone)]
pub struct Judge {
    rules: Stop,
    last: Option<Figures>,
    /// In flight and arrivals of each second of the saturation's window.
    load: VecDeque<(f64, f64)>,
    /// The figure of each second of the steady state's window.
    figure: VecDeque<f64>,
}

impl Judge {
    /// A judge by these rules.
    #[must_use]
    pub fn new(rules: Stop) -> Self {
        Self { rules, last: None, load: VecDeque::new(), figure: VecDeque::new() }
    }

    /// The metric whose times the figures should carry: `ttft` or `e2e`.
    #[must_use]
    pub fn wanted_times(rules: &Stop) -> Option<&'static str> {
        match rules.steady?.metric {
            SteadyMetric::Ttft | SteadyMetric::TtftP99 => Some("ttft"),
            SteadyMetric::E2e | SteadyMetric::E2eP99 => Some("e2e"),
            SteadyMetric::Throughput | SteadyMetric::TokenThroughput => None,
        }
    }

    /// The figures of a further second of the measured part. The first are where it begins.
    pub fn second(&mut self, figures: Figures) -> Option<Verdict> {
        let stop = self.errors(&figures);
        let Some(last) = self.last.replace(figures.clone()) else { return stop };
        let seconds = float(figures.at_ms.saturating_sub(last.at_ms)) / 1e3;
        if seconds <= 0.0 {
            return stop;
        }
        let stop = stop.or_else(|| self.saturated(&last, &figures, seconds));
        stop.or_else(|| self.settled(&last, &figures, seconds))
    }

    fn errors(&self, figures: &Figures) -> Option<Verdict> {
        let (failed, over) = (figures.failed, figures.ok + figures.failed);
        let share = float(failed) / float(over.max(1));
        let limit = match self.rules.errors? {
            ErrorBudget::Count(most) if failed > most => most.to_string(),
            ErrorBudget::Share(most) if over >= self.rules.after.max(1) && share > most.get() => {
                most.to_string()
            }
            _ => return None,
        };
        Some(Verdict {
            rule: "errors",
            reason: format!(
                "{failed} of {over} requests failed ({:.1} %), the budget is {limit}",
                share * 100.0
            ),
        })
    }

    fn saturated(&mut self, last: &Figures, figures: &Figures, seconds: f64) -> Option<Verdict> {
        let Saturation { window, growth } = self.rules.saturation?;
        let length = usize::try_from(window.get().as_secs()).unwrap_or(usize::MAX);
        let arrived = float(figures.sent.saturating_sub(last.sent)) / seconds;
        keep(&mut self.load, (float(figures.in_flight), arrived), length);
        if self.load.len() < length {
            return None;
        }
        let in_flight: Vec<f64> = self.load.iter().map(|second| second.0).collect();
        let arrivals = mean(self.load.iter().map(|second| second.1), length);
        let line = Line::through(&in_flight)?;
        let least = line.slope - line.error * t_quantile(0.99, line.freedom);
        if arrivals <= 0.0 || least <= growth.get() * arrivals {
            return None;
        }
        Some(Verdict {
            rule: "saturation",
            reason: format!(
                "requests in flight grew by {:.2} a second for {window} (99 % sure: by more than {least:.2}) with {arrivals:.2} arriving: over {growth} of them were left over",
                line.slope
            ),
        })
    }

    fn settled(&mut self, last: &Figures, figures: &Figures, seconds: f64) -> Option<Verdict> {
        let Steady { metric, within, window } = self.rules.steady?;
        let length = usize::try_from(window.get().as_secs()).unwrap_or(usize::MAX);
        let rate = |now: u64, before: u64| Some(float(now.saturating_sub(before)) / seconds);
        let value = match metric {
            SteadyMetric::Throughput => rate(figures.ok, last.ok),
            SteadyMetric::TokenThroughput => rate(figures.output_tokens, last.output_tokens),
            SteadyMetric::Ttft | SteadyMetric::E2e => times_mean(&figures.recent),
            SteadyMetric::TtftP99 | SteadyMetric::E2eP99 => times_p99(&figures.recent),
        };
        let Some(value) = value else {
            // Nothing ended: whatever was before is no unbroken stretch any more.
            self.figure.clear();
            return None;
        };
        keep(&mut self.figure, value, length);
        if self.figure.len() < length {
            return None;
        }
        let values: Vec<f64> = self.figure.iter().copied().collect();
        let Settled { mean, interval, drift } = Settled::of(&values)?;
        let most = within.get() * mean;
        if interval > most || drift > most {
            return None;
        }
        Some(Verdict {
            rule: "steady",
            reason: format!(
                "{} settled: over {window} its mean {mean:.4} is sure to {:.2} % (95 %), its halves differ by {:.2} %, limit {within}",
                metric.as_str(),
                interval / mean * 100.0,
                drift / mean * 100.0
            ),
        })
    }
}

fn keep<T>(window: &mut VecDeque<T>, value: T, length: usize) {
    window.push_back(value);
    while window.len() > length {
        window.pop_front();
    }
}

/// A line through values that are one second apart, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    slope: f64,
    /// Standard error of the slope.
    error: f64,
    /// Degrees of freedom, less than values where neighbours depend on each other.
    freedom: f64,
}

impl Line {
    fn through(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count < 4 {
            return None;
        }
        let middle = (float_of(count) - 1.0) / 2.0;
        let average = mean(values.iter().copied(), count);
        let at = |index: usize| float_of(index) - middle;
        let points = || values.iter().enumerate().map(|(index, value)| (at(index), *value));
        let squares: f64 = points().map(|(x, _)| x * x).sum();
        let slope = points().map(|(x, y)| x * (y - average)).sum::<f64>() / squares;
        let left: Vec<f64> = points().map(|(x, y)| y - average - slope * x).collect();
        let effective = effective(&left, 3.0);
        let variance = left.iter().map(|rest| rest * rest).sum::<f64>() / (float_of(count) - 2.0);
        // As if there were only as many values as are independent of each other.
        let error = (variance / squares * float_of(count) / effective).sqrt();
        Some(Self { slope, error, freedom: (effective - 2.0).max(1.0) })
    }
}

/// How far values have settled.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Settled {
    mean: f64,
    /// Half the width of the 95 % interval of the mean.
    interval: f64,
    /// Difference between the means of the first and the second half.
    drift: f64,
}

impl Settled {
    fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let average = mean(values.iter().copied(), count);
        if count < 4 || average <= 0.0 {
            return None;
        }
        let left: Vec<f64> = values.iter().map(|value| value - average).collect();
        let effective = effective(&left, 2.0);
        let variance = left.iter().map(|rest| rest * rest).sum::<f64>() / (float_of(count) - 1.0);
        let interval = t_quantile(0.975, effective - 1.0) * (variance / effective).sqrt();
        let half = count / 2;
        let first = mean(values.iter().take(half).copied(), half);
        let second = mean(values.iter().skip(count - half).copied(), half);
        Some(Self { mean: average, interval, drift: (second - first).abs() })
    }
}

/// How many independent values a series is worth: n(1 − ρ)/(1 + ρ) with the correlation ρ of
/// neighbours (first-order autoregression; G. V. Bayley and J. M. Hammersley, "The 'effective'
/// number of independent observations in an autocorrelated time series", 1946). Never more than
/// n, and at least `least`.
fn effective(left: &[f64], least: f64) -> f64 {
    let count = float_of(left.len());
    let squares: f64 = left.iter().map(|rest| rest * rest).sum();
    if squares <= 0.0 {
        return count;
    }
    let products: f64 = left.iter().zip(left.iter().skip(1)).map(|(a, b)| a * b).sum();
    let correlation = (products / squares).clamp(0.0, 0.99);
    (count * (1.0 - correlation) / (1.0 + correlation)).max(least)
}

/// Quantile of Student's t distribution.
fn t_quantile(p: f64, freedom: f64) -> f64 {
    // Location, scale and degrees of freedom are above zero; if not, nothing is ever sure.
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(p))
}

/// Mean of times, in seconds.
fn times_mean(times: &[(u64, u64)]) -> Option<f64> {
    let count: u64 = times.iter().map(|(_, count)| count).sum();
    let sum: f64 = times.iter().map(|(ns, count)| float(*ns) * float(*count)).sum();
    (count > 0).then(|| sum / float(count) / 1e9)
}

/// 99th percentile of times, in seconds: the smallest with at least 99 % of them at or below it.
fn times_p99(times: &[(u64, u64)]) -> Option<f64> {
    let mut sorted: BTreeMap<u64, u64> = BTreeMap::new();
    for (ns, count) in times {
        *sorted.entry(*ns).or_default() += count;
    }
    let count: u64 = sorted.values().sum();
    let needed = count - count / 100;
    let mut below = 0;
    sorted.into_iter().find_map(|(ns, count)| {
        below += count;
        (below >= needed).then(|| float(ns) / 1e9)
    })
}

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / float_of(count.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "no load has 2^53 requests")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "at most an hour of seconds")]
fn float_of(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Stop {
        serde_json::from_str(text).unwrap()
    }

    /// Random but always the same: values from 0 to 1.
    fn noise(n: u64) -> f64 {
        let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        float(mixed >> 40) / float(1 << 24)
    }

    /// Feeds a series until a rule is fulfilled; gives the second and the verdict.
    fn judge(rules: Stop, figures: impl Fn(u64) -> Figures) -> Option<(u64, Verdict)> {
        let mut judge = Judge::new(rules);
        (0..300).find_map(|second| {
            let at = Figures { at_ms: second * 1_000, ..figures(second) };
            judge.second(at).map(|verdict| (second, verdict))
        })
    }

    #[test]
    fn t_quantiles_are_those_of_the_tables() {
        for (p, freedom, expected) in [
            (0.975, 1.0, 12.706),
            (0.975, 2.0, 4.303),
            (0.975, 3.0, 3.182),
            (0.975, 9.0, 2.262),
            (0.975, 30.0, 2.042),
            (0.99, 1.0, 31.821),
            (0.99, 2.0, 6.965),
            (0.99, 4.0, 3.747),
            (0.99, 18.0, 2.552),
        ] {
            let found = t_quantile(p, freedom);
            assert!((found / expected - 1.0).abs() < 0.012, "{p} {freedom}: {found} {expected}");
        }
    }

    #[test]
    fn a_number_of_errors_is_a_budget() {
        let rule = || rules(r#"{"errors": 5}"#);
        let found = judge(rule(), |s| Figures { failed: s, ok: 100 * s, ..Figures::default() });
        let (second, verdict) = found.unwrap();
        assert_eq!((second, verdict.rule), (6, "errors"));
        assert!(verdict.reason.contains("6 of 606 requests failed (1.0 %), the budget is 5"));
        assert_eq!(judge(rule(), |_| Figures { failed: 5, ..Figures::default() }), None);
    }

    #[test]
    fn a_share_of_errors_is_judged_after_enough_requests() {
        let rule = || rules(r#"{"errors": "10%", "after": 50}"#);
        let figures = |s| Figures { failed: 2 * s, ok: 8 * s, ..Figures::default() };
        assert_eq!(judge(rule(), figures).unwrap().0, 5, "20 %, seen at the 50th request");
        let figures = |s| Figures { failed: s, ok: 9 * s, ..Figures::default() };
        assert_eq!(judge(rule(), figures), None, "10 % are within the budget");
    }

    /// A service that answers `served` of 100 requests a second, with noise in what is in flight.
    fn open(served: u64, wobble: f64) -> impl Fn(u64) -> Figures {
        move |s| Figures {
            sent: 100 * s,
            ok: served * s,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]
            in_flight: 20 + (100 - served) * s + (noise(s) * wobble) as u64,
            ..Figures::default()
        }
    }

    #[test]
    fn a_queue_that_grows_is_saturation() {
        let rule = || rules(r#"{"saturation": {"window": "20s"}}"#);
        let (second, verdict) = judge(rule(), open(85, 30.0)).unwrap();
        assert_eq!((second, verdict.rule), (20, "saturation"), "as soon as the window is full");
        assert!(verdict.reason.contains("100.00 arriving"), "{}", verdict.reason);
        assert_eq!(judge(rule(), open(100, 60.0)), None, "noise is no growth");
        assert_eq!(judge(rule(), open(98, 0.0)), None, "2 % are below the limit of 5 %");
        let strict = rules(r#"{"saturation": {"window": "20s", "growth": "1%"}}"#);
        assert!(judge(strict, open(98, 0.0)).is_some());
    }

    /// A random walk that comes back, as a busy but stable queue does.
    #[test]
    fn a_queue_that_wanders_is_no_saturation() {
        let walk: Vec<u64> = (0..300)
            .scan(50.0, |level: &mut f64, n| {
                *level += (50.0 - *level) * 0.1 + (noise(n) - 0.5) * 16.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a test"
                )]
                Some(level.max(0.0) as u64)
            })
            .collect();
        let rule = rules(r#"{"saturation": {"window": "20s"}}"#);
        let figures = |s: u64| Figures {
            sent: 100 * s,
            in_flight: walk.get(usize::try_from(s).unwrap()).copied().unwrap_or(0),
            ..Figures::default()
        };
        assert_eq!(judge(rule, figures), None);
    }

    #[test]
    fn a_throughput_that_stays_is_steady() {
        let rule =
            || rules(r#"{"steady": {"metric": "throughput", "within": "5%", "for": "10s"}}"#);
        // Rises for 30 s, then stays at 100 a second.
        let rising = |s: u64| (0..s).map(|n| n.min(30) * 100 / 30).sum::<u64>();
        let (second, verdict) =
            judge(rule(), |s| Figures { ok: rising(s), ..Figures::default() }).unwrap();
        assert!((35..=41).contains(&second) && verdict.rule == "steady", "{second}");
        // Half up, half down for ever: 30 % of noise.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]
        let noisy = |s: u64| (0..s).map(|n| 50 + (noise(n) * 100.0) as u64).sum::<u64>();
        assert_eq!(judge(rule(), |s| Figures { ok: noisy(s), ..Figures::default() }), None);
        // Grows by 2 % a second: never steady, though each second is near the one before.
        let growing = |s: u64| (0..s).map(|n| 100 + 3 * n).sum::<u64>();
        let found = judge(
            rules(r#"{"steady": {"metric": "token_throughput", "within": "2%", "for": "10s"}}"#),
            |s| Figures { output_tokens: growing(s), ..Figures::default() },
        );
        assert_eq!(found, None);
        assert_eq!(judge(rule(), |_| Figures::default()), None, "nothing at all is not steady");
    }

    #[test]
    fn times_settle_too() {
        let rule = || rules(r#"{"steady": {"metric": "ttft_p99", "for": "5s"}}"#);
        assert_eq!(Judge::wanted_times(&rule()), Some("ttft"));
        let times = |s: u64| {
            let slowest = 50_000_000 + 400_000_000 / (s + 1).pow(2);
            Figures { recent: vec![(slowest, 2), (10_000_000, 98)], ..Figures::default() }
        };
        let (second, verdict) = judge(rule(), times).unwrap();
        assert!((8..40).contains(&second), "{second}");
        assert!(verdict.reason.starts_with("ttft_p99 settled"), "{}", verdict.reason);
        // A second without any answer begins anew.
        let gaps = |s: u64| if s.is_multiple_of(4) { Figures::default() } else { times(1) };
        assert_eq!(judge(rule(), gaps), None);
        assert_eq!(times_p99(&[(3, 1), (1, 99)]), Some(1e-9));
        assert_eq!(times_p99(&[(3, 2), (1, 98)]), Some(3e-9));
        assert_eq!((times_p99(&[]), times_mean(&[])), (None, None));
        assert_eq!(times_mean(&[(1_000_000_000, 1), (3_000_000_000, 3)]), Some(2.5));
    }
}
