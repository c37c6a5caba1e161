//! A local `tokenizer.json`: what a text is in tokens.

use std::fs;

use aifb_schema::snapshot::hex;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::words::WORDS;
use crate::error::Fatal;

/// Largest tokenizer file: those of the largest vocabularies have 35 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Longest word that is taken from a vocabulary.
const WORD_BYTES_MAX: usize = 8;

/// What stands for the space before a word in vocabularies.
const MARKS: [char; 2] = ['Ġ', '▁'];

/// A tokenizer.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    path: String,
    /// SHA-256 of its file, hexadecimal.
    pub(super) sha256: String,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is no tokenizer.
    pub(super) fn read(path: &str) -> Result<Self, Fatal> {
        let wrong = |cause: String| {
            Fatal::usage(format!("reading tokenizer '{path}': {cause}")).hint(
                "a tokenizer.json, as published with a model's weights, on the clients' nodes",
            )
        };
        let bytes = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(wrong(format!("{bytes} bytes are more than {FILE_BYTES_MAX}")));
        }
        let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut tokenizer =
            Tokenizer::from_bytes(&text).map_err(|error| wrong(error.to_string()))?;
        // Whole texts are counted, whatever the file says.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        let sha256 = hex(&Sha256::digest(&text));
        Ok(Self { tokenizer, path: path.to_owned(), sha256 })
    }

    fn wrong(&self, cause: String) -> Fatal {
        Fatal::usage(format!("using tokenizer '{}': {cause}", self.path))
            .hint("omit tokenizer: a short word then counts as one token")
    }

    /// Tokens of a text, without those that mark its beginning or end.
    pub(super) fn count(&self, text: &str) -> Result<usize, Fatal> {
        let encoded = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| self.wrong(error.to_string()))?;
        Ok(encoded.len())
    }

    /// Whether a word is one token of the vocabulary, by itself and after another.
    fn knows(&self, word: &str) -> Result<bool, Fatal> {
        let three = format!("{word} {word} {word}");
        let encoded = self
            .tokenizer
            .encode_fast(three, false)
            .map_err(|error| self.wrong(error.to_string()))?;
        let itself = |id: &u32| {
            let token = self.tokenizer.id_to_token(*id);
            token.is_some_and(|token| token.trim_start_matches(MARKS) == word)
        };
        let ids = encoded.get_ids();
        Ok(ids.len() == 3 && ids.iter().all(itself) && self.count(word)? == 1)
    }

    /// As many words as needed that are one token each, by themselves and after another.
    pub(super) fn words(&self, first: &[&str]) -> Result<Vec<String>, Fatal> {
        let mut vocabulary: Vec<(u32, String)> = self
            .tokenizer
            .get_vocab(false)
            .into_iter()
            .map(|(word, id)| (id, word.trim_start_matches(MARKS).to_owned()))
            .filter(|(_, word)| {
                (1..=WORD_BYTES_MAX).contains(&word.len())
                    && word.bytes().all(|byte| byte.is_ascii_lowercase())
            })
            .collect();
        vocabulary.sort();
        let candidates =
            first.iter().map(|word| (*word).to_owned()).chain(vocabulary.into_iter().map(|v| v.1));
        let mut words: Vec<String> = Vec::with_capacity(WORDS);
        for word in candidates {
            if self.knows(&word)? && !words.contains(&word) {
                words.push(word);
            }
            if words.len() == WORDS {
                return Ok(words);
            }
        }
        Err(self.wrong(format!(
            "only {} of its words are single tokens; synthetic prompts need {WORDS}",
            words.len()
        )))
    }

    /// Checks that a text has so many tokens.
    pub(super) fn check(&self, text: &str, expected: usize) -> Result<(), Fatal> {
        match self.count(text)? {
            count if count == expected => Ok(()),
            count => Err(self.wrong(format!("{expected} words together are {count} tokens"))),
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// A tokenizer whose only words are these; all else is unknown.
    pub(in crate::workload) fn of_words(words: &[String]) -> tempfile::NamedTempFile {
        let mut vocabulary = serde_json::Map::new();
        vocabulary.insert("[UNK]".to_owned(), 0.into());
        for (index, word) in words.iter().enumerate() {
            vocabulary.insert(word.clone(), (index + 1).into());
        }
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.to_string().as_bytes()).unwrap();
        file
    }

    /// Byte-level BPE as GPT-2 has it, with merges for some words behind a space and alone.
    fn byte_level(words: &[&str]) -> tempfile::NamedTempFile {
        let mut tokens: Vec<String> = ('a'..='z').map(String::from).collect();
        tokens.push("Ġ".to_owned());
        let mut merges = Vec::new();
        for word in words {
            for start in ["", "Ġ"] {
                let mut built: String = start.to_owned();
                for letter in word.chars() {
                    let longer = format!("{built}{letter}");
                    if !built.is_empty() && !tokens.contains(&longer) {
                        merges.push([built.clone(), letter.to_string()]);
                        tokens.push(longer.clone());
                    }
                    built = longer;
                }
            }
        }
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": vocabulary,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "merges": merges},
        });
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(json.to_string().as_bytes()).unwrap();
        file
    }

    fn path(file: &tempfile::NamedTempFile) -> &str {
        file.path().to_str().unwrap()
    }

    #[test]
    fn words_are_single_tokens() {
        let own: Vec<String> = (b'a'..=b'z')
            .flat_map(|a| (b'a'..=b'd').map(move |b| String::from_utf8(vec![a, b]).unwrap()))
            .collect();
        let file = of_words(&own);
        let tokens = Tokens::read(path(&file)).unwrap();
        let words = tokens.words(&["an", "the"]).unwrap();
        assert_eq!((words.len(), words[0].as_str()), (64, "aa"), "'an' and 'the' are unknown");
        assert!(tokens.count("aa bb nonsense").unwrap() == 3);
    }

    #[test]
    fn byte_pairs_are_understood() {
        let list: Vec<&str> = super::super::words::tests_words();
        let file = byte_level(&list);
        let tokens = Tokens::read(path(&file)).unwrap();
        assert_eq!(tokens.count("xyz").unwrap(), 3, "not merged");
        let words = super::super::words::Words::new(1, Some(&tokens)).unwrap();
        let mut random = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
        for count in [1, 8, 9, 500, 40_000] {
            let mut text = String::new();
            words.append(&mut text, count, &mut random);
            assert_eq!(tokens.count(&text).unwrap(), count);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let error = Tokens::read("/no/such/tokenizer.json").unwrap_err().to_string();
        assert!(error.contains("No such file") && error.contains("hint: "), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{}").unwrap();
        assert!(Tokens::read(path(&file)).is_err());
        let few = of_words(&["aa".to_owned()]);
        let error = Tokens::read(path(&few)).unwrap().words(&[]).unwrap_err().to_string();
        assert!(error.contains("only 1 of its words"), "{error}");
    }
}
