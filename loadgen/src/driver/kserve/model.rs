//! A model, as its server describes it, and the inputs that follow from it and the recipe.

use std::time::{Duration, Instant};

use aifb_schema::recipe::{
    Datatype, Kserve, KserveInput, Load, TENSOR_ELEMENTS_MAX, TensorData, elements,
};
use serde::Deserialize;

use super::tensor::Wanted;
use crate::{
    error::Fatal,
    fault::{Class, Fault},
};

/// Longest wait for one answer about a model.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest wait for a model to be ready. The service is healthy by now: what is not there soon
/// is missing.
const READY_MAX: Duration = Duration::from_secs(5);

/// Between two questions whether a model is ready.
const READY_EVERY: Duration = Duration::from_millis(100);

/// What a server says of a model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct Metadata {
    /// What it takes.
    #[serde(default)]
    pub(super) inputs: Vec<Described>,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Described {
    /// Name.
    pub(super) name: String,
    /// Type, in the protocol's word.
    pub(super) datatype: String,
    /// Dimensions; negative where any will do.
    pub(super) shape: Vec<i64>,
}

/// The model that the load names.
///
/// # Errors
/// If it names none.
pub(super) fn name(load: &Load) -> Result<&str, Fatal> {
    load.model.as_deref().filter(|name| !name.is_empty()).ok_or_else(|| {
        Fatal::usage(format!("load '{}': driver {} needs a model", load.name, load.driver.as_str()))
            .hint("model: NAME in the recipe, or --model NAME")
    })
}

/// Asks until the model is ready.
///
/// # Errors
/// If it is not in time, or the server cannot be reached.
pub(super) async fn wait_until_ready<F>(
    model: &str,
    mut ask: impl FnMut() -> F,
) -> Result<(), Fatal>
where
    F: Future<Output = Result<(), Fault>>,
{
    let deadline = Instant::now() + READY_MAX;
    loop {
        let Err(fault) = ask().await else { return Ok(()) };
        let absent = matches!(
            fault.class,
            Class::Dns | Class::ConnectRefused | Class::ConnectFailed | Class::ConnectTimeout
        );
        if absent || Instant::now() >= deadline {
            return Err(Fatal::service(format!(
                "waiting for model '{model}' to be ready: {}",
                fault.message
            ))
            .hint(
                "check that the model is in the server's repository and loaded: see the server's \
                 log",
            ));
        }
        tokio::time::sleep(READY_EVERY).await;
    }
}

/// Whether the inputs of a request cannot be made without the model's metadata.
pub(super) fn needs_metadata(kserve: &Kserve) -> bool {
    kserve.inputs.is_empty()
        || kserve.inputs.iter().any(|input| input.datatype.is_none() || input.shape.is_none())
}

/// The inputs of a request.
///
/// # Errors
/// If the recipe and the model's metadata together leave something open or do not fit.
pub(super) fn inputs(
    load: &Load,
    kserve: &Kserve,
    metadata: &Metadata,
) -> Result<Vec<Wanted>, Fatal> {
    let model = name(load)?;
    if !kserve.inputs.is_empty() {
        return kserve.inputs.iter().map(|input| wanted(load, input, metadata)).collect();
    }
    if metadata.inputs.is_empty() {
        return Err(Fatal::usage(format!(
            "load '{}': the server lists no inputs of model '{model}'",
            load.name
        ))
        .hint("name them: kserve: {inputs: [{name: NAME, datatype: FP32, shape: [1, 16]}]}"));
    }
    let described = metadata.inputs.iter().map(|described| {
        let text = described.datatype == Datatype::Bytes.as_str();
        let data = if text { TensorData::Text } else { TensorData::Random };
        let name = described.name.clone();
        let input = KserveInput { name, datatype: None, shape: None, data, below: None };
        wanted(load, &input, metadata)
    });
    described.collect()
}

/// An input of the recipe, completed by the metadata.
///
/// # Errors
/// If something stays open or does not fit.
pub(super) fn wanted(
    load: &Load,
    input: &KserveInput,
    metadata: &Metadata,
) -> Result<Wanted, Fatal> {
    let KserveInput { name, datatype, shape, data, below } = input;
    let wrong = |why: String| Fatal::usage(format!("load '{}': input '{name}' {why}", load.name));
    let described = metadata.inputs.iter().find(|described| described.name == *name);
    let datatype = match (datatype, described) {
        (Some(datatype), _) => *datatype,
        (None, Some(described)) => datatype_of(&described.datatype).ok_or_else(|| {
            wrong(format!("has the unknown type '{}'", described.datatype))
                .hint("name one: datatype: FP32")
        })?,
        (None, None) => return Err(unknown(load, name, metadata)),
    };
    let shape = match (shape, described) {
        (Some(shape), _) => shape.clone(),
        (None, Some(described)) => fixed(&described.shape).ok_or_else(|| {
            wrong(format!("has the shape {:?} in the model's metadata", described.shape)).hint(
                format!(
                    "set its shape: inputs: [{{name: {name}, shape: {:?}}}]",
                    described.shape.iter().map(|size| (*size).max(1)).collect::<Vec<_>>()
                ),
            )
        })?,
        (None, None) => return Err(unknown(load, name, metadata)),
    };
    let count =
        elements(&shape).and_then(|count| usize::try_from(count).ok()).ok_or_else(|| {
            wrong(format!("of shape {shape:?} is too large"))
                .hint(format!("at most {TENSOR_ELEMENTS_MAX} elements"))
        })?;
    match data {
        TensorData::Text if datatype != Datatype::Bytes => {
            return Err(wrong(format!("is {}, prompts are BYTES", datatype.as_str())));
        }
        TensorData::Tokens if !datatype.counts() => {
            return Err(wrong(format!(
                "is {}, numbers of tokens have 32 or 64 bits",
                datatype.as_str()
            )));
        }
        TensorData::Values(values) => {
            if let Some(odd) = values.iter().find(|value| !datatype.takes(value)) {
                return Err(wrong(format!("is {}, but {odd} is not", datatype.as_str())));
            }
            if values.is_empty() || (values.len() > 1 && values.len() != count) {
                return Err(wrong(format!("has {} values for {count} elements", values.len()))
                    .hint("one value fills the tensor"));
            }
        }
        TensorData::Random
            if below.is_some_and(|below| {
                let largest = serde_json::Value::from(below.saturating_sub(1));
                !matches!(datatype, Datatype::Bool | Datatype::Bytes) && !datatype.takes(&largest)
            }) =>
        {
            return Err(wrong(format!(
                "is {}: the value of below is too large",
                datatype.as_str()
            )));
        }
        TensorData::Text | TensorData::Tokens | TensorData::Random | TensorData::Zeros => {}
    }
    let (name, data) = (name.clone(), data.clone());
    Ok(Wanted { name, datatype, shape, count, data, sampling: false, below: *below })
}

fn unknown(load: &Load, name: &str, metadata: &Metadata) -> Fatal {
    let known: Vec<&str> =
        metadata.inputs.iter().map(|described| described.name.as_str()).take(16).collect();
    Fatal::usage(format!("load '{}': the model has no input '{name}'", load.name))
        .hint(format!("its inputs: {}", known.join(", ")))
}

/// The type of a protocol's word.
pub(super) fn datatype_of(word: &str) -> Option<Datatype> {
    serde_json::from_value(serde_json::Value::from(word)).ok()
}

/// The shape, if all its dimensions are fixed.
fn fixed(shape: &[i64]) -> Option<Vec<u32>> {
    shape.iter().map(|size| u32::try_from(*size).ok().filter(|size| *size > 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(kserve: &str) -> (Load, Kserve) {
        let load: Load = serde_json::from_value(serde_json::json!({
            "name": "l", "driver": "kserve-http", "model": "m", "arrival": {"concurrency": 1},
            "phases": {"measure": "1s"},
            "kserve": serde_json::from_str::<serde_json::Value>(kserve).unwrap(),
        }))
        .unwrap();
        let kserve = load.kserve.clone().unwrap();
        (load, kserve)
    }

    fn metadata() -> Metadata {
        serde_json::from_str(
            r#"{"name":"m","versions":["1"],"platform":"python","inputs":[
            {"name":"fixed","datatype":"FP32","shape":[1,16]},
            {"name":"open","datatype":"INT64","shape":[-1,4]},
            {"name":"text","datatype":"BYTES","shape":[1]}],"outputs":[]}"#,
        )
        .unwrap()
    }

    fn asked(kserve: &str) -> Result<Vec<Wanted>, String> {
        let (load, kserve) = load(kserve);
        inputs(&load, &kserve, &metadata()).map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn metadata_completes_the_recipe() {
        let wanted = asked(
            r#"{"inputs":[{"name":"fixed"},{"name":"open","shape":[2,4]},{"name":"text","data":"text"}]}"#,
        )
        .unwrap();
        let figures: Vec<_> = wanted.iter().map(|input| (input.datatype, input.count)).collect();
        assert_eq!(figures, [(Datatype::Fp32, 16), (Datatype::Int64, 8), (Datatype::Bytes, 1)]);
        let (_, whole) = load(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#);
        assert!(!needs_metadata(&whole) && needs_metadata(&Kserve::default()));
    }

    #[test]
    fn what_stays_open_is_said() {
        let text = asked("{}").unwrap_err();
        assert!(text.contains("input 'open' has the shape [-1, 4]"), "{text}");
        assert!(text.contains("inputs: [{name: open, shape: [1, 4]}]"), "{text}");
        for (inputs, expected) in [
            (
                r#"{"name":"other"}"#,
                "no input 'other' (cause: recipe)\nhint: its inputs: fixed, open",
            ),
            (r#"{"name":"fixed","data":"text"}"#, "prompts are BYTES"),
            (r#"{"name":"open","shape":[1,4],"data":[1,2]}"#, "2 values for 4 elements"),
            (r#"{"name":"open","shape":[1,4],"data":["a"]}"#, "is INT64, but \"a\" is not"),
            (r#"{"name":"open","shape":[65536,65536]}"#, "too large"),
            (
                r#"{"name":"x","datatype":"INT8","shape":[1],"below":200}"#,
                "value of below is too large",
            ),
        ] {
            let text = asked(&format!(r#"{{"inputs":[{inputs}]}}"#)).unwrap_err();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_model_without_inputs_is_an_error() {
        let (load, kserve) = load("{}");
        let text = inputs(&load, &kserve, &Metadata::default()).unwrap_err().to_string();
        assert!(text.contains("lists no inputs of model 'm'"), "{text}");
    }
}
