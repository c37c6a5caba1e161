use aifb_schema::{
    recipe::{Process, Ramp, RampShape, Think},
    units::{Rate, Span},
};

use super::*;

fn per_second(rate: f64) -> Rate {
    Rate::per_second(rate).unwrap()
}

fn open(process: Process, rate: f64, measure: Measure, size: u32) -> Shape {
    Shape {
        arrival: Arrival::Open { process, rate: per_second(rate), ramp: None },
        warmup_ns: 2_000_000_000,
        measure,
        drain_ns: 0,
        seed: 42,
        size,
    }
}

fn closed(concurrency: u32, measure: Measure, size: u32) -> Shape {
    let think = Think::Fixed(Span::millis(5));
    Shape {
        arrival: Arrival::Closed { concurrency, think, ramp: None },
        ..open(Process::Constant, 1.0, measure, size)
    }
}

fn sends(shape: &Shape, rank: u32) -> (Vec<u64>, Vec<u64>) {
    match shape.worker(rank).unwrap().sends {
        Sends::Open { warmup, measure } => (warmup, measure),
        Sends::Closed { .. } => panic!("closed"),
    }
}

#[test]
fn shares_are_exact() {
    for whole in [0, 1, 7, 100, 101, 1_000_003] {
        for size in [1, 2, 3, 8, 30] {
            let parts: Vec<u64> = (0..size).map(|rank| share(whole, rank, size)).collect();
            assert_eq!(parts.iter().sum::<u64>(), whole, "{whole} over {size}");
            assert!(parts.is_sorted_by(|a, b| a >= b), "remainders go to low ranks");
            assert!(parts[0] - parts[parts.len() - 1] <= 1);
        }
    }
}

#[test]
fn constant_rate_has_equal_gaps_and_exact_counts() {
    let shape = open(Process::Constant, 20.0, Measure::Time(Span::secs(60)), 1);
    let (warmup, measure) = sends(&shape, 0);
    assert_eq!((warmup.len(), measure.len()), (40, 1200));
    assert_eq!(measure[0], 2_000_000_000);
    assert!(measure.windows(2).all(|pair| pair[1] - pair[0] == 50_000_000));
    // A gap that has no exact binary form does not drift.
    let shape = open(Process::Constant, 3.0, Measure::Requests(3_000_001), 1);
    assert_eq!(sends(&shape, 0).1[3_000_000], 1_000_002_000_000_000);
}

#[test]
fn workers_share_one_schedule() {
    for process in [Process::Constant, Process::Poisson, Process::Gamma(0.5)] {
        for measure in [Measure::Requests(1001), Measure::Time(Span::secs(10))] {
            let alone = sends(&open(process, 100.0, measure, 1), 0);
            for size in [2, 3, 8] {
                let shape = open(process, 100.0, measure, size);
                let parts: Vec<_> = (0..size).map(|rank| sends(&shape, rank)).collect();
                let lengths: Vec<usize> = parts.iter().map(|part| part.1.len()).collect();
                assert!(
                    lengths.is_sorted_by(|a, b| a >= b)
                        && lengths[0] - lengths[lengths.len() - 1] <= 1
                );
                let mut warmup: Vec<u64> = parts.iter().flat_map(|part| part.0.clone()).collect();
                let mut measured: Vec<u64> = parts.iter().flat_map(|part| part.1.clone()).collect();
                warmup.sort_unstable();
                measured.sort_unstable();
                assert_eq!((warmup, measured), alone, "{process:?} over {size}");
            }
        }
    }
}

#[test]
fn a_number_of_requests_is_met_exactly() {
    for size in [1, 3, 7] {
        let shape = open(Process::Poisson, 50.0, Measure::Requests(100), size);
        let total: u64 = (0..size).map(|rank| shape.worker(rank).unwrap().planned().unwrap()).sum();
        assert_eq!(total, 100);
        let shape = closed(10, Measure::Requests(100), size);
        let (mut slots, mut requests) = (0, 0);
        for rank in 0..size {
            let Sends::Closed { slots: own, requests: Some(wanted), think, starts } =
                shape.worker(rank).unwrap().sends
            else {
                panic!("closed with a number of requests");
            };
            assert_eq!((think, starts.len()), (Pause::Fixed(5_000_000), 0));
            slots += own;
            requests += wanted;
        }
        assert_eq!((slots, requests), (10, 100));
    }
}

/// Kolmogorov-Smirnov distance of values from the distribution with this function.
fn ks_distance(mut values: Vec<f64>, function: impl Fn(f64) -> f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let count = values.len() as f64;
    values.iter().enumerate().fold(0.0, |worst: f64, (index, value)| {
        let expected = function(*value);
        worst
            .max((expected - index as f64 / count).abs())
            .max((expected - (index + 1) as f64 / count).abs())
    })
}

/// Critical distance at α = 0.01 for large samples: 1.628 / √n (Smirnov, 1948).
fn ks_limit(count: usize) -> f64 {
    1.628 / (count as f64).sqrt()
}

fn exponential(mean: f64) -> impl Fn(f64) -> f64 {
    move |gap| 1.0 - (-gap / mean).exp()
}

/// Distribution function of the gamma distribution: the regularised lower incomplete gamma
/// function P(k, x/θ), by its series (Abramowitz and Stegun, 6.5.29).
fn gamma(shape: f64, mean: f64) -> impl Fn(f64) -> f64 {
    // ln Γ by Lanczos' approximation (g = 5, six terms).
    let ln_gamma = |z: f64| {
        let terms = [
            76.180_091_729_471_46,
            -86.505_320_329_416_77,
            24.014_098_240_830_91,
            -1.231_739_572_450_155,
            0.001_208_650_973_866_179,
            -0.000_005_395_239_384_953,
        ];
        let sum = terms
            .iter()
            .zip(1_u32..)
            .fold(1.000_000_000_190_015, |sum, (term, index)| sum + term / (z + f64::from(index)));
        let base = z + 5.5;
        (z + 0.5) * base.ln() - base + (2.506_628_274_631_000_5 * sum / z).ln()
    };
    move |gap| {
        let x = gap * shape / mean;
        if x <= 0.0 {
            return 0.0;
        }
        let (mut term, mut sum, mut index) = (1.0 / shape, 1.0 / shape, shape);
        while term > sum * 1e-14 {
            index += 1.0;
            term *= x / index;
            sum += term;
        }
        (sum * (shape * x.ln() - x - ln_gamma(shape)).exp()).min(1.0)
    }
}

fn gaps(shape: &Shape) -> Vec<f64> {
    let mut all: Vec<u64> = (0..shape.size).flat_map(|rank| sends(shape, rank).1).collect();
    all.sort_unstable();
    all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect()
}

#[test]
fn poisson_gaps_pass_a_ks_test() {
    for (seed, size) in [(1, 1), (42, 1), (7, 4), (99, 4)] {
        let mut shape = open(Process::Poisson, 500.0, Measure::Time(Span::secs(40)), size);
        shape.seed = seed;
        let gaps = gaps(&shape);
        let (count, limit) = (gaps.len(), ks_limit(gaps.len()));
        let distance = ks_distance(gaps, exponential(2e6));
        assert!(distance < limit, "seed {seed}: {distance} >= {limit}");
        // The twin: equal gaps are not exponential.
        assert!(ks_distance(vec![2e6; count], exponential(2e6)) > limit);
        assert!((count as f64 - 20_000.0).abs() < 4.0 * 20_000_f64.sqrt(), "{count}");
    }
}

#[test]
fn gamma_gaps_pass_a_ks_test() {
    for (seed, burstiness) in [(1, 0.25), (42, 0.5), (7, 1.0), (99, 4.0)] {
        // Slow enough for the shortest of the gaps not to be rounded away: they are whole
        // nanoseconds.
        let measure = Measure::Time(Span::secs(40_000));
        let mut shape = open(Process::Gamma(burstiness), 0.5, measure, 2);
        shape.seed = seed;
        let gaps = gaps(&shape);
        let (count, limit) = (gaps.len(), ks_limit(gaps.len()));
        let distance = ks_distance(gaps.clone(), gamma(burstiness, 2e9));
        assert!(distance < limit, "burstiness {burstiness}: {distance} >= {limit}");
        // The twin: another shape is found out.
        assert!(ks_distance(gaps, gamma(burstiness * 1.2, 2e9)) > limit, "{burstiness}");
        // The variance of a count is that of a Poisson process over the shape.
        let deviation = 4.0 * (20_000.0 / burstiness).sqrt();
        assert!((count as f64 - 20_000.0).abs() < deviation, "{burstiness}: {count}");
    }
}

/// Arrivals that are expected until an instant.
type Integral<'a> = &'a dyn Fn(f64) -> f64;

/// Under the integral of the rate the times of a ramp of a Poisson process are a Poisson process of
/// rate 1.
#[test]
fn ramps_have_the_rate_they_say_at_each_instant() {
    let (from, to, length) = (100.0, 900.0, 40.0);
    let slope: f64 = (to - from) / length;
    let growth = f64::ln(to / from) / length;
    let step = |at: f64| [100.0, 300.0, 500.0, 700.0, 900.0][((at / 8.0) as usize).min(4)];
    let stepped = |at: f64| {
        (0..5).map(|n| step(f64::from(n) * 8.0) * (at - f64::from(n) * 8.0).clamp(0.0, 8.0)).sum()
    };
    let linear = |at: f64| from * at + slope * at * at / 2.0;
    let exponential_ramp = |at: f64| from * (growth * at).exp_m1() / growth;
    let cases: [(RampShape, Option<u32>, Integral<'_>); 3] = [
        (RampShape::Linear, None, &linear),
        (RampShape::Exponential, None, &exponential_ramp),
        (RampShape::Linear, Some(5), &stepped),
    ];
    for (kind, steps, integral) in cases {
        let mut shape = open(Process::Poisson, to, Measure::Time(Span::secs(40)), 3);
        let ramp = Ramp { from: per_second(from), shape: kind, steps, over: None };
        shape.arrival =
            Arrival::Open { process: Process::Poisson, rate: per_second(to), ramp: Some(ramp) };
        let mut all: Vec<u64> = (0..3).flat_map(|rank| sends(&shape, rank).1).collect();
        all.sort_unstable();
        let expected = integral(length);
        assert!((all.len() as f64 - expected).abs() < 4.0 * expected.sqrt(), "{kind:?}");
        let at: Vec<f64> =
            all.iter().map(|at| integral((*at - 2_000_000_000) as f64 / 1e9)).collect();
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let distance = ks_distance(gaps.clone(), exponential(1.0));
        assert!(distance < ks_limit(gaps.len()), "{kind:?} {steps:?}: {distance}");
        let warmup: usize = (0..3).map(|rank| sends(&shape, rank).0.len()).sum();
        assert!(
            (warmup as f64 - 200.0).abs() < 4.0 * 200_f64.sqrt(),
            "at the first rate: {warmup}"
        );
    }
}

#[test]
fn a_constant_ramp_is_exact() {
    let ramp = Ramp {
        from: per_second(10.0),
        shape: RampShape::Linear,
        steps: None,
        over: Some(Span::secs(10)),
    };
    let mut shape = open(Process::Constant, 30.0, Measure::Requests(500), 1);
    shape.arrival =
        Arrival::Open { process: Process::Constant, rate: per_second(30.0), ramp: Some(ramp) };
    let times = sends(&shape, 0).1;
    // 10 t + t² arrivals until t: 200 in 10 s, then 30 a second.
    assert_eq!((times.len(), times[200]), (500, 12_000_000_000));
    assert_eq!(times[230] - times[200], 1_000_000_000);
    assert!((times[75] as f64 - 7e9).abs() < 2.0, "10·5 + 25 = 75: {}", times[75]);
}

#[test]
fn slots_of_a_ramp_are_shared() {
    let mut shape = closed(8, Measure::Time(Span::secs(7)), 3);
    let ramp = Ramp { from: 3, shape: RampShape::Linear, steps: None, over: None };
    let think = Think::default();
    shape.arrival = Arrival::Closed { concurrency: 8, think, ramp: Some(ramp) };
    let starts = |rank| match shape.worker(rank).unwrap().sends {
        Sends::Closed { slots, starts, .. } => {
            assert_eq!(starts.len(), slots as usize);
            starts
        }
        Sends::Open { .. } => panic!("open"),
    };
    // One more every 1.4 s, after a warm-up of 2 s with three.
    assert_eq!(starts(0), [0, 3_400_000_000, 7_600_000_000]);
    assert_eq!(starts(1), [0, 4_800_000_000, 9_000_000_000]);
    assert_eq!(starts(2), [0, 6_200_000_000]);
}

#[test]
fn a_trace_is_shared_and_cut() {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for index in 0..40 {
        let (at, input) = (index * 250, index + 1);
        writeln!(file, "{{\"timestamp\": {at}, \"input_length\": {input}, \"output_length\": 3}}")
            .unwrap();
    }
    let path = file.path().to_str().unwrap().to_owned();
    for (measure, count, last) in [
        (Measure::Time(Span::secs(3)), 12, 4_750_000_000),
        (Measure::Time(Span::secs(60)), 32, 9_750_000_000),
        (Measure::Requests(5), 5, 3_000_000_000),
    ] {
        let mut shape = open(Process::Constant, 1.0, measure, 3);
        shape.arrival = Arrival::Trace { file: path.clone(), speed: 1.0 };
        let plans: Vec<WorkerPlan> = (0..3).map(|rank| shape.worker(rank).unwrap()).collect();
        let mut all: Vec<u64> = (0..3).flat_map(|rank| sends(&shape, rank).1).collect();
        all.sort_unstable();
        assert_eq!((all.len(), all[0], all.last()), (count, 2_000_000_000, Some(&last)));
        assert!(plans.iter().all(|plan| plan.measure_end_ns == Some(last.min(5_000_000_000))
            || plan.measure_end_ns == Some(last)));
        let trace = plans[0].trace.as_ref().unwrap();
        assert_eq!(trace.lengths(Phase::Measure, 0).input, Some(9), "eight are of the warm-up");
    }
    let mut shape = open(Process::Constant, 1.0, Measure::Time(Span::secs(3)), 1);
    shape.arrival = Arrival::Trace { file: path, speed: 100.0 };
    let error = shape.worker(0).unwrap_err().to_string();
    assert!(error.contains("ends before the warm-up"), "{error}");
}

#[test]
fn hashes_name_the_schedule() {
    let shape = open(Process::Poisson, 100.0, Measure::Time(Span::secs(5)), 2);
    assert_eq!(shape.worker(0).unwrap(), shape.worker(0).unwrap());
    assert_ne!(shape.worker(0).unwrap().hash, shape.worker(1).unwrap().hash);
    let mut other = shape.clone();
    other.seed += 1;
    assert_ne!(shape.worker(0).unwrap().hash, other.worker(0).unwrap().hash);
    let mut longer = shape.clone();
    longer.warmup_ns *= 2;
    let (before, after) = (sends(&shape, 0).1, sends(&longer, 0).1);
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).all(|(a, b)| b - a == 2_000_000_000), "same gaps");
    assert_eq!(shape.worker(0).unwrap().hash.len(), 64);
    let hashes = [shape.worker(0).unwrap().hash, shape.worker(1).unwrap().hash];
    let combined = Shape::combined_hash(hashes.iter().map(String::as_str));
    assert_ne!(combined, Shape::combined_hash(hashes.iter().rev().map(String::as_str)));
    let (a, b) = (closed(4, Measure::Requests(9), 2), closed(4, Measure::Requests(10), 2));
    assert_ne!(a.worker(1).unwrap().hash, b.worker(1).unwrap().hash);
}

#[test]
fn impossible_plans_are_refused() {
    let load = |arrival: &str, measure: &str| -> Load {
        serde_json::from_str(&format!(
            r#"{{"name": "x", "driver": "http", "arrival": {arrival}, "phases": {{"measure": {measure}}}}}"#
        ))
        .unwrap()
    };
    let endless = load(r#"{"rate": "1000000/s"}"#, r#""10d""#);
    assert!(Shape::new(&endless, 1).unwrap_err().to_string().contains("more than"));
    let many = load(r#"{"rate": "1/s"}"#, r#"{"requests": 999999999999}"#);
    assert!(Shape::new(&many, 1).is_err());
    let few = load(r#"{"concurrency": 2}"#, r#""1s""#);
    assert!(Shape::new(&few, 3).unwrap_err().to_string().contains("hint: start fewer tasks"));
    assert!(Shape::new(&few, 2).is_ok());
}
