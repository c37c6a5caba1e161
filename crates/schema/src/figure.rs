//! Figures of a result: each with its name, its unit and which way is better, declared once.

use crate::result::Distribution;

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
