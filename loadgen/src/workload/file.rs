//! Prompts and conversations from a file.
//!
//! | kind | form |
//! |---|---|
//! | sharegpt | JSON: `[{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}]` |
//! | jsonl | one object a line: `{"prompt" or "text": "…"}` or `{"messages": [{"role", "content"}]}`, and `"output_tokens": 100` if known |
//!
//! An entry that cannot be used (no request in it) or whose prompt has not the length that is
//! wanted is left out and counted.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
};

use aifb_schema::{
    recipe::{Dataset, DatasetKind, LENGTH_MAX},
    snapshot::hex,
};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

use super::{Role, tokens::Tokens};
use crate::error::Fatal;

/// Largest file: ShareGPT has 700 MB.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Most text that is kept: what a node has for each of its clients.
const TEXT_BYTES_MAX: usize = 2 << 30;

/// Longest line of a JSON lines file.
const LINE_MAX: u64 = 64 << 20;

/// Bytes of text that count as a token where there is no tokenizer: about right for English.
const BYTES_PER_TOKEN: usize = 4;

/// A message, ready to be put between quotes in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) role: Role,
    pub(super) text: Box<str>,
    pub(super) tokens: u32,
}

/// A conversation; the prompt of a request is all up to one of its user's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) messages: Vec<Said>,
    /// How many messages request so and so carries.
    pub(super) turns: Vec<usize>,
    /// Tokens to generate, where the entry itself says so.
    pub(super) output_tokens: Option<u32>,
}

impl Entry {
    /// Messages of request `turn`.
    pub(super) fn prompt(&self, turn: u32) -> &[Said] {
        let count = usize::try_from(turn).ok().and_then(|turn| self.turns.get(turn));
        count.and_then(|count| self.messages.get(..*count)).unwrap_or(&self.messages)
    }

    /// Tokens of the recorded answer to request `turn`.
    pub(super) fn answer_tokens(&self, turn: u32) -> Option<u32> {
        let answer = self.messages.get(self.prompt(turn).len())?;
        (answer.role == Role::Assistant).then_some(answer.tokens)
    }
}

/// All that a file has.
#[derive(Debug)]
pub(super) struct Entries {
    /// In the order in which they are taken.
    pub(super) list: Vec<Entry>,
    pub(super) left_out: u64,
    /// SHA-256 of the file, hexadecimal.
    pub(super) sha256: String,
}

/// Takes the entries that are wanted.
struct Collector<'a> {
    dataset: &'a Dataset,
    tokens: Option<&'a Tokens>,
    list: Vec<Entry>,
    left_out: u64,
    bytes: usize,
    /// A tokenizer that failed.
    fatal: Option<Fatal>,
}

impl Entries {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not of the kind, or nothing in it is wanted.
    pub(super) fn read(
        path: &str,
        dataset: &Dataset,
        seed: u64,
        tokens: Option<&Tokens>,
    ) -> Result<Self, Fatal> {
        let kind = if dataset.kind == DatasetKind::Sharegpt { "sharegpt" } else { "jsonl" };
        let wrong = |cause: String| {
            Fatal::usage(format!("reading dataset '{path}' as {kind}: {cause}"))
                .hint("docs/reference/workloads.md shows the forms; the file has to be on the clients' nodes")
        };
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let bytes = file.metadata().map_err(|error| wrong(error.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(wrong(format!("{bytes} bytes are more than {FILE_BYTES_MAX}")));
        }
        let mut hashed = Hashed(file, Sha256::new());
        let mut into =
            Collector { dataset, tokens, list: Vec::new(), left_out: 0, bytes: 0, fatal: None };
        let read = if dataset.kind == DatasetKind::Sharegpt {
            sharegpt(&mut hashed, &mut into)
        } else {
            lines(&mut hashed, &mut into)
        };
        if let Some(fatal) = into.fatal {
            return Err(fatal);
        }
        read.map_err(wrong)?;
        // What a parser leaves behind the last bracket belongs to the hash too.
        std::io::copy(&mut hashed, &mut std::io::sink())
            .map_err(|error| wrong(error.to_string()))?;
        let (mut list, left_out) = (into.list, into.left_out);
        if list.is_empty() {
            return Err(wrong(format!("none of its {left_out} entries can be used")));
        }
        if dataset.shuffle {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(10);
            list.shuffle(&mut random);
        }
        Ok(Self { list, left_out, sha256: hex(&hashed.1.finalize()) })
    }
}

/// Hashes what passes through.
struct Hashed<R>(R, Sha256);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(into)?;
        self.1.update(into.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// A conversation as a file has it.
#[derive(Default)]
struct Raw {
    messages: Vec<(Role, String)>,
    output_tokens: Option<u64>,
}

impl Collector<'_> {
    /// Takes a conversation, or leaves it out; an error is a cause to stop.
    fn take(&mut self, raw: Raw) -> Result<(), String> {
        match self.entry(raw) {
            Ok(Some(entry)) => {
                self.bytes += entry.messages.iter().map(|said| said.text.len()).sum::<usize>();
                if self.bytes > TEXT_BYTES_MAX {
                    return Err(format!("it has more than {TEXT_BYTES_MAX} bytes of text"));
                }
                self.list.push(entry);
                Ok(())
            }
            Ok(None) => {
                self.left_out += 1;
                Ok(())
            }
            Err(fatal) => {
                self.fatal = Some(fatal);
                Err("the tokenizer failed".to_owned())
            }
        }
    }

    fn entry(&self, raw: Raw) -> Result<Option<Entry>, Fatal> {
        let mut messages = Vec::with_capacity(raw.messages.len());
        let mut asked = Vec::new();
        for (role, text) in raw.messages {
            let tokens = match self.tokens {
                Some(tokens) => tokens.count(&text)?,
                None => text.len().div_ceil(BYTES_PER_TOKEN),
            };
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            if role == Role::User && !text.trim().is_empty() {
                asked.push(messages.len() + 1);
            }
            messages.push(Said { role, text: super::escaped(&text).into(), tokens });
        }
        let turns = match (&self.dataset.turns, self.dataset.kind) {
            (Some(turns), _) => {
                asked.into_iter().take(turns.count.most() as usize).collect::<Vec<_>>()
            }
            // The first question of a recorded chat; the last one of a list of messages, whose
            // others are its history.
            (None, DatasetKind::Sharegpt) => asked.into_iter().take(1).collect(),
            (None, _) => asked.pop().into_iter().collect(),
        };
        let Some(first) = turns.first() else { return Ok(None) };
        let prompt: u64 =
            messages.iter().take(*first).map(|said: &Said| u64::from(said.tokens)).sum();
        let [min, max] = self.dataset.keep_tokens.unwrap_or([0, LENGTH_MAX]);
        if !(u64::from(min)..=u64::from(max)).contains(&prompt) {
            return Ok(None);
        }
        // What follows the answer to the last request is never sent.
        let last = turns.last().copied().unwrap_or(0);
        messages.truncate(last + 1);
        let output_tokens = raw
            .output_tokens
            .map(|count| u32::try_from(count).unwrap_or(LENGTH_MAX).clamp(1, LENGTH_MAX));
        Ok(Some(Entry { messages, turns, output_tokens }))
    }
}

#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    conversations: Vec<ChatLine>,
}

#[derive(Deserialize)]
struct ChatLine {
    from: String,
    value: String,
}

/// A list of conversations, one held at a time.
fn sharegpt(file: &mut impl Read, into: &mut Collector<'_>) -> Result<(), String> {
    struct List<'a, 'b>(&'a mut Collector<'b>);
    impl<'de> Visitor<'de> for List<'_, '_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of conversations")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while let Some(chat) = list.next_element::<Chat>()? {
                let messages = chat
                    .conversations
                    .into_iter()
                    .filter_map(|line| Some((role(&line.from)?, line.value)))
                    .collect();
                self.0.take(Raw { messages, output_tokens: None }).map_err(de::Error::custom)?;
            }
            Ok(())
        }
    }
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, file));
    json.deserialize_seq(List(into)).map_err(|error| error.to_string())
}

/// Who speaks, in the words of ShareGPT and of OpenAI; nothing for anybody else.
fn role(word: &str) -> Option<Role> {
    match word {
        "human" | "user" => Some(Role::User),
        "gpt" | "chatgpt" | "assistant" | "bing" | "bard" => Some(Role::Assistant),
        "system" => Some(Role::System),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(alias = "text")]
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    output_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

fn lines(file: &mut impl Read, into: &mut Collector<'_>) -> Result<(), String> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line);
        match read.map_err(|error| error.to_string())? {
            0 => return Ok(()),
            count if u64::try_from(count).unwrap_or(LINE_MAX) == LINE_MAX => {
                return Err(format!("line {number} is longer than {LINE_MAX} bytes"));
            }
            _ if line.trim_ascii().is_empty() => continue,
            _ => {}
        }
        let raw = one_line(&line).map_err(|cause| format!("line {number}: {cause}"))?;
        into.take(raw)?;
    }
    Ok(())
}

fn one_line(line: &[u8]) -> Result<Raw, String> {
    let Line { prompt, messages, output_tokens } =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let messages = match (prompt, messages) {
        (Some(prompt), None) => vec![(Role::User, prompt)],
        (None, Some(messages)) => messages
            .into_iter()
            .map(|Message { role: word, content }| match role(&word) {
                Some(role) => Ok((role, content)),
                None => Err(format!("unknown role '{word}': expected user, assistant or system")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err("expected either prompt (or text) or messages".to_owned()),
    };
    Ok(Raw { messages, output_tokens })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(kind: DatasetKind, text: &str, more: &str) -> Result<Entries, Fatal> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut dataset: Dataset =
            serde_json::from_str(&format!(r#"{{"kind": "jsonl"{more}}}"#)).unwrap();
        dataset.kind = kind;
        Entries::read(file.path().to_str().unwrap(), &dataset, 42, None)
    }

    const CHATS: &str = r#"[
        {"id": "a", "conversations": [
            {"from": "human", "value": "What is \"it\"?\n"}, {"from": "gpt", "value": "This and that."},
            {"from": "human", "value": "And more?"}, {"from": "gpt", "value": "No."},
            {"from": "human", "value": "Why?"}]},
        {"id": "b", "conversations": [{"from": "gpt", "value": "Nobody asked"}]},
        {"id": "c", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    ]"#;

    #[test]
    fn the_first_question_of_a_chat_is_asked() {
        let entries = read(DatasetKind::Sharegpt, CHATS, r#", "shuffle": false"#).unwrap();
        assert_eq!((entries.list.len(), entries.left_out), (2, 1));
        let first = &entries.list[0];
        assert_eq!(first.turns, [1]);
        assert_eq!(&*first.prompt(0)[0].text, r#"What is \"it\"?\n"#);
        // "This and that." are 14 bytes.
        assert_eq!((first.prompt(0)[0].tokens, first.answer_tokens(0)), (4, Some(4)));
        assert_eq!(entries.sha256, hex(&Sha256::digest(CHATS)));
        let kept = read(DatasetKind::Sharegpt, CHATS, r#", "keep_tokens": [2, 100]"#).unwrap();
        assert_eq!((kept.list.len(), kept.left_out), (1, 2), "'Hi' is too short");
    }

    #[test]
    fn turns_carry_what_was_said_before() {
        let more = r#", "shuffle": false, "turns": {"count": 2}"#;
        let entries = read(DatasetKind::Sharegpt, CHATS, more).unwrap();
        let first = &entries.list[0];
        assert_eq!((first.turns.as_slice(), first.messages.len()), (&[1, 3][..], 4));
        assert_eq!(first.prompt(1).len(), 3);
        assert_eq!(first.answer_tokens(1), Some(1));
        assert_eq!(entries.list[1].turns, [1]);
    }

    #[test]
    fn lines_have_prompts_or_messages() {
        let text = concat!(
            "{\"prompt\": \"one\", \"output_tokens\": 7}\n\n{\"text\": \"two\", \"other\": 1}\n",
            "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, ",
            "{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, ",
            "{\"role\": \"user\", \"content\": \"c\"}]}"
        );
        let entries = read(DatasetKind::Jsonl, text, r#", "shuffle": false"#).unwrap();
        let list = &entries.list;
        assert_eq!((list.len(), list[0].output_tokens, list[1].output_tokens), (3, Some(7), None));
        assert_eq!((list[2].turns.as_slice(), list[2].prompt(0).len()), (&[4][..], 4));
        assert_eq!(list[2].answer_tokens(0), None);
        let roles: Vec<Role> = list[2].prompt(0).iter().map(|said| said.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);
    }

    #[test]
    fn the_order_is_the_seeds() {
        let text: String = (0..100).map(|n| format!("{{\"prompt\": \"{n}\"}}\n")).collect();
        let order = |more: &str| -> Vec<String> {
            let list = read(DatasetKind::Jsonl, &text, more).unwrap().list;
            list.iter().map(|entry| entry.messages[0].text.to_string()).collect()
        };
        let (straight, mixed) = (order(r#", "shuffle": false"#), order(""));
        assert_ne!(straight, mixed);
        assert_eq!(mixed, order(""));
        let mut sorted = mixed.clone();
        sorted.sort_by_key(|text| text.parse::<u32>().unwrap());
        assert_eq!(sorted, straight);
    }

    #[test]
    fn wrong_files_are_refused_with_their_place() {
        for (kind, text, cause) in [
            (DatasetKind::Sharegpt, "{}", "a list of conversations"),
            (DatasetKind::Sharegpt, "[{\"conversations\": [3]}]", "line 1 column"),
            (DatasetKind::Sharegpt, "[]", "none of its 0 entries"),
            (DatasetKind::Jsonl, "", "none of its 0 entries"),
            (DatasetKind::Jsonl, "{\"prompt\": \"x\"}\n[", "line 2: "),
            (DatasetKind::Jsonl, "{\"output_tokens\": 1}", "expected either prompt"),
            (
                DatasetKind::Jsonl,
                "{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}",
                "unknown role 'tool'",
            ),
            (DatasetKind::Jsonl, "{\"prompt\": \" \"}", "none of its 1 entries"),
        ] {
            let error = read(kind, text, "").unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("hint: "), "{text}: {error}");
        }
    }
}
