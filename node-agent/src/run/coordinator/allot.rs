//! Which point and repeat a starting load gets.

use aifb_schema::{
    recipe::{Load, Point, Resolved},
    run::{Failure, Owner},
};

/// A point and a repeat, and the load with the point's values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Allotted {
    pub(super) point: u32,
    pub(super) repeat: u32,
    pub(super) load: Load,
    pub(super) settings: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Chooses the requested point and repeat; else the first point whose repeats were not all started;
/// else one more repeat of the point that has the fewest.
///
/// `begun` are the points and repeats of this load that were allotted before.
///
/// # Errors
/// A point that the recipe does not have, or a repeat that was allotted before.
pub(super) fn allot(
    resolved: &Resolved,
    name: &str,
    asked: (Option<u32>, Option<u32>),
    begun: &[(u32, u32)],
) -> Result<Allotted, Failure> {
    let wrong = |reason: String| Failure::new(Owner::Recipe, name, reason);
    let count_of = |point: u32| begun.iter().filter(|(of, _)| *of == point).count();
    let points = resolved.points_count();
    let load_at = |point: u32| {
        let Point { recipe, settings, .. } = resolved.point(usize::try_from(point).ok()?).ok()?;
        let load = recipe.load.into_iter().find(|load| load.name.as_str() == name)?;
        Some((load, settings))
    };
    let numbers = 0..u32::try_from(points).unwrap_or(u32::MAX);
    let unfinished = |point: &u32| {
        load_at(*point).is_some_and(|(load, _)| {
            // Probes of a search take the place of repeats.
            let repeats = load.search.as_ref().map_or(load.repeat, |search| search.probes);
            count_of(*point) < usize::try_from(repeats).unwrap_or(usize::MAX)
        })
    };
    let point = match asked.0 {
        Some(point) => point,
        None => numbers
            .clone()
            .find(unfinished)
            .or_else(|| numbers.min_by_key(|point| count_of(*point)))
            .unwrap_or(0),
    };
    let (load, settings) = load_at(point).ok_or_else(|| {
        let loads = &resolved.recipe().load;
        let known: Vec<&str> = loads.iter().map(|load| load.name.as_str()).collect();
        if known.contains(&name) {
            wrong(format!("the recipe has no point {point}, only {points}"))
        } else {
            wrong(format!("the recipe has no load '{name}'")).with_hint(match known.as_slice() {
                [] => "it has no load at all".to_owned(),
                known => format!("it has {}", known.join(", ")),
            })
        }
    })?;
    let taken = |repeat: u32| begun.contains(&(point, repeat));
    let repeat = match asked.1 {
        Some(repeat) if taken(repeat) => {
            return Err(wrong(format!("point {point} repeat {repeat} was started before"))
                .with_hint("omit the repeat to get the next free one"));
        }
        Some(repeat) => repeat,
        None => (0..u32::MAX).find(|repeat| !taken(*repeat)).unwrap_or(0),
    };
    Ok(Allotted { point, repeat, load, settings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aifb_schema::recipe::{Presets, resolve};

    fn points() -> Resolved {
        let text = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, program: /x}\nload:\n  - \
                    {name: l, driver: http, arrival: {rate: 1/s}, phases: {measure: 1s}, repeat: 2}\n\
                    sweep: {matrix: {load.l.arrival.rate: [1/s, 2/s]}}\n";
        resolve(text, &[], Presets::built_in()).unwrap()
    }

    #[test]
    fn repeats_of_a_point_come_before_the_next_point() {
        let points = points();
        let mut begun = Vec::new();
        for expected in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)] {
            let allotted = allot(&points, "l", (None, None), &begun).unwrap();
            assert_eq!((allotted.point, allotted.repeat), expected);
            begun.push(expected);
        }
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let points = points();
        let begun = [(1, 0)];
        let given = allot(&points, "l", (Some(1), None), &begun).unwrap();
        assert_eq!((given.point, given.repeat), (1, 1));
        for (name, asked, words) in [
            ("l", (Some(1), Some(0)), "was started before"),
            ("l", (Some(2), None), "no point 2"),
            ("m", (None, None), "no load 'm'"),
        ] {
            let failure = allot(&points, name, asked, &begun).unwrap_err();
            assert!(failure.reason.contains(words), "{}", failure.reason);
        }
    }
}
