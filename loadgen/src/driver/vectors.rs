//! Vectors of embeddings, counted and checked without being kept.

use crate::fault::{Class, Fault};
use std::fmt;

use base64::Engine as _;
use serde::{Deserialize, Deserializer, de};

/// How many numbers a vector has. A vector is a list of numbers, or their bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(pub(super) usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> de::Visitor<'de> for Count {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or base64")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Length, A::Error> {
                let mut count = 0;
                while list.next_element::<f64>()?.is_some() {
                    count += 1;
                }
                Ok(Length(count))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                match bytes {
                    Ok(bytes) if bytes.len() % size_of::<f32>() == 0 => {
                        Ok(Length(bytes.len() / size_of::<f32>()))
                    }
                    _ => Err(E::custom("the text is not numbers in base64")),
                }
            }
        }
        from.deserialize_any(Count)
    }
}

/// Refuses what is not `count` vectors of `dimensions` numbers each (of equal length, where
/// no length was requested).
pub(super) fn check(
    vectors: &[Length],
    count: usize,
    dimensions: Option<usize>,
) -> Result<(), Fault> {
    if vectors.is_empty() {
        return Err(Fault::new(Class::EmptyResponse, "the response has no vectors"));
    }
    let wrong = |text: String| Err(Fault::new(Class::VerifyMismatch, text));
    if vectors.len() != count {
        return wrong(format!("{} vectors for {count} inputs", vectors.len()));
    }
    let expected = dimensions.or_else(|| vectors.first().map(|first| first.0)).unwrap_or(0);
    match vectors.iter().position(|vector| vector.0 != expected || vector.0 == 0) {
        None => Ok(()),
        Some(index) => {
            let found = vectors.get(index).map_or(0, |vector| vector.0);
            wrong(format!("vector {index} has {found} numbers, expected {expected}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_counted_in_both_forms() {
        let length = |text: &str| serde_json::from_str::<Length>(text).map(|length| length.0);
        assert_eq!(length("[0.5, -1, 2e-3]").unwrap(), 3);
        assert_eq!(length("[]").unwrap(), 0);
        assert_eq!(length(r#""AACAPwAAAEA=""#).unwrap(), 2, "1.0 and 2.0");
        for wrong in ["[null]", r#"["a"]"#, "3", r#""AAA=""#, r#""?""#, "null"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn count_and_length_are_checked() {
        let lengths = |all: &[usize]| all.iter().map(|n| Length(*n)).collect::<Vec<_>>();
        let class = |all: &[usize], count, dimensions| {
            check(&lengths(all), count, dimensions).map_err(|fault| fault.class)
        };
        assert_eq!(class(&[3, 3], 2, None), Ok(()));
        assert_eq!(class(&[3, 3], 2, Some(3)), Ok(()));
        assert_eq!(class(&[], 2, None), Err(Class::EmptyResponse));
        for (all, count, dimensions) in
            [(&[3][..], 2, None), (&[3, 2], 2, None), (&[3, 3], 2, Some(4)), (&[0, 0], 2, None)]
        {
            assert_eq!(class(all, count, dimensions), Err(Class::VerifyMismatch), "{all:?}");
        }
    }
}
