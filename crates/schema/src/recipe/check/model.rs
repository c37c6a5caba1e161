//! Checks of what is asked of a model besides the prompt.

use super::{
    super::{
        BATCH_MAX, DIMENSIONS_MAX, Llm, Load, Ollama,
        document::{shown, step},
    },
    Checker,
};
use crate::units::{Name, Span};

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
    ("stream", "llm.stream"),
    ("stream_options", "llm.stream"),
    ("tools", "llm.tools"),
    ("dimensions", "llm.dimensions"),
    ("keep_alive", "llm.ollama.keep_alive"),
    ("n", "arrival: several responses to one request cannot be distinguished; send more requests"),
];

impl Checker<'_> {
    /// The section `llm`.
    pub(super) fn model(&mut self, at: &str, load: &Load) {
        let Some(llm) = &load.llm else { return };
        let Llm { stream, tools, extra, batch, dimensions, ollama } = llm;
        let name = &load.name;
        if *stream == Some(false)
            && load.slo.is_some_and(|slo| slo.ttft.is_some() || slo.itl.is_some())
        {
            self.at(
                &step(at, "slo"),
                format!("load '{name}': ttft and itl need a streamed response"),
            )
            .hint("slo: {e2e: 2s}, or remove stream: false");
        }
        let at = step(at, "llm");
        for (key, value, max) in
            [("batch", batch, BATCH_MAX), ("dimensions", dimensions, DIMENSIONS_MAX)]
        {
            if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
                self.at(&step(&at, key), format!("load '{name}': {key} {value} is out of range"))
                    .hint(format!("from 1 to {max}"));
            }
        }
        if let Some(index) = tools.iter().position(|tool| !tool.is_object()) {
            let tool = step(&step(&at, "tools"), &index.to_string());
            self.at(&tool, format!("load '{name}': a tool is an object")).hint(
                "tools: [{type: function, function: {name: weather, parameters: {type: object}}}]",
            );
        }
        for key in extra.keys() {
            let owner = OWN_MEMBERS.iter().find(|(own, _)| own == key).map(|(_, owner)| *owner);
            if let Some(owner) = owner.or_else(|| tensor(load, key)) {
                self.key(
                    &step(&step(&at, "extra"), key),
                    format!("load '{name}': extra cannot set '{}'", shown(key)),
                )
                .hint(format!("it is set by {owner}"));
            }
        }
        if let Some(ollama) = ollama {
            self.ollama(&at, name, ollama);
        }
    }

    fn ollama(&mut self, at: &str, name: &Name, ollama: &Ollama) {
        if let Some(text) = &ollama.keep_alive
            && text.parse::<i64>().is_err()
            && text.parse::<Span>().is_err()
        {
            self.at(
                &step(&step(at, "ollama"), "keep_alive"),
                format!("load '{name}': '{}' is not a time", shown(text)),
            )
            .hint("for example 10m, or -1 to keep the model loaded");
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

/// The key that decides a member of a KServe request.
fn tensor(load: &Load, member: &str) -> Option<&'static str> {
    let inputs = || load.kserve.iter().flat_map(|kserve| &kserve.inputs);
    match member {
        "parameters" if load.driver.is_kserve() => Some("kserve.parameters"),
        _ => inputs().any(|input| input.name == member).then_some("kserve.inputs"),
    }
}
