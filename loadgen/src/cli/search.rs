//! The search that the options of `run` ask for.

use std::collections::BTreeMap;

use aifb_schema::{
    recipe::{Level, Search, SearchLimit, Target},
    units::Span,
};

use super::Run;
use crate::error::Fatal;

/// The search that the options ask for.
///
/// # Errors
/// If a limit or a load is none.
pub(super) fn of(options: &Run) -> Result<Option<Search>, Fatal> {
    let wanted = &options.search;
    let (Some(from), Some(to), Some(probe)) = (&wanted.from, &wanted.to, options.time) else {
        return Ok(None);
    };
    let (from, to) = (level(from)?, level(to)?);
    if std::mem::discriminant(&from) != std::mem::discriminant(&to) || from.get() >= to.get() {
        return Err(Fatal::usage("reading --from and --to: they are not a range").hint(
            "two rates (--from 1/s --to 100/s) or two numbers in flight (--from 1 --to 256)",
        ));
    }
    let slo: BTreeMap<String, SearchLimit> =
        wanted.limits.iter().map(|text| limit(text)).collect::<Result<_, _>>()?;
    if slo.contains_key("attainment")
        && options.slo_ttft.or(options.slo_itl).or(options.slo_e2e).is_none()
    {
        return Err(Fatal::usage("reading --search 'attainment': it needs the limits of an SLO")
            .hint("add --slo-ttft, --slo-itl or --slo-e2e"));
    }
    Ok(Some(Search { slo, from, to, within: wanted.within, probes: wanted.probes.max(1), probe }))
}

fn level(text: &str) -> Result<Level, Fatal> {
    let wrong = |cause: String| {
        Fatal::usage(format!("reading load '{text}': {cause}"))
            .hint("a rate such as 20/s, or a number of requests in flight")
    };
    match text.parse::<u32>() {
        Ok(0) => Err(wrong("at least one request in flight is needed".to_owned())),
        Ok(count) => Ok(Level::Concurrency(count)),
        Err(_) => text.parse().map(Level::Rate).map_err(|error| wrong(format!("{error}"))),
    }
}

fn limit(text: &str) -> Result<(String, SearchLimit), Fatal> {
    let wrong = |cause: &str| {
        Fatal::usage(format!("reading --search '{text}': {cause}"))
            .hint("for example ttft_p99=500ms, e2e_p95=10s, attainment=0.99")
    };
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected NAME=LIMIT"))?;
    let limit = match Target::of(name).ok_or_else(|| wrong("no such limit"))? {
        Target::Attainment => {
            let share = value.parse().ok().filter(|share| (0.0..1.0).contains(share));
            SearchLimit::Share(share.ok_or_else(|| wrong("expected a share below 1"))?)
        }
        Target::Quantile(..) => {
            let span: Span = value.parse().map_err(|error| wrong(&format!("{error}")))?;
            SearchLimit::Time(span)
        }
    };
    Ok((name.to_owned(), limit))
}
