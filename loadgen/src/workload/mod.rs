//! The workload: what each request asks, as a pure function of the recipe, its files, the seed and
//! the number of the request.
//!
//! A driver asks for the [`Item`] that is request so and so and puts it into its protocol's body.
//! Everything that takes time (reading files, tokenizers, making text) is done before the start; an
//! item is then put together from texts that are ready, already escaped for JSON.

mod file;
mod lengths;
mod tokens;
mod words;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aifb_schema::{
    recipe::{Dataset, DatasetKind, Load, Think},
    snapshot::hex,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::{
    error::Fatal,
    plan::{Ask, Pause, Phase, Trace, WorkerPlan},
    record::checkpoint::WorkloadRecord,
};
use file::{Entries, Entry};
use lengths::Draw;
use tokens::Tokens;
use words::Words;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The service's owner.
    System,
    /// Who asks.
    User,
    /// The service.
    Assistant,
}

impl Role {
    /// OpenAI's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Who says it.
    pub(crate) role: Role,
    /// What, escaped for JSON, without the quotes.
    text: String,
}

/// What one request asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Oldest first; the last is the user's. A plain prompt is one message.
    pub(crate) messages: Vec<Message>,
    /// Numbers of tokens instead of text: a JSON list.
    ids: Option<String>,
    /// Tokens to generate.
    pub(crate) output_tokens: u32,
    /// Whether exactly so many are wanted: where the prompt is made up, the natural end of an
    /// answer means nothing.
    pub(crate) exact: bool,
    /// Tokens of the prompt, as far as they are known here.
    pub(crate) input_tokens: u64,
    /// Of these, tokens at the beginning that a request before this one had at its beginning too.
    pub(crate) repeated_tokens: u64,
}

impl Item {
    /// The whole prompt as a JSON value: a text, or a list of numbers.
    pub(crate) fn prompt(&self) -> String {
        if let Some(ids) = &self.ids {
            return ids.clone();
        }
        let length: usize = self.messages.iter().map(|message| message.text.len() + 2).sum();
        let mut json = String::with_capacity(length + 2);
        json.push('"');
        for (index, message) in self.messages.iter().enumerate() {
            if index > 0 {
                // Between words that are single tokens, anything but a space would be a token too.
                json.push(' ');
            }
            json.push_str(&message.text);
        }
        json.push('"');
        json
    }

    /// The whole prompt as it is, not escaped.
    pub(crate) fn text(&self) -> String {
        let json = self.prompt();
        serde_json::from_str(&json).unwrap_or(json)
    }

    /// The messages as a JSON list of `{role, content}`.
    pub(crate) fn messages(&self) -> String {
        let length: usize = self.messages.iter().map(|message| message.text.len() + 40).sum();
        let mut json = String::with_capacity(length);
        json.push('[');
        for (index, Message { role, text }) in self.messages.iter().enumerate() {
            json.push_str(if index > 0 { ",{\"role\":\"" } else { "{\"role\":\"" });
            json.push_str(role.as_str());
            json.push_str("\",\"content\":\"");
            json.push_str(text);
            json.push_str("\"}");
        }
        json.push(']');
        json
    }
}

/// What a worker asks.
#[derive(Debug)]
pub(crate) struct Workload {
    seed: u64,
    kind: Kind,
    output: Option<Draw>,
    turns: Option<(Draw, Think)>,
    trace: Option<Arc<Trace>>,
    record: WorkloadRecord,
    counted: Counted,
}

/// Sums over the measured items that were requested.
#[derive(Debug, Default)]
struct Counted {
    input_tokens: AtomicU64,
    repeated_tokens: AtomicU64,
    reused: AtomicU64,
}

#[derive(Debug)]
enum Kind {
    Synthetic { words: Words, input: Draw, prefixes: Vec<String>, prefix_tokens: u32 },
    Prompt { text: String, tokens: u64 },
    Ids { input: Draw, vocabulary: u32 },
    File(Entries),
}

/// Streams of the generator, so that one figure does not change with another; each turn of a
/// conversation has its own, this many further.
const TURN_STREAM: u64 = 256;
const CONTENT: u64 = 4;
const INPUT_LENGTH: u64 = 5;
const OUTPUT_LENGTH: u64 = 6;
const TURNS: u64 = 8;
const PREFIXES: u64 = 9;
/// The warm-up's items have streams of their own.
const WARMUP_STREAM: u64 = 1 << 62;

/// Words of the generator that an item may use of a stream: no distribution draws more.
const ITEM_WORDS: u128 = 64;

/// The generator of a figure of an item.
fn random(seed: u64, stream: u64, item: u64, turn: u32) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let warmup = if item == index(item) { 0 } else { WARMUP_STREAM };
    random.set_stream(warmup + stream + TURN_STREAM * u64::from(turn));
    random.set_word_pos(u128::from(index(item)) * ITEM_WORDS);
    random
}

/// A text between the quotes of JSON.
fn escaped(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// Number of an item within its phase.
fn index(item: u64) -> u64 {
    item & !(1 << 63)
}

impl Workload {
    /// Reads files and makes texts.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub(crate) fn prepare(load: &Load, plan: &WorkerPlan) -> Result<Self, Fatal> {
        let dataset = load.dataset.clone().unwrap_or_default();
        let mut workload = Self::new(&dataset, load.seed, plan.trace.clone())?;
        if let (Some(trace), aifb_schema::recipe::Arrival::Trace { file, .. }) =
            (&plan.trace, &load.arrival)
        {
            workload.record.files.push((file.clone(), trace.sha256.clone()));
        }
        workload.record.hash = workload.hash(&dataset, load.seed);
        Ok(workload)
    }

    fn new(dataset: &Dataset, seed: u64, trace: Option<Arc<Trace>>) -> Result<Self, Fatal> {
        let tokens = dataset.tokenizer.as_deref().map(Tokens::read).transpose()?;
        let mut record = WorkloadRecord::default();
        if let (Some(path), Some(tokens)) = (&dataset.tokenizer, &tokens) {
            record.files.push((path.clone(), tokens.sha256.clone()));
        }
        let input = || Draw::new(&dataset.input_tokens);
        let kind = match dataset.kind {
            DatasetKind::Synthetic => {
                let words = Words::new(seed, tokens.as_ref())?;
                let prefix = dataset.prefix;
                let prefixes = prefix.map_or(Vec::new(), |prefix| {
                    let mut random = random(seed, PREFIXES, 0, 0);
                    let text = |_| {
                        let mut text = String::new();
                        words.append(&mut text, prefix.tokens as usize, &mut random);
                        text
                    };
                    (0..prefix.groups).map(text).collect()
                });
                let prefix_tokens = prefix.map_or(0, |prefix| prefix.tokens);
                Kind::Synthetic { words, input: input(), prefixes, prefix_tokens }
            }
            DatasetKind::Prompt => {
                let prompt = dataset.prompt.as_deref().unwrap_or_default();
                let count = tokens.as_ref().map(|tokens| tokens.count(prompt)).transpose()?;
                let tokens = count.unwrap_or_else(|| prompt.split_whitespace().count());
                Kind::Prompt {
                    text: escaped(prompt),
                    tokens: u64::try_from(tokens).unwrap_or(u64::MAX),
                }
            }
            DatasetKind::Ids => Kind::Ids { input: input(), vocabulary: dataset.vocabulary.max(1) },
            DatasetKind::Sharegpt | DatasetKind::Jsonl => {
                let path = dataset.file.as_deref().unwrap_or_default();
                let entries = Entries::read(path, dataset, seed, tokens.as_ref())?;
                record.files.push((path.to_owned(), entries.sha256.clone()));
                record.entries = u64::try_from(entries.list.len()).ok();
                record.left_out = Some(entries.left_out);
                Kind::File(entries)
            }
        };
        Ok(Self {
            seed,
            kind,
            output: dataset.output_tokens.as_ref().map(Draw::new),
            turns: dataset.turns.as_ref().map(|turns| (Draw::new(&turns.count), turns.think)),
            trace,
            record,
            counted: Counted::default(),
        })
    }

    fn hash(&self, dataset: &Dataset, seed: u64) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"aifb workload 1");
        // The types have no map with keys in no order, so the text is always the same.
        hasher.update(serde_json::to_string(dataset).unwrap_or_default());
        hasher.update(seed.to_le_bytes());
        for (_, sha256) in &self.record.files {
            hasher.update(sha256);
        }
        hex(&hasher.finalize())
    }

    /// What is noted of it, as of now.
    pub(crate) fn record(&self) -> WorkloadRecord {
        WorkloadRecord {
            input_tokens: self.counted.input_tokens.load(Ordering::Relaxed),
            repeated_tokens: self.counted.repeated_tokens.load(Ordering::Relaxed),
            reused: self.counted.reused.load(Ordering::Relaxed),
            ..self.record.clone()
        }
    }

    /// Pause between the requests of a conversation; none where there are no conversations.
    pub(crate) fn talk_pause(&self) -> Option<Pause> {
        self.turns.as_ref().map(|(_, think)| Pause::new(*think, self.seed))
    }

    /// Requests of the conversation that item so and so is.
    pub(crate) fn turns(&self, item: u64) -> u32 {
        match (&self.turns, &self.kind) {
            (None, _) => 1,
            (Some(_), Kind::File(entries)) => {
                let turns = entry(entries, item).map_or(1, |entry| entry.turns.len());
                u32::try_from(turns).unwrap_or(1)
            }
            (Some((count, _)), _) => count.draw(&mut random(self.seed, TURNS, item, 0)).max(1),
        }
    }

    fn output_tokens(&self, item: u64, turn: u32) -> u32 {
        match &self.output {
            Some(draw) => draw.draw(&mut random(self.seed, OUTPUT_LENGTH, item, turn)),
            None => Dataset::DEFAULT_OUTPUT,
        }
    }

    /// What request `ask` asks.
    pub(crate) fn item(&self, ask: Ask) -> Item {
        let recorded = match (&self.trace, &self.turns) {
            (Some(trace), None) => trace.lengths(ask.phase, index(ask.item)),
            _ => crate::plan::Lengths::default(),
        };
        let mut item = match &self.kind {
            Kind::Synthetic { .. } => self.synthetic(ask, recorded.input),
            Kind::Prompt { text, tokens } => Item {
                repeated_tokens: if index(ask.item) > 0 { *tokens } else { 0 },
                ..self.plain(text.clone(), *tokens, ask)
            },
            Kind::Ids { input, vocabulary } => {
                let count = recorded.input.unwrap_or_else(|| {
                    input.draw(&mut random(self.seed, INPUT_LENGTH, ask.item, ask.turn))
                });
                let mut item = self.plain(String::new(), u64::from(count), ask);
                item.ids = Some(self.ids(ask, count, *vocabulary));
                item.exact = true;
                item
            }
            Kind::File(entries) => self.recorded(entries, ask),
        };
        if let Some(output) = recorded.output {
            item.output_tokens = output;
        }
        self.count(ask, &item);
        item
    }

    /// A further text of request `ask`: what its other texts are compared with.
    pub(crate) fn query(&self, ask: Ask) -> Item {
        // Behind all turns of any conversation.
        let turn = 1 << 20;
        let Kind::Synthetic { words, input, .. } = &self.kind else { return self.item(ask) };
        let count = input.draw(&mut random(self.seed, INPUT_LENGTH, ask.item, turn));
        let mut text = String::new();
        words.append(&mut text, count as usize, &mut random(self.seed, CONTENT, ask.item, turn));
        let item = self.plain(text, u64::from(count), ask);
        self.count(ask, &item);
        item
    }

    fn count(&self, ask: Ask, item: &Item) {
        if ask.phase != Phase::Measure {
            return;
        }
        self.counted.input_tokens.fetch_add(item.input_tokens, Ordering::Relaxed);
        self.counted.repeated_tokens.fetch_add(item.repeated_tokens, Ordering::Relaxed);
        if self.record.entries.is_some_and(|entries| index(ask.item) >= entries) {
            self.counted.reused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn plain(&self, text: String, input_tokens: u64, ask: Ask) -> Item {
        Item {
            messages: vec![Message { role: Role::User, text }],
            ids: None,
            output_tokens: self.output_tokens(ask.item, ask.turn),
            exact: false,
            input_tokens,
            repeated_tokens: 0,
        }
    }

    /// All turns up to this one: the same words as the requests before had.
    fn synthetic(&self, ask: Ask, recorded: Option<u32>) -> Item {
        let Kind::Synthetic { words, input, prefixes, prefix_tokens } = &self.kind else {
            return self.plain(String::new(), 0, ask);
        };
        let groups = u64::try_from(prefixes.len()).unwrap_or(1).max(1);
        let group = index(ask.item) % groups;
        let mut messages = Vec::with_capacity(2 * ask.turn as usize + 1);
        let (mut total, mut history) = (0, 0);
        for turn in 0..=ask.turn {
            history = total;
            let mut text = String::new();
            if turn == 0
                && let Some(prefix) =
                    usize::try_from(group).ok().and_then(|group| prefixes.get(group))
            {
                text.push_str(prefix);
                total += u64::from(*prefix_tokens);
                // Whoever came first in this group had it already.
                history = if index(ask.item) >= groups { total } else { 0 };
            }
            let count = recorded
                .unwrap_or_else(|| input.draw(&mut random(self.seed, INPUT_LENGTH, ask.item, turn)))
                .max(1);
            let mut content = random(self.seed, CONTENT, ask.item, turn);
            words.append(&mut text, count as usize, &mut content);
            messages.push(Message { role: Role::User, text });
            total += u64::from(count);
            if turn < ask.turn {
                let answer = self.output_tokens(ask.item, turn);
                let mut text = String::new();
                words.append(&mut text, answer as usize, &mut content);
                messages.push(Message { role: Role::Assistant, text });
                total += u64::from(answer);
            }
        }
        // The service generated the answers itself, so it has seen all but the new message.
        let repeated_tokens = if ask.turn > 0 { history } else { history.min(total) };
        Item {
            messages,
            ids: None,
            output_tokens: self.output_tokens(ask.item, ask.turn),
            exact: true,
            input_tokens: total,
            repeated_tokens,
        }
    }

    fn ids(&self, ask: Ask, count: u32, vocabulary: u32) -> String {
        use std::fmt::Write;
        // A generator of its own: a list may be longer than an item's share of a stream.
        let key = random(self.seed, CONTENT, ask.item, ask.turn).random::<u64>();
        let mut random = ChaCha8Rng::seed_from_u64(key);
        let mut json = String::with_capacity(count as usize * 6 + 2);
        json.push('[');
        for number in 0..count {
            let comma = if number > 0 { "," } else { "" };
            // Writing to a String cannot fail.
            let _ignored = write!(json, "{comma}{}", random.random_range(0..vocabulary));
        }
        json.push(']');
        json
    }

    fn recorded(&self, entries: &Entries, ask: Ask) -> Item {
        let Some(entry) = entry(entries, ask.item) else {
            return self.plain(String::new(), 0, ask);
        };
        let prompt = entry.prompt(ask.turn);
        let tokens = |part: &[file::Said]| part.iter().map(|said| u64::from(said.tokens)).sum();
        let input_tokens = tokens(prompt);
        let reused = self.record.entries.is_some_and(|entries| index(ask.item) >= entries);
        let repeated_tokens = match ask.turn.checked_sub(1) {
            _ if reused => input_tokens,
            None => 0,
            // All but the new message.
            Some(_) => tokens(prompt.get(..prompt.len().saturating_sub(1)).unwrap_or_default()),
        };
        let output_tokens = match &self.output {
            Some(_) => self.output_tokens(ask.item, ask.turn),
            None => entry
                .output_tokens
                .or_else(|| entry.answer_tokens(ask.turn))
                .unwrap_or(Dataset::DEFAULT_OUTPUT)
                .max(1),
        };
        let message = |said: &file::Said| Message { role: said.role, text: said.text.to_string() };
        Item {
            messages: prompt.iter().map(message).collect(),
            ids: None,
            output_tokens,
            exact: false,
            input_tokens,
            repeated_tokens,
        }
    }
}

/// The entry that an item is. The warm-up takes them from the end, so that it warms as few as
/// possible of those that are measured.
fn entry(entries: &Entries, item: u64) -> Option<&Entry> {
    let count = u64::try_from(entries.list.len()).ok()?;
    let number = index(item).checked_rem(count)?;
    let warmup = item != index(item);
    let number = if warmup { count - 1 - number } else { number };
    entries.list.get(usize::try_from(number).ok()?)
}

#[cfg(test)]
mod tests;
