//! What an error in an answer says, read in bounded memory: as a tree of values, a list of eight
//! million numbers would take twenty times the bytes that it came in.

use std::{cell::Cell, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::fault::shortened;

/// Values that are kept: an error object has some ten.
const VALUES_MAX: u32 = 64;

/// Bytes of each text that are kept: more than a message of a failure shows.
const TEXT_MAX: usize = 1000;

/// An error object or text, its first [`VALUES_MAX`] values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Said(Value);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let left = Cell::new(VALUES_MAX);
        de::DeserializeSeed::deserialize(Part(&left), from).map(Self)
    }
}

/// A value, as long as there are some left.
#[derive(Clone, Copy)]
struct Part<'a>(&'a Cell<u32>);

impl Part<'_> {
    fn take(self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

impl<'de> de::DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(shortened(text, TEXT_MAX).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while self.take() {
            match list.next_element_seed(self)? {
                Some(value) => kept.push(value),
                None => return Ok(kept.into()),
            }
        }
        while list.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(kept.into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while self.take() {
            match object.next_entry_seed(Key, self)? {
                Some((key, value)) => _ = kept.insert(key, value),
                None => return Ok(kept.into()),
            }
        }
        while object.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
        Ok(kept.into())
    }
}

/// The name of a member, cut when it is long.
struct Key;

impl<'de> de::DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        let mut key = String::deserialize(from)?;
        key.truncate(key.floor_char_boundary(TEXT_MAX));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let said: Option<Said> = serde_json::from_str(text).unwrap();
        said.map(|said| said.to_string())
    }

    #[test]
    fn errors_are_kept_as_they_are() {
        for text in [
            r#""overloaded""#,
            r#"{"code":503,"message":"no \"such\" model","param":null}"#,
            r#"[1,-2,0.5,true,{"a":[]}]"#,
        ] {
            assert_eq!(read(text).as_deref(), Some(text));
        }
        assert_eq!(read("null"), None);
    }

    #[test]
    fn long_ones_are_cut() {
        let list = format!("[{}0]", "0,".repeat(100_000));
        assert!(read(&list).unwrap().len() < 200);
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(read(&deep).is_some());
        let text = format!("\"{}\"", "é".repeat(100_000));
        assert_eq!(read(&text).unwrap().len(), 1000 + '…'.len_utf8() + 2);
        let names = format!("{{\"{}\":1}}", "n".repeat(5000));
        assert!(read(&names).unwrap().len() < 1100);
    }
}
