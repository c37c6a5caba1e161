//! Numbers for people: three or four significant digits and a unit that suits the size.

use super::model::Cell;

/// A cell as a person reads it; what is absent is a dash, never 0.
pub(super) fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Seconds(value) => seconds(*value),
        Cell::Bytes(value) => bytes(*value),
        Cell::Count(value) => value.to_string(),
        Cell::Rate(value) => digits(*value),
        Cell::Share(value) => format!("{} %", digits(value * 100.0)),
        Cell::Text(words) => words.clone(),
        Cell::Absent => "-".to_owned(),
    }
}

/// Seconds as `12.3 µs`, `4.56 ms`, `78.9 s`.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds.abs() {
        0.0 => "0 s".into(),
        size if size < 999.5e-9 => format!("{} ns", digits(seconds * 1e9)),
        size if size < 999.5e-6 => format!("{} µs", digits(seconds * 1e6)),
        size if size < 0.9995 => format!("{} ms", digits(seconds * 1e3)),
        _ => format!("{} s", digits(seconds)),
    }
}

/// Bytes as `512 B`, `1.50 KiB`, `3.20 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(size), UNITS.get(unit).unwrap_or(&"PiB"))
}

/// A plain number with three significant digits, and all digits before the point.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 99.95 || size == 0.0 {
        0
    } else if size >= 9.995 {
        1
    } else if size >= 0.9995 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        for (value, text) in [
            (0.0, "0 s"),
            (12.34e-9, "12.3 ns"),
            (999.6e-9, "1.00 µs"),
            (123.4e-6, "123 µs"),
            (0.000_999_9, "1.00 ms"),
            (0.012_345, "12.3 ms"),
            (0.9999, "1.00 s"),
            (1.0, "1.00 s"),
            (99.96, "100 s"),
            (3600.0, "3600 s"),
            (-0.0015, "-1.50 ms"),
        ] {
            assert_eq!(seconds(value), text);
        }
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            (1 << 20, "1.00 MiB"),
            (1_072_693_248, "0.999 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
        assert_eq!(
            (digits(0.0), digits(0.1234), digits(12345.6)),
            ("0".into(), "0.123".into(), "12346".into())
        );
    }
}
