//! Text made of words that are one token each.
//!
//! Words of at most three letters are single tokens in the usual vocabularies, so N words are
//! about N tokens; with a tokenizer only words are taken for which that is so, and N words are
//! exactly N tokens. No word has anything that JSON would have to escape.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tokens::Tokens;
use crate::error::Fatal;

/// Words to choose from: a power of two, so that six random bits are one.
pub(super) const WORDS: usize = 64;

const USUAL: [&str; WORDS] = [
    "a", "air", "all", "an", "and", "any", "are", "art", "as", "at", "bad", "bag", "be", "bed",
    "big", "box", "boy", "but", "by", "can", "car", "cat", "cup", "cut", "day", "dog", "dry",
    "end", "eye", "far", "few", "for", "fun", "get", "go", "had", "hat", "her", "him", "his",
    "hot", "if", "in", "is", "it", "key", "law", "led", "lot", "man", "map", "new", "no", "not",
    "of", "off", "old", "on", "one", "or", "out", "own", "red", "the",
];

/// Words at the beginning of each text that are its own: 64^8 beginnings, so that no two texts
/// share a prefix that a server could reuse.
const OWN_WORDS: usize = 8;

/// Words of the text that all others take their rest from, around its end to its start again.
const POOL_WORDS: usize = 32_768;

/// Makes text.
#[derive(Debug)]
pub(super) struct Words {
    list: Vec<String>,
    /// Each word of it is followed by a space.
    pool: String,
    /// Where each word of the pool begins.
    starts: Vec<usize>,
}

impl Words {
    /// Text from this seed; counted by a tokenizer where there is one.
    ///
    /// # Errors
    /// If the tokenizer does not count words as single tokens.
    pub(super) fn new(seed: u64, tokens: Option<&Tokens>) -> Result<Self, Fatal> {
        let list = match tokens {
            None => USUAL.iter().map(|word| (*word).to_owned()).collect(),
            Some(tokens) => tokens.words(&USUAL)?,
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(3);
        let mut words = Self { list, pool: String::new(), starts: Vec::with_capacity(POOL_WORDS) };
        let mut pool = String::new();
        for _ in 0..POOL_WORDS {
            words.starts.push(pool.len());
            words.push(&mut pool, random.random::<u64>());
        }
        if let Some(tokens) = tokens {
            tokens.check(pool.trim_end(), POOL_WORDS)?;
        }
        words.pool = pool;
        Ok(words)
    }

    fn push(&self, text: &mut String, random: u64) {
        let word = usize::try_from(random % 64).ok().and_then(|index| self.list.get(index));
        text.push_str(word.map_or("a", String::as_str));
        text.push(' ');
    }

    /// Appends `count` words, after a space where there is text before.
    pub(super) fn append(&self, text: &mut String, count: usize, random: &mut ChaCha8Rng) {
        if !text.is_empty() {
            text.push(' ');
        }
        let mut own = random.random::<u64>();
        for _ in 0..count.min(OWN_WORDS) {
            self.push(text, own);
            own >>= 6;
        }
        let mut rest = count.saturating_sub(OWN_WORDS);
        let mut from = usize::try_from(random.random::<u32>()).unwrap_or(0) % POOL_WORDS;
        while rest > 0 {
            let taken = rest.min(POOL_WORDS - from);
            let start = self.starts.get(from).copied().unwrap_or(0);
            let end = self.starts.get(from + taken).copied().unwrap_or(self.pool.len());
            text.push_str(self.pool.get(start..end).unwrap_or_default());
            rest -= taken;
            from = 0;
        }
        text.truncate(text.trim_end().len());
    }
}

#[cfg(test)]
pub(super) fn tests_words() -> Vec<&'static str> {
    USUAL.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_as_many_words_as_asked_for() {
        let words = Words::new(42, None).unwrap();
        for count in [1, 2, 8, 9, 128, 50_000, 100_000] {
            for seed in 0..5 {
                let mut text = String::new();
                words.append(&mut text, count, &mut ChaCha8Rng::seed_from_u64(seed));
                assert_eq!(text.split(' ').count(), count);
                words.append(&mut text, count, &mut ChaCha8Rng::seed_from_u64(seed));
                assert_eq!(text.split(' ').count(), 2 * count);
                assert!(text.bytes().all(|b| b == b' ' || b.is_ascii_lowercase()));
            }
        }
    }
}
