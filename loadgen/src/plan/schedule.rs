//! Open schedules.
//!
//! Arrivals are made in "expected arrivals" first: gaps of mean 1 from the process, added up. The
//! inverse of the expected number of arrivals until t turns them into times. So a ramp of a
//! Poisson process is exactly the Poisson process of that changing rate, and a constant rate has
//! no error that builds up.

use aifb_schema::recipe::{Measure, Process, Ramp, RampShape};
use aifb_schema::units::Rate;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};

use super::{Phase, Shape, nanos};

/// Distribution of gaps of mean 1.
enum Gaps {
    Poisson,
    Constant,
    Gamma(Gamma<f64>),
}

impl Gaps {
    fn new(process: Process) -> Self {
        match process {
            Process::Poisson => Self::Poisson,
            Process::Constant => Self::Constant,
            // Shape k and scale 1/k: mean 1. Both are above zero, which the recipe's types see to;
            // anything else would be a Poisson process.
            Process::Gamma(shape) => {
                Gamma::new(shape, 1.0 / shape).map_or(Self::Poisson, Self::Gamma)
            }
        }
    }
}

/// Arrivals in expected arrivals since the start: the k-th has k behind it on average.
struct Arrivals {
    gaps: Gaps,
    index: u64,
    sum: f64,
    random: ChaCha8Rng,
}

impl Arrivals {
    fn new(process: Process, seed: u64, phase: Phase) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        // Each phase has its own stream: another warm-up leaves the measured part as it is.
        random.set_stream(match phase {
            Phase::Warmup => 1,
            Phase::Measure => 2,
        });
        Self { gaps: Gaps::new(process), index: 0, sum: 0.0, random }
    }
}

impl Iterator for Arrivals {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        match &self.gaps {
            #[expect(clippy::cast_precision_loss, reason = "at most 1e8 arrivals")]
            // Counted, not summed: no error builds up.
            Gaps::Constant => self.sum = self.index as f64,
            Gaps::Poisson => {
                let gap: f64 = Exp1.sample(&mut self.random);
                self.sum += gap;
            }
            Gaps::Gamma(gamma) => self.sum += gamma.sample(&mut self.random),
        }
        self.index += 1;
        Some(self.sum)
    }
}

/// A part of time in which the rate is constant or changes in one way.
struct Piece {
    /// Rate at its start, arrivals a nanosecond.
    rate: f64,
    change: Change,
    /// Its length; the last one has none.
    length_ns: f64,
}

#[derive(Clone, Copy)]
enum Change {
    No,
    /// By this much a nanosecond.
    Linear(f64),
    /// By e to this a nanosecond.
    Exponential(f64),
}

impl Piece {
    /// Expected arrivals in it.
    fn arrivals(&self) -> f64 {
        let (rate, length) = (self.rate, self.length_ns);
        match self.change {
            Change::No => rate * length,
            Change::Linear(by) => rate * length + by * length * length / 2.0,
            Change::Exponential(by) => rate * (by * length).exp_m1() / by,
        }
    }

    /// When so many arrivals are expected, from its start: the inverse of the integral of the rate.
    fn when(&self, arrivals: f64) -> f64 {
        let rate = self.rate;
        match self.change {
            Change::No => arrivals / rate,
            // rate·t + by·t²/2 = arrivals, in the form that does not cancel.
            Change::Linear(by) => {
                2.0 * arrivals / (rate + (rate * rate + 2.0 * by * arrivals).max(0.0).sqrt())
            }
            // rate·(e^(by·t) − 1)/by = arrivals.
            Change::Exponential(by) => (by * arrivals / rate).ln_1p() / by,
        }
    }
}

/// How the rate changes over the measured part.
struct Course(Vec<Piece>);

impl Course {
    fn constant(rate: f64) -> Self {
        Self(vec![Piece { rate: rate / 1e9, change: Change::No, length_ns: f64::INFINITY }])
    }

    /// From `ramp.from` to `to` within `length_ns`, then `to`.
    fn ramp(ramp: &Ramp<Rate>, to: f64, length_ns: f64) -> Self {
        let (from, to) = (ramp.from.get() / 1e9, to / 1e9);
        let mut pieces = Vec::new();
        if let Some(steps) = ramp.steps {
            for step in 0..steps {
                let done = f64::from(step) / f64::from(steps.max(2) - 1);
                let rate = match ramp.shape {
                    RampShape::Linear => from + (to - from) * done,
                    RampShape::Exponential => from * (to / from).powf(done),
                };
                let length_ns = length_ns / f64::from(steps);
                pieces.push(Piece { rate, change: Change::No, length_ns });
            }
        } else {
            let change = match ramp.shape {
                _ if (to - from).abs() <= from * 1e-12 => Change::No,
                RampShape::Linear => Change::Linear((to - from) / length_ns),
                RampShape::Exponential => Change::Exponential((to / from).ln() / length_ns),
            };
            pieces.push(Piece { rate: from, change, length_ns });
        }
        pieces.push(Piece { rate: to, change: Change::No, length_ns: f64::INFINITY });
        Self(pieces)
    }

    /// When each of ascending numbers of arrivals is expected, in nanoseconds.
    fn times(self, arrivals: Arrivals) -> impl Iterator<Item = u64> {
        let mut pieces = self.0.into_iter().peekable();
        let (mut before, mut start) = (0.0, 0.0);
        arrivals.map_while(move |count| {
            while let Some(piece) = pieces.peek()
                && piece.length_ns.is_finite()
                && count - before >= piece.arrivals()
            {
                before += piece.arrivals();
                start += piece.length_ns;
                pieces.next();
            }
            let at = start + pieces.peek()?.when(count - before);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "times are positive; far beyond the end of any load the cast saturates"
            )]
            Some(at.round() as u64)
        })
    }
}

/// Send times of `rank` in warm-up and measured part, and the end of the latter.
pub(super) fn open(
    shape: &Shape,
    (process, rate, ramp): (Process, Rate, Option<&Ramp<Rate>>),
    rank: u32,
) -> (Vec<u64>, Vec<u64>, u64) {
    let own = |index: usize| index % shape.size as usize == rank as usize;
    let first = ramp.map_or(rate, |ramp| ramp.from).get();
    let warmup = Course::constant(first)
        .times(Arrivals::new(process, shape.seed, Phase::Warmup))
        .take_while(|at| *at < shape.warmup_ns)
        .enumerate()
        .filter(|(index, _)| own(*index))
        .map(|(_, at)| at)
        .collect();
    let course = match (ramp, shape.ramp_ns()) {
        (Some(ramp), Some(length)) => {
            Course::ramp(ramp, rate.get(), aifb_stats::distribution::seconds(length) * 1e9)
        }
        _ => Course::constant(rate.get()),
    };
    let arrivals = course.times(Arrivals::new(process, shape.seed, Phase::Measure));
    let mut last = 0;
    let mut measure = Vec::new();
    let mut take = |(index, at): (usize, u64)| {
        last = at;
        if own(index) {
            measure.push(shape.warmup_ns.saturating_add(at));
        }
    };
    match shape.measure {
        Measure::Time(span) => {
            arrivals.take_while(|at| *at < nanos(span)).enumerate().for_each(&mut take);
        }
        Measure::Requests(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            arrivals.take(count).enumerate().for_each(&mut take);
        }
    }
    (warmup, measure, shape.warmup_ns.saturating_add(last))
}
