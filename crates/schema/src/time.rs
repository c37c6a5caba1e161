//! Instants as people and logs write them.
//!
//! Calendar arithmetic after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"
//! (proleptic Gregorian calendar); the text form is RFC 3339.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
    /// Seconds since 1970 if it is in UTC; absent when a field is out of its range. The 31st of
    /// a shorter month is the first of the next.
    #[must_use]
    pub fn epoch_s(self) -> Option<i64> {
        let Self { year, month, day, hour, minute, second } = self;
        let fits = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60
            && (1970..=9999).contains(&year);
        if !fits {
            return None;
        }
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5
            + i64::from(day)
            - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        Some(days * 86_400 + i64::from(hour * 3600 + minute * 60 + second))
    }

    /// The inverse of [`Self::epoch_s`].
    #[must_use]
    pub fn of_epoch_s(epoch_s: i64) -> Self {
        let small = |value: i64| u32::try_from(value).unwrap_or(0);
        let (days, of_day) = (epoch_s.div_euclid(86_400), epoch_s.rem_euclid(86_400));
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * years + years / 4 - years / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: years + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(of_year - (153 * shifted + 2) / 5 + 1),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
        }
    }
}

/// An instant, written as RFC 3339 has it: `2026-12-31T00:00:00Z`, `2026-12-31T01:00:00+01:00`.
/// Without a zone it is UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    /// Nanoseconds since 1970.
    pub epoch_ns: u64,
}

/// A text that is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid time '{0}': expected a date and a time such as 2026-12-31T00:00:00Z")]
pub struct WhenError(String);

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        parse(text.trim()).ok_or_else(|| WhenError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<When> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let civil = Civil {
        year: number(date.get(..4)?)?.into(),
        month: number(date.get(5..7)?)?,
        day: number(date.get(8..)?)?,
        hour: number(time.get(..2)?)?,
        minute: number(time.get(3..5)?)?,
        second: number(time.get(6..)?)?,
    };
    let marks = [date.get(4..5)?, date.get(7..8)?, time.get(2..3)?, time.get(5..6)?];
    if marks != ["-", "-", ":", ":"] {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, zone) = rest.split_at(end);
            (number(&format!("{digits:0<9.9}"))?, zone)
        }
    };
    let epoch_s = civil.epoch_s()? - offset_s(zone)?;
    let whole = u64::try_from(epoch_s).ok()?.checked_mul(SECOND)?;
    Some(When { epoch_ns: whole + u64::from(fraction) })
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Seconds east of Greenwich.
fn offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = i64::from(number(hours)?) * 3600 + i64::from(number(minutes)?) * 60;
    match sign {
        "+" => Some(seconds),
        "-" => Some(-seconds),
        _ => None,
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.epoch_ns / SECOND, self.epoch_ns % SECOND);
        let Civil { year, month, day, hour, minute, second } =
            Civil::of_epoch_s(i64::try_from(whole).unwrap_or(i64::MAX));
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if fraction > 0 {
            write!(f, ".{fraction:09}")?;
        }
        f.write_str("Z")
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
    fn the_calendar_goes_both_ways() {
        for epoch_s in (0..8_000_000_000).step_by(86_399 * 97) {
            assert_eq!(Civil::of_epoch_s(epoch_s).epoch_s(), Some(epoch_s));
        }
    }
}
