//! Instants as people and logs write them.
//!
//! The text form is RFC 3339.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{
    Date, Month, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339,
};

use crate::error::ValueError;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A date and a time of day, without a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60: a leap second is the first second of the next minute.
    pub second: u32,
}

impl Civil {
    /// Seconds since 1970 if it is in UTC; absent when a field is out of its range, or before 1970.
    #[must_use]
    pub fn epoch_s(self) -> Option<i64> {
        let Self { year, month, day, hour, minute, second } = self;
        let small = |value: u32| u8::try_from(value).ok();
        let leap = u32::from(second == 60);
        let month = Month::try_from(small(month)?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, small(day)?).ok()?;
        let time = Time::from_hms(small(hour)?, small(minute)?, small(second - leap)?).ok()?;
        let epoch_s = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
        (epoch_s >= 0).then_some(epoch_s + i64::from(leap))
    }
}

/// The year in which an instant is, in UTC; 1970 for one that is out of range.
#[must_use]
pub fn year_of(epoch_s: i64) -> i64 {
    OffsetDateTime::from_unix_timestamp(epoch_s).map_or(1970, |at| at.year().into())
}

/// An instant, written as RFC 3339 has it: `2026-12-31T00:00:00Z`, `2026-12-31T01:00:00+01:00`.
/// Without a zone it is UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    /// Nanoseconds since 1970.
    pub epoch_ns: u64,
}

impl FromStr for When {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        parse(text.trim()).ok_or_else(|| {
            let text: String = text.chars().take(64).collect();
            ValueError(format!(
                "invalid time '{text}': expected a date and a time such as 2026-12-31T00:00:00Z"
            ))
        })
    }
}

fn parse(text: &str) -> Option<When> {
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    let epoch_ns = u64::try_from(at.ok()?.unix_timestamp_nanos()).ok()?;
    Some(When { epoch_ns })
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = self.epoch_ns % SECOND;
        let whole = OffsetDateTime::from_unix_timestamp_nanos((self.epoch_ns - fraction).into());
        let text = whole.map_err(|_| fmt::Error)?.format(&Rfc3339).map_err(|_| fmt::Error)?;
        match fraction {
            0 => f.write_str(&text),
            // All nine digits, so that lines of a log stand below one another.
            _ => write!(f, "{}.{fraction:09}Z", text.trim_end_matches('Z')),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for When {
    fn schema_name() -> Cow<'static, str> {
        "When".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "An instant such as 2026-12-31T00:00:00Z; without a zone it is UTC."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_and_written() {
        for (text, epoch_ns, written) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2026-12-31T00:00:00Z", 1_798_675_200 * SECOND, "2026-12-31T00:00:00Z"),
            ("2026-12-31 01:00:00+01:00", 1_798_675_200 * SECOND, "2026-12-31T00:00:00Z"),
            ("2024-02-29T23:59:59", 1_709_251_199 * SECOND, "2024-02-29T23:59:59Z"),
            ("1970-01-01T00:00:01.5Z", 1_500_000_000, "1970-01-01T00:00:01.500000000Z"),
        ] {
            let when: When = text.parse().unwrap();
            assert_eq!((when.epoch_ns, when.to_string()), (epoch_ns, written.into()), "{text}");
        }
        for wrong in ["", "tomorrow", "2026-12-31", "2026-13-01T00:00:00Z", "2026-12-31T0a:00:00Z"]
        {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_become_seconds() {
        let of = |year, month, day, second| {
            Civil { year, month, day, hour: 23, minute: 59, second }.epoch_s()
        };
        assert_eq!(of(2024, 2, 29, 59), Some(1_709_251_199));
        // A leap second is the first second of the next minute.
        assert_eq!(of(2016, 12, 31, 60), Some(1_483_228_800));
        for (year, month, day, second) in
            [(2023, 2, 29, 0), (2024, 13, 1, 0), (2024, 1, 0, 0), (2024, 1, 1, 61), (1969, 1, 1, 0)]
        {
            assert_eq!(of(year, month, day, second), None, "{year}-{month}-{day}");
        }
        assert_eq!(year_of(1_709_251_199), 2024);
    }
}
