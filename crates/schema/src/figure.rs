//! Figures of a result: each with its name, its unit and which way is better, declared once.

use crate::result::{Comparable, ComparableTime, Distribution, Metrics};

/// What a value counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things, whole ones.
    Count,
    /// Of what the name says, per second.
    PerSecond,
    /// A share of a whole, 0 to 1.
    Share,
    /// A number whose name says what it is of.
    Number,
    /// Words.
    Text,
}

/// Which of two values of a figure is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The lower one.
    Lower,
    /// The higher one.
    Higher,
    /// Neither: the value describes the run, not how good it is.
    Neither,
}

/// A value that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A whole number.
    Count(u64),
    /// A number in the figure's unit.
    Number(f64),
    /// A distribution in the figure's unit.
    Distribution(&'a Distribution),
}

/// A figure that was measured. One that was not is left out of every list of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure<'a> {
    /// Its key in the result.
    pub name: &'a str,
    /// Its name for people.
    pub label: &'a str,
    /// What it is, in a few words; empty where the label says it.
    pub meaning: &'static str,
    /// Unit of the value.
    pub unit: Unit,
    /// Which way is better.
    pub better: Better,
    /// The value.
    pub value: Value<'a>,
}

impl<'a> Figure<'a> {
    /// Its distribution, where it is one.
    #[must_use]
    pub fn distribution(&self) -> Option<&'a Distribution> {
        match self.value {
            Value::Distribution(one) => Some(one),
            Value::Count(_) | Value::Number(_) => None,
        }
    }
}

/// A field of [`Metrics`] as a figure has it.
trait Measured {
    /// Its value, where it was measured.
    fn value(&self) -> Option<Value<'_>>;
}

impl Measured for Option<f64> {
    fn value(&self) -> Option<Value<'_>> {
        self.map(Value::Number)
    }
}

impl Measured for Option<u64> {
    fn value(&self) -> Option<Value<'_>> {
        self.map(Value::Count)
    }
}

impl Measured for Option<Distribution> {
    fn value(&self) -> Option<Value<'_>> {
        self.as_ref().map(Value::Distribution)
    }
}

/// The figures of [`Metrics`], one line each: field, unit, which way is better, name for people,
/// meaning. A field that is neither here nor passed over in the first line does not compile.
macro_rules! figures_of_metrics {
    ($metrics:ident, $($field:ident $unit:ident $better:ident $label:literal $meaning:literal;)*) => {{
        let Metrics { token_source: _, former_operations: _, $($field,)* } = $metrics;
        [$($field.value().map(|value| Figure {
            name: stringify!($field),
            label: $label,
            meaning: $meaning,
            unit: Unit::$unit,
            better: Better::$better,
            value,
        }),)*]
    }};
}

impl Metrics {
    /// Every figure that was measured, in the order of reports.
    #[must_use]
    pub fn each(&self) -> Vec<Figure<'_>> {
        let own = figures_of_metrics! { self,
            duration_seconds Seconds Neither "duration" "";
            requests_per_second PerSecond Higher "requests" "";
            output_tokens_per_second PerSecond Higher "output tokens" "";
            output_tokens Count Neither "output tokens" "";
            input_tokens Count Neither "input tokens" "";
            cached_input_tokens Count Neither "cached input tokens" "";
            events_per_read Number Neither "events per socket read" "";
            goodput_per_second PerSecond Higher "good requests" "";
            attainment_ratio Share Higher "within the SLO" "";
            ttft_seconds Seconds Lower "TTFT" "scheduled → first token";
            ttfo_seconds Seconds Lower "TTFO" "scheduled → first token that is not reasoning";
            inter_token_seconds Seconds Lower "inter-token" "gap between two pieces of content";
            tpot_seconds Seconds Lower "TPOT"
                "first → last token of a request, divided by its tokens after the first";
            e2e_seconds Seconds Lower "last content (e2e)"
                "scheduled → last content; without streaming → end of the response";
            total_seconds Seconds Lower "full response (total)" "scheduled → end of the response";
            service_seconds Seconds Lower "server latency" "first byte sent → end of the response";
            client_lag_seconds Seconds Lower "send delay"
                "scheduled → first byte sent; connecting is part of it";
            receive_lag_seconds Seconds Lower "receive delay" "sent by the mock server → received";
        };
        own.into_iter().flatten().collect()
    }
}

impl Comparable {
    /// Every figure that was measured, in the order of reports.
    #[must_use]
    pub fn each(&self) -> Vec<Figure<'_>> {
        let times = ComparableTime::ALL.iter().filter_map(|which| {
            let (name, value) = (which.key(), Value::Distribution(self.time(*which)?));
            Some((name, Unit::Seconds, Better::Lower, value))
        });
        let goodput = self.goodput_vllm_per_second.map(|rate| {
            ("goodput_vllm_per_second", Unit::PerSecond, Better::Higher, Value::Number(rate))
        });
        let attainment = self.attainment_sglang_ratio.map(|ratio| {
            ("attainment_sglang_ratio", Unit::Share, Better::Higher, Value::Number(ratio))
        });
        let figures = times.chain(goodput).chain(attainment);
        figures
            .map(|(name, unit, better, value)| {
                let endings = ["_seconds", "_per_second", "_ratio"];
                let label = endings.iter().find_map(|ending| name.strip_suffix(ending));
                let label = label.unwrap_or(name);
                Figure { name, label, meaning: "", unit, better, value }
            })
            .collect()
    }
}
