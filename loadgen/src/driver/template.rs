//! Texts with placeholders for what differs between requests.
//!
//! `{id}` is the number of the request, `{seed}` the load's seed, `{random}` a number that follows
//! from both, `{random:N}` one below N. Anything else in braces stays as it is (bodies are JSON
//! more often than not); `{{id}}` stands for `{id}`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::plan::{Ask, Phase};

/// Most placeholders in one text: each makes it at most 20 bytes longer.
pub(crate) const PLACES_MAX: usize = 256;

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    seed: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Id,
    Seed,
    /// A number below this, or any.
    Random(Option<u64>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If it has too many placeholders, or a random number below 0.
    pub(crate) fn new(text: &str, seed: u64) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('{') {
            let (before, tail) = rest.split_at(at);
            plain.push_str(before);
            if let Some(inner) = escaped(tail) {
                plain.push_str(inner);
                rest = tail.get(inner.len() + 2..).unwrap_or_default();
            } else if let Some((part, length)) = placeholder(tail)? {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(part);
                rest = tail.get(length..).unwrap_or_default();
            } else {
                plain.push('{');
                rest = tail.get(1..).unwrap_or_default();
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        if parts.iter().filter(|part| !matches!(part, Part::Text(_))).count() > PLACES_MAX {
            return Err(format!("it has more than {PLACES_MAX} placeholders"));
        }
        Ok(Self { seed, parts })
    }

    /// The text, where it is the same for all requests.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text of one request.
    pub(crate) fn fill(&self, ask: Ask) -> String {
        let mut random = None;
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Id => text.push_str(&ask.id.to_string()),
                Part::Seed => text.push_str(&self.seed.to_string()),
                Part::Random(below) => {
                    let number: u64 =
                        random.get_or_insert_with(|| self.random(ask)).random::<u64>();
                    // N is far below 2^64, so that the remainder favours nothing noticeably.
                    let number = below.map_or(number, |below| number % below.max(1));
                    text.push_str(&number.to_string());
                }
            }
        }
        text
    }

    /// Numbers of one request: the same in each run with this seed, others in each request.
    fn random(&self, ask: Ask) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(match ask.phase {
            Phase::Warmup => STREAM | 1,
            Phase::Measure => STREAM,
        });
        // 2 words of the generator for each number: none overlap.
        let words = u128::try_from(2 * PLACES_MAX).unwrap_or(u128::MAX);
        random.set_word_pos(u128::from(ask.id) * words);
        random
    }
}

/// Stream of the random numbers of templates; other purposes have lower ones.
const STREAM: u64 = 1 << 32;

/// What stands for itself in doubled braces at the start of `text`, with one pair of them.
fn escaped(text: &str) -> Option<&str> {
    let inner = text.get(1..)?;
    let (_, length) = placeholder(inner).ok()??;
    inner.get(length..)?.starts_with('}').then(|| inner.get(..length))?
}

/// The placeholder at the start of `text`, and its length.
fn placeholder(text: &str) -> Result<Option<(Part, usize)>, String> {
    for (word, part) in
        [("{id}", Part::Id), ("{seed}", Part::Seed), ("{random}", Part::Random(None))]
    {
        if text.starts_with(word) {
            return Ok(Some((part, word.len())));
        }
    }
    let Some(tail) = text.strip_prefix("{random:") else { return Ok(None) };
    let Some((number, _)) = tail.split_once('}') else { return Ok(None) };
    match number.parse::<u64>() {
        Ok(below @ 1..=RANDOM_MAX) => {
            Ok(Some((Part::Random(Some(below)), "{random:}".len() + number.len())))
        }
        _ => Err(format!("'{{random:{number}}}': expected a number from 1 to {RANDOM_MAX}")),
    }
}

/// Largest N of `{random:N}`.
const RANDOM_MAX: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, id: u64) -> String {
        Template::new(text, 42).unwrap().fill(Ask { phase: Phase::Measure, id, item: 0, turn: 0 })
    }

    #[test]
    fn places_are_filled() {
        assert_eq!(fill("/items/{id}?s={seed}", 7), "/items/7?s=42");
        assert_eq!(fill(r#"{"a":{"b":{id}},"c":"{x}"}"#, 3), r#"{"a":{"b":3},"c":"{x}"}"#);
        assert_eq!(fill("{{id}} {{x}} { } {", 3), "{id} {{x}} { } {");
        assert_eq!(fill("", 3), "");
        let number: u64 = fill("{random:10}", 3).parse().unwrap();
        assert!(number < 10);
        assert!(fill("{random}", 3).parse::<u64>().is_ok());
    }

    #[test]
    fn random_numbers_repeat_with_the_seed_and_differ_between_requests() {
        let all: std::collections::BTreeSet<String> =
            (0..1_000).map(|id| fill("{random} {random}", id)).collect();
        assert_eq!(all.len(), 1_000);
        assert_eq!(fill("{random}", 5), fill("{random}", 5));
        let (a, b) = (fill("{random} {random}", 5), fill("{random}", 5));
        assert!(a.starts_with(&b) && a.split(' ').collect::<Vec<_>>().len() == 2);
        assert_ne!(a.split(' ').next(), a.split(' ').nth(1));
        let other = Template::new("{random}", 43).unwrap();
        assert_ne!(other.fill(Ask { phase: Phase::Measure, id: 5, item: 0, turn: 0 }), b);
        let same = Template::new("{random}", 42).unwrap();
        assert_ne!(same.fill(Ask { phase: Phase::Warmup, id: 5, item: 0, turn: 0 }), b);
    }

    #[test]
    fn what_is_fixed_is_known() {
        assert_eq!(Template::new("a {{id}}", 1).unwrap().fixed(), Some("a {id}"));
        assert_eq!(Template::new("", 1).unwrap().fixed(), Some(""));
        assert_eq!(Template::new("{id}", 1).unwrap().fixed(), None);
    }

    #[test]
    fn it_is_bounded() {
        assert!(Template::new(&"{id}".repeat(PLACES_MAX), 1).is_ok());
        assert!(Template::new(&"{id}".repeat(PLACES_MAX + 1), 1).is_err());
        for text in ["{random:0}", "{random:x}", "{random:}", "{random:-1}"] {
            assert!(Template::new(text, 1).unwrap_err().contains("expected a number"), "{text}");
        }
    }
}
