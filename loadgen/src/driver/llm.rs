//! What requests to a model have in common: the prompt, the rest of the body, the model's name.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use aifb_schema::recipe::Load;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::{Job, Made},
    plan::Ask,
    wire::{Route, Wire},
    workload::Item,
};

/// Makes what requests ask.
pub(super) struct Asked {
    made: Arc<Made>,
    batch: u64,
}

impl Asked {
    pub(super) fn new(job: &Job) -> Result<Self, Fatal> {
        Ok(Self { made: job.made()?, batch: u64::from(batch(&job.plan.load)) })
    }

    /// What request `ask` asks.
    pub(super) fn item(&self, ask: Ask) -> Item {
        self.made.workload.item(ask)
    }

    /// A list of as many texts as a request has, in JSON: no request has one of another's.
    pub(super) fn texts(&self, ask: Ask) -> String {
        let mut list = String::from("[");
        for index in 0..self.batch {
            list.push_str(if index > 0 { "," } else { "" });
            let own = Ask::new(ask.phase, ask.id * self.batch + index);
            list.push_str(&self.item(own).prompt());
        }
        list.push(']');
        list
    }

    /// A text that is none of [`Asked::texts`], in JSON.
    pub(super) fn query(&self, ask: Ask) -> String {
        self.made.workload.query(ask).prompt()
    }
}

/// Texts of each request.
pub(super) fn batch(load: &Load) -> u32 {
    load.llm().batch.unwrap_or_else(|| load.driver.default_batch())
}

/// A text as JSON.
pub(super) fn json(text: &str) -> String {
    Value::from(text).to_string()
}

/// Members of a JSON object, each with a comma before it: the defaults that `extra` does not
/// have, then `extra`.
pub(super) fn members<'a>(
    defaults: &[(&str, Value)],
    extra: impl IntoIterator<Item = (&'a String, &'a Value)>,
) -> String {
    let extra: Vec<(&String, &Value)> = extra.into_iter().collect();
    let mut text = String::new();
    for (key, value) in defaults {
        if !extra.iter().any(|(own, _)| own == key) {
            // Writing to a String cannot fail.
            let _infallible = write!(text, ",{}:{value}", json(key));
        }
    }
    for (key, value) in extra {
        let _infallible = write!(text, ",{}:{value}", json(key));
    }
    text
}

/// Model of a request if none is named: servers with a single model accept any.
const UNNAMED: &str = "default";

/// Longest wait for the list of models.
const MODELS_MAX: Duration = Duration::from_secs(5);

/// The model that requests name: the run's, the load's, or the first that the first server has;
/// where it does not tell, the requests will show what is wrong.
pub(super) async fn model(job: &Job, wire: &Wire) -> String {
    if let Some(model) = job.plan.model.clone().or_else(|| job.plan.load.model.clone()) {
        return model;
    }
    let (path, list, key) = if job.plan.load.driver.is_ollama() {
        (Route::get("/api/tags"), "models", "name")
    } else {
        (Route::get("/models").under("/v1"), "data", "id")
    };
    let request = path.accept("application/json").ready().request("");
    let answer = wire.json(0, &request, MODELS_MAX).await.ok();
    let first = answer.as_ref().and_then(|answer| answer.get(list)?.get(0)?.get(key)?.as_str());
    first.unwrap_or(UNNAMED).to_owned()
}

/// Bytes of an answer that are quoted in a message.
const QUOTED: usize = 200;

/// Reads a part of an answer.
pub(super) fn read<'a, T: Deserialize<'a>>(what: &str, data: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(data).map_err(|error| {
        let text = String::from_utf8_lossy(data.get(..QUOTED).unwrap_or(data));
        Fault::new(Class::Parse, format!("reading {what} '{text}': {error}"))
    })
}

/// null is the same as absent.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Most members of a list that is kept: servers give at most 128 choices.
const FEW: usize = 1024;

/// A list of few members; null is the same as an empty one.
pub(super) fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Take<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Take<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list or null")
        }
        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut kept = Vec::new();
            while let Some(member) = list.next_element()? {
                if kept.len() == FEW {
                    return Err(de::Error::custom(format!("a list of more than {FEW}")));
                }
                kept.push(member);
            }
            Ok(kept)
        }
    }
    from.deserialize_any(Take(std::marker::PhantomData))
}

/// Whether a text or list is there and not empty; its content is not kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filled(pub(super) bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> de::Visitor<'de> for Look {
            type Value = Filled;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, a list or null")
            }
            fn visit_str<E>(self, text: &str) -> Result<Filled, E> {
                Ok(Filled(!text.is_empty()))
            }
            fn visit_unit<E>(self) -> Result<Filled, E> {
                Ok(Filled(false))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Filled, A::Error> {
                let mut filled = false;
                while list.next_element::<de::IgnoredAny>()?.is_some() {
                    filled = true;
                }
                Ok(Filled(filled))
            }
        }
        from.deserialize_any(Look)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn extra_members_replace_defaults() {
        let defaults = [("temperature", Value::from(0)), ("stream", Value::from(true))];
        let extra = BTreeMap::from([
            ("temperature".to_owned(), Value::from(0.5)),
            ("a \"b\"".to_owned(), serde_json::json!({"c": [1, null]})),
        ]);
        let text = members(&defaults, &extra);
        assert_eq!(text, r#","stream":true,"a \"b\"":{"c":[1,null]},"temperature":0.5"#);
        let object: Value = serde_json::from_str(&format!("{{\"x\":1{text}}}")).unwrap();
        assert_eq!(object["temperature"], 0.5);
    }
}
