//! The time of a log line, where it shows one.
//!
//! Known forms, near the start of a line: RFC 3339 and its relatives (`2026-11-27 12:00:00,123`,
//! `2026/11/27 12:00:00`, with `Z`, an offset, ` UTC` or nothing behind), `11-27 12:00:00` (vLLM:
//! no year), `I1127 12:00:00.123456` (klog: no year), `"ts":1795780800.5` (zap). A time without a
//! zone is the node's own: containers have its `/etc/localtime`.

use aifb_schema::time::{self, Civil};
use memchr::{memchr, memmem};

use crate::sys;

/// Bytes from the start in which the time may stand.
const LOOKED_AT: usize = 80;

/// Bytes of a JSON line in which its `ts` may stand.
const LOOKED_AT_JSON: usize = 256;

/// Colons that are looked at: others may stand before the time.
const PLACES: usize = 4;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Parses times; caches the zone, which comes from the C library.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// Quarter of an hour since 1970, local, and the seconds east of Greenwich in it.
    zone: Option<(i64, i64)>,
}

/// A time without its zone.
struct Read<'a> {
    civil: Civil,
    fraction_ns: u64,
    rest: &'a [u8],
}

impl Stamps {
    /// The time of a line in ns since 1970. `near_ns` gives the year where the line has none.
    pub(super) fn time_ns(&mut self, line: &[u8], near_ns: u64) -> Option<u64> {
        match written(line.get(..LOOKED_AT).unwrap_or(line), near_ns) {
            Some(read) => self.with_zone(&read),
            None if line.first() == Some(&b'{') => {
                epoch(line.get(..LOOKED_AT_JSON).unwrap_or(line))
            }
            None => None,
        }
    }

    fn with_zone(&mut self, read: &Read<'_>) -> Option<u64> {
        let local_s = read.civil.epoch_s()?;
        let offset_s = match zone(read.rest) {
            Some(offset_s) => offset_s,
            None => self.local(local_s),
        };
        let whole = u64::try_from(local_s - offset_s).ok()?;
        whole.checked_mul(SECOND)?.checked_add(read.fraction_ns)
    }

    fn local(&mut self, local_s: i64) -> i64 {
        let quarter = local_s / 900;
        match self.zone {
            Some((known, offset_s)) if known == quarter => offset_s,
            _ => {
                let offset_s = sys::zone_offset_s(local_s - sys::zone_offset_s(local_s));
                self.zone = Some((quarter, offset_s));
                offset_s
            }
        }
    }
}

/// The first date with a time of day in `head`: looked for by its colons, which are rarer than
/// digits.
fn written(head: &[u8], near_ns: u64) -> Option<Read<'_>> {
    let mut from = 0;
    for _ in 0..PLACES {
        let colon = from + memchr(b':', head.get(from..)?)?;
        if let Some(read) = around(head, colon, near_ns) {
            return Some(read);
        }
        from = colon + 1;
    }
    None
}

/// The date and time whose first colon this is.
fn around(head: &[u8], colon: usize, near_ns: u64) -> Option<Read<'_>> {
    if head.get(colon + 3) != Some(&b':') {
        return None;
    }
    let clock_at = colon.checked_sub(2)?;
    let date_end = clock_at.checked_sub(1)?;
    if !matches!(head.get(date_end)?, b'T' | b't' | b' ') {
        return None;
    }
    clock(head, clock_at, date(head.get(..date_end)?, near_ns)?)
}

/// Year, month and day at the end of `text`: `2026-11-27`, `2026/11/27`, `11-27` (vLLM), or
/// `I1127` as a whole (klog).
fn date(text: &[u8], near_ns: u64) -> Option<(i64, u32, u32)> {
    let day_at = text.len().checked_sub(2)?;
    if text.len() == 5 && text.first().is_some_and(u8::is_ascii_alphabetic) {
        return Some((year_of(near_ns), digits(text, 1, 2)?, digits(text, 3, 2)?));
    }
    let month_at = day_at.checked_sub(3)?;
    let mark = text.get(day_at - 1).filter(|mark| matches!(mark, b'-' | b'/'))?;
    let year = match month_at.checked_sub(1).and_then(|at| text.get(at)) {
        Some(before) if before == mark => digits(text, month_at.checked_sub(5)?, 4)?.into(),
        Some(b'0'..=b'9') => return None,
        _ => year_of(near_ns),
    };
    Some((year, digits(text, month_at, 2)?, digits(text, day_at, 2)?))
}

fn digits(bytes: &[u8], from: usize, count: usize) -> Option<u32> {
    let bytes = bytes.get(from..from + count)?;
    bytes
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

/// `12:00:00`, with a fraction or not.
fn clock(text: &[u8], at: usize, (year, month, day): (i64, u32, u32)) -> Option<Read<'_>> {
    let civil = Civil {
        year,
        month,
        day,
        hour: digits(text, at, 2)?,
        minute: digits(text, at + 3, 2)?,
        second: digits(text, at + 6, 2)?,
    };
    let rest = text.get(at + 8..)?;
    let (fraction_ns, rest) = match rest {
        [b'.' | b',', tail @ ..] => fraction(tail),
        _ => (0, rest),
    };
    Some(Read { civil, fraction_ns, rest })
}

/// Digits behind the point as nanoseconds, and what follows them.
fn fraction(text: &[u8]) -> (u64, &[u8]) {
    let length = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    let mut sum = 0;
    for place in 0..9 {
        sum = sum * 10 + digits.get(place).map_or(0, |byte| u64::from(byte - b'0'));
    }
    (sum, rest)
}

/// Seconds east of Greenwich of what stands behind a time; absent where nothing of that kind does.
fn zone(rest: &[u8]) -> Option<i64> {
    match rest {
        [b'Z' | b'z', ..] | [b' ', b'U', b'T', b'C', ..] | [b' ', b'G', b'M', b'T', ..] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let minutes_at = if rest.get(2) == Some(&b':') { 3 } else { 2 };
            let seconds = digits(rest, 0, 2)? * 3600 + digits(rest, minutes_at, 2)? * 60;
            Some(if *sign == b'-' { -i64::from(seconds) } else { i64::from(seconds) })
        }
        _ => None,
    }
}

fn year_of(near_ns: u64) -> i64 {
    time::year_of(i64::try_from(near_ns / SECOND).unwrap_or(0))
}

/// Seconds since 1970 under the key `ts` of a JSON line.
fn epoch(head: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"ts\":";
    let text = head.get(memmem::find(head, KEY)? + KEY.len()..)?;
    let whole = u64::from(digits(text, 0, 5)?) * 100_000 + u64::from(digits(text, 5, 5)?);
    let (fraction_ns, _) = match text.get(10..)? {
        [b'.', tail @ ..] => fraction(tail),
        rest => (0, rest),
    };
    Some(whole * SECOND + fraction_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-27 12:00:00 UTC.
    const NOON: u64 = 1_795_780_800 * SECOND;

    #[test]
    fn times_with_a_zone_are_exact() {
        for (line, expected) in [
            ("2026-11-27T12:00:00Z x", Some(NOON)),
            ("[2026-11-27T12:00:00.250Z INFO x] y", Some(NOON + SECOND / 4)),
            ("2026-11-27 12:00:00.123 UTC [42] LOG:  x", Some(NOON + 123_000_000)),
            ("time=\"2026-11-27T13:00:00+01:00\" level=info", Some(NOON)),
            ("2026-11-27T13:00:00.000001+0100 x", Some(NOON + 1000)),
            (r#"{"level":"info","ts":1795780800.5,"m":"x"}"#, Some(NOON + SECOND / 2)),
            (r#"{"timestamp":"2026-11-27T12:00:00.5Z"}"#, Some(NOON + SECOND / 2)),
            ("no time 12:30 at all", None),
            ("2026-13-27T12:00:00Z", None),
            ("10.0.0.1 - - x", None),
            ("9999-12-31T23:59:59Z", None),
            ("", None),
        ] {
            assert_eq!(Stamps::default().time_ns(line.as_bytes(), NOON), expected, "{line}");
        }
    }

    #[test]
    fn times_without_a_zone_are_the_nodes() {
        let offset_s = sys::zone_offset_s(i64::try_from(NOON / SECOND).unwrap());
        let expected = NOON.wrapping_add_signed(-offset_s * 1_000_000_000);
        for line in [
            "2026-11-27 12:00:00,000 - x",
            "INFO 11-27 12:00:00 [x.py:1] y",
            "(EngineCore_0 pid=77) INFO 11-27 12:00:00.000 [x.py:1] y",
            "I1127 12:00:00.000000 1 server.cc:7] x",
            "[I 2026-11-27 12:00:00.000 ServerApp] x",
            "2026/11/27 12:00:00 [error] 1#1: x",
        ] {
            assert_eq!(Stamps::default().time_ns(line.as_bytes(), NOON), Some(expected), "{line}");
        }
    }
}
