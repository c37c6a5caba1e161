//! Whether answers take longer and longer: the mark of a load beyond what a service can do.

use aifb_schema::search::Growth;

/// Batches that the time is cut into. Response times of neighbouring requests depend on each
/// other, so a regression over single requests would be far too sure; means of batches hardly do
/// (batch means: G. S. Fishman, "Grouping observations in digital simulation", Management Science
/// 24(5), 1978).
const BATCHES: usize = 10;

/// t of 95 % (two-sided) with 8 degrees of freedom: ten batches, two parameters.
const T_95_8: f64 = 2.306;

/// Slope of response times over the time, by least squares over the means of ten batches of equal
/// time; `None` where a batch has no request.
///
/// `requests` are (planned, response time) in seconds; those outside `from..to` are left out.
#[must_use]
pub fn response_growth(
    requests: impl Iterator<Item = (f64, f64)>,
    from: f64,
    to: f64,
) -> Option<Growth> {
    let width = (to - from) / float(BATCHES);
    if width <= 0.0 {
        return None;
    }
    let mut batches = [(0.0, 0_u32); BATCHES];
    for (planned, response) in requests.filter(|(planned, _)| (from..to).contains(planned)) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the batches, by the filter"
        )]
        let index = (((planned - from) / width) as usize).min(BATCHES - 1);
        if let Some((sum, count)) = batches.get_mut(index) {
            *sum += response;
            *count += 1;
        }
    }
    let mut points = Vec::with_capacity(BATCHES);
    for (index, (sum, count)) in batches.into_iter().enumerate() {
        if count == 0 {
            return None;
        }
        points.push(((float(index) + 0.5) * width, sum / f64::from(count)));
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / float(BATCHES);
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let xx: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let xy: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let slope = xy / xx;
    let squares: f64 =
        points.iter().map(|(x, y)| (y - y_mean - slope * (x - x_mean)).powi(2)).sum();
    let error = T_95_8 * (squares / float(BATCHES - 2) / xx).sqrt();
    Some(Growth { slope, error })
}

#[expect(clippy::cast_precision_loss, reason = "a few batches")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(response: impl Fn(f64) -> f64) -> Growth {
        let requests = (0..1000).map(|n| f64::from(n) / 100.0);
        response_growth(requests.map(|at| (at, response(at))), 0.0, 10.0).unwrap()
    }

    #[test]
    fn a_queue_that_grows_is_seen() {
        // 3 % more than can be served: 30 ms longer each second, in noise.
        let found = growth(|at| 0.1 + 0.03 * at + (at * 977.0).sin() * 0.05);
        assert!((found.slope - 0.03).abs() < 0.003, "{found:?}");
        assert!(found.slope - found.error > 0.01, "{found:?}");
    }

    #[test]
    fn noise_does_not_grow() {
        let found = growth(|at| 0.1 + (at * 977.0).sin() * 0.05);
        assert!(found.slope.abs() <= found.error.max(1e-3), "{found:?}");
        // One slow second in the middle is no growth.
        let found = growth(|at| if (4.0..5.0).contains(&at) { 1.0 } else { 0.1 });
        assert!(found.slope - found.error < 0.0, "{found:?}");
    }

    #[test]
    fn gaps_say_nothing() {
        assert_eq!(response_growth([(0.5, 1.0)].into_iter(), 0.0, 10.0), None);
        assert_eq!(response_growth(std::iter::empty(), 1.0, 1.0), None);
    }
}
