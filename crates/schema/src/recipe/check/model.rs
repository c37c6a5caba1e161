//! Checks of what is asked of a model besides the prompt.

use super::{
    super::{
        BATCH_MAX, DIMENSIONS_MAX, Diagnostic, Driver, Load, Presets,
        document::{Document, shown, step},
    },
    Checker,
};
use crate::units::Span;

/// Members of a request's body that other keys of the recipe decide.
const OWN_MEMBERS: [(&str, &str); 14] = [
    ("model", "model"),
    ("prompt", "dataset"),
    ("messages", "dataset"),
    ("input", "dataset"),
    ("query", "dataset"),
    ("documents", "dataset"),
    ("max_tokens", "dataset.output_tokens"),
    ("max_completion_tokens", "dataset.output_tokens"),
    ("stream", "stream"),
    ("stream_options", "stream"),
    ("tools", "tools"),
    ("dimensions", "dimensions"),
    ("keep_alive", "ollama.keep_alive"),
    ("n", "arrival: several answers to a request cannot be told apart; send more requests"),
];

/// Checks what a load that comes from no recipe asks of a model.
///
/// # Errors
/// The first complaint; its place means nothing.
pub fn check_model(load: &Load) -> Result<(), Diagnostic> {
    let document = Document::parse("{}")?;
    let none = Presets::default();
    let mut check = Checker { document: &document, presets: &none, found: Vec::new() };
    check.model("", load);
    check.found.into_iter().next().map_or(Ok(()), Err)
}

impl Checker<'_> {
    /// Keys that say what is asked of a model.
    pub(super) fn model(&mut self, at: &str, load: &Load) {
        let (name, driver) = (&load.name, load.driver);
        for (key, given, fits) in [
            ("stream", load.stream.is_some(), driver.has_tokens()),
            ("tools", !load.tools.is_empty(), driver.chats()),
            ("extra", !load.extra.is_empty(), driver.asks_model() && !driver.is_kserve()),
            ("batch", load.batch.is_some(), driver.batches()),
            ("dimensions", load.dimensions.is_some(), driver == Driver::OpenaiEmbeddings),
            ("ollama", load.ollama.is_some(), driver.is_ollama()),
        ] {
            if given && !fits {
                self.misplaced(at, load, key);
            }
        }
        let streamed = load.stream.unwrap_or(true);
        if !streamed && load.slo.is_some_and(|slo| slo.ttft.is_some() || slo.itl.is_some()) {
            self.at(
                &step(at, "slo"),
                format!("load '{name}': ttft and itl need a streamed answer"),
            )
            .hint("slo: {e2e: 2s}, or remove stream: false");
        }
        for (key, value, max) in
            [("batch", load.batch, BATCH_MAX), ("dimensions", load.dimensions, DIMENSIONS_MAX)]
        {
            if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
                self.at(&step(at, key), format!("load '{name}': {key} {value} is out of range"))
                    .hint(format!("from 1 to {max}"));
            }
        }
        if let Some(index) = load.tools.iter().position(|tool| !tool.is_object()) {
            let tool = step(&step(at, "tools"), &index.to_string());
            self.at(&tool, format!("load '{name}': a tool is an object")).hint(
                "tools: [{type: function, function: {name: weather, parameters: {type: object}}}]",
            );
        }
        for key in load.extra.keys() {
            if let Some((_, owner)) = OWN_MEMBERS.iter().find(|(own, _)| own == key) {
                self.key(
                    &step(&step(at, "extra"), key),
                    format!("load '{name}': extra cannot say '{}'", shown(key)),
                )
                .hint(format!("that is decided by {owner}"));
            }
        }
        self.ollama(at, load);
    }

    fn ollama(&mut self, at: &str, load: &Load) {
        let Some(ollama) = &load.ollama else { return };
        let name = &load.name;
        if let Some(text) = &ollama.keep_alive
            && text.parse::<i64>().is_err()
            && text.parse::<Span>().is_err()
        {
            self.at(
                &step(&step(at, "ollama"), "keep_alive"),
                format!("load '{name}': '{}' is not a time", shown(text)),
            )
            .hint("for example 10m, or -1 to keep the model for ever");
        }
        if ollama.deadline.get().is_zero() {
            self.at(
                &step(&step(at, "ollama"), "deadline"),
                format!("load '{name}': deadline is zero"),
            )
            .hint("for example 30m");
        }
    }
}
