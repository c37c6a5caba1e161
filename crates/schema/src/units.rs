//! Quantities as people write them in a recipe: "250ms", "64GiB", "20/s", and names.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{error::ValueError, names::limit};

/// A length of time, written as number and unit: `250ms`, `30s`, `5m`, `1h`; sums as `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A number of bytes: `512MiB`, `64GiB`, `1kB`; a bare number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// Events per second: `20/s`, `600/m`, `0.5/s`. Always finite and above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

/// A part of a whole, above 0 and at most 1: `3%`, `0.5%`, `0.03`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

/// Name of a run, service or load: `[a-z0-9][a-z0-9-]{0,62}`, because it becomes a file name, a
/// label and part of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Rate {
    /// `per_second` events a second.
    ///
    /// # Errors
    /// If it is not finite or not above zero.
    pub fn per_second(per_second: f64) -> Result<Self, ValueError> {
        if per_second.is_finite() && per_second > 0.0 && per_second <= 1e9 {
            Ok(Self(per_second))
        } else {
            Err(ValueError(format!(
                "rate {per_second}/s is out of range: expected 0 < rate <= 1e9/s"
            )))
        }
    }

    /// Events a second.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Share {
    /// `part` of 1.
    #[must_use]
    pub const fn of(part: f64) -> Self {
        Self(part)
    }

    /// Three per cent.
    pub const PERCENT_3: Self = Self(0.03);

    /// As a number up to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it stands in environment variables: upper case, `_` for `-`.
    #[must_use]
    pub fn env_part(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

impl Span {
    /// As [`Duration`].
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    /// `seconds` seconds.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// `millis` milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// Longest time that a recipe may name: 100 days, far above every partition's limit.
const SPAN_MAX: Duration = Duration::from_secs(100 * 24 * 3600);

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError(format!(
                "invalid duration '{text}': expected a number with a unit, such as 250ms, 30s, 5m, 1h or 1m30s"
            ))
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = 0.0_f64;
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or_else(wrong)?;
            let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let scale = match unit {
                "ns" => 1e-9,
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(wrong()),
            };
            total += number * scale;
            rest = next;
        }
        let span = Duration::try_from_secs_f64(total).map_err(|_| wrong())?;
        if span > SPAN_MAX {
            return Err(ValueError(format!("duration '{text}' is too long: at most 100d")));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let units = [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        for (size, unit) in units {
            if nanos != 0 && nanos.is_multiple_of(size) {
                return write!(f, "{}{unit}", nanos / size);
            }
        }
        if nanos == 0 { write!(f, "0s") } else { write!(f, "{nanos}ns") }
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError(format!(
                "invalid size '{text}': expected a number with an optional unit, such as 512MiB, 64GiB or 10MB"
            ))
        };
        let (number, unit) = split_number(text.trim()).ok_or_else(wrong)?;
        let scale: f64 = match unit.trim() {
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            "K" | "KiB" => 1024.0,
            "M" | "MiB" => 1_048_576.0,
            "G" | "GiB" => 1_073_741_824.0,
            "T" | "TiB" => 1_099_511_627_776.0,
            _ => return Err(wrong()),
        };
        let bytes = number * scale;
        if bytes > 9.0e15 {
            return Err(ValueError(format!("size '{text}' is too large: at most 8192TiB")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "split_number yields no sign and the upper bound was just checked"
        )]
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scale, unit) in
            [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError(format!(
                "invalid rate '{text}': expected events per time, such as 20/s, 0.5/s or 600/m"
            ))
        };
        let (number, unit) = split_number(text.trim()).ok_or_else(wrong)?;
        let per = match unit.trim() {
            "/s" => 1.0,
            "/m" | "/min" => 60.0,
            "/h" => 3600.0,
            _ => return Err(wrong()),
        };
        Self::per_second(number / per)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl FromStr for Share {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
        let wrong = || ValueError(format!("invalid share '{}': expected 3% or 0.03", shown()));
        let (number, rest) = split_number(text.trim()).ok_or_else(wrong)?;
        let share = match rest.trim() {
            "%" => number / 100.0,
            "" => number,
            _ => return Err(wrong()),
        };
        if share > 0.0 && share <= 1.0 {
            Ok(Self(share))
        } else {
            Err(ValueError(format!("share '{}' is out of range: above 0% to 100%", shown())))
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To a millionth of a per cent: 7 % is not 7.000000000000001 %.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut bytes = text.bytes();
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = bytes.next().is_some_and(lower)
            && bytes.all(|b| lower(b) || b == b'-')
            && text.len() <= limit::NAME_BYTES;
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError(format!(
                "invalid name '{}': expected 1 to 63 lower-case letters, digits and '-', starting with a letter or digit",
                text.chars().take(80).collect::<String>().escape_debug()
            )))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The unsigned decimal number at the start of `text`, and what follows it.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some((number, rest))
}

macro_rules! as_text {
    ($type:ty, $name:literal, $what:literal, $pattern:literal, $example:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $what, "pattern": $pattern, "examples": [$example]})
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(TextVisitor::<Self> { what: $what, example: $example, of: std::marker::PhantomData })
            }
        }
    };
}

macro_rules! serialize_as_display {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )* };
}
serialize_as_display!(Span, Size, Rate, Share);

as_text!(Span, "Span", "a length of time", r"^([0-9.]+(ns|us|ms|s|m|min|h|d))+$", "1m30s");
as_text!(Size, "Size", "a number of bytes", r"^[0-9.]+ ?([KMGT]iB|[kKMGT]B|[KMGTB])?$", "64GiB");
as_text!(Rate, "Rate", "events per time", r"^[0-9.]+ ?/(s|m|min|h)$", "20/s");
as_text!(Share, "Share", "a part of a whole", r"^[0-9.]+ ?%?$", "3%");
as_text!(Name, "Name", "a name", r"^[a-z0-9][a-z0-9-]{0,62}$", "mistral-latency");

/// Parses a scalar by `FromStr`; a number gets a message that shows the unit it lacks.
struct TextVisitor<T> {
    what: &'static str,
    example: &'static str,
    of: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = ValueError>> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} such as \"{}\"", self.what, self.example)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_written() {
        for (text, ms) in
            [("250ms", 250), ("30s", 30_000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0s", 0)]
        {
            assert_eq!(text.parse::<Span>().unwrap().get(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "5", "5 s", "s", "-1s", "1e3s", "1x", "200d", "1..2s", "١s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_print_what_reads_back() {
        for text in ["250ms", "30s", "90s", "2h", "1us", "7ns", "0s"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn sizes_know_both_kinds_of_unit() {
        for (text, bytes) in
            [("1KB", 1000), ("1KiB", 1024), ("64GiB", 64 << 30), ("12", 12), ("0.5M", 1 << 19)]
        {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        assert!("5 parsecs".parse::<Size>().is_err());
        assert!("99999999999TiB".parse::<Size>().is_err());
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!("600/m".parse::<Rate>().unwrap().get(), 10.0);
        for text in ["0/s", "20", "20 rps", "-1/s", "1/0", "NaN/s", "inf/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_parts_of_a_whole() {
        for (text, share) in [("3%", 0.03), ("0.5 %", 0.005), ("0.03", 0.03), ("100%", 1.0)] {
            let read: Share = text.parse().unwrap();
            assert!((read.get() - share).abs() < 1e-12, "{text}");
            assert!((read.to_string().parse::<Share>().unwrap().get() - share).abs() < 1e-9);
        }
        assert_eq!("7%".parse::<Share>().unwrap().to_string(), "7%");
        for text in ["0", "0%", "101%", "3 parts", "", "-1%", "%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_labels() {
        assert_eq!("mistral-7b".parse::<Name>().unwrap().env_part(), "MISTRAL_7B");
        for text in ["", "-a", "A", "a_b", "a/b", "..", &"a".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
