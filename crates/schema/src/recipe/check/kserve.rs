//! Checks of what is asked of a KServe server.

use serde_json::Value;

use super::{
    super::{
        Driver, Kserve, KserveInput, Load, TENSOR_ELEMENTS_MAX, TensorData,
        document::{shown, step},
        elements,
    },
    Checker,
};
use crate::units::Name;

/// Most inputs or outputs of a request: models have a few, and each is looked up by name.
const TENSORS_MAX: usize = 256;

/// Most parameters of a request.
const PARAMETERS_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn kserve(&mut self, at: &str, load: &Load) {
        let name = &load.name;
        if load.model.is_none() {
            self.at(at, format!("load '{name}': driver {} needs a model", load.driver.as_str()))
                .hint("add model: NAME, as the server's model repository has it");
        }
        let Some(kserve) = &load.kserve else { return };
        let at = step(at, "kserve");
        if kserve.version.as_ref().is_some_and(|version| !is_word(version)) {
            self.at(
                &step(&at, "version"),
                format!("load '{name}': kserve.version is not a version"),
            )
            .hint("a number as text, such as \"1\"");
        }
        self.tensor_names(&at, name, kserve);
        for (index, input) in kserve.inputs.iter().enumerate() {
            let at = format!("{}/{index}", step(&at, "inputs"));
            self.input(&at, load, kserve, input);
        }
        for (key, value) in &kserve.parameters {
            let scalar = matches!(value, Value::Bool(_) | Value::Number(_) | Value::String(_));
            let whole = load.driver != Driver::KserveGrpc || !value.is_f64();
            if !scalar || !whole || !is_word(key) {
                self.at(
                    &step(&step(&at, "parameters"), key),
                    format!(
                        "load '{name}': kserve.parameters: '{}' is not a parameter",
                        shown(key)
                    ),
                )
                .hint("a text, a number, true or false; kserve-grpc has whole numbers only");
            }
        }
    }

    fn tensor_names(&mut self, at: &str, name: &Name, kserve: &Kserve) {
        if kserve.parameters.len() > PARAMETERS_MAX {
            self.at(&step(at, "parameters"), format!("load '{name}': too many parameters"))
                .hint(format!("at most {PARAMETERS_MAX}"));
        }
        let inputs: Vec<&str> = kserve.inputs.iter().map(|input| input.name.as_str()).collect();
        let outputs: Vec<&str> = kserve.outputs.iter().map(|output| output.name.as_str()).collect();
        for (key, names) in [("inputs", inputs), ("outputs", outputs)] {
            let at = step(at, key);
            if names.len() > TENSORS_MAX {
                self.at(&at, format!("load '{name}': too many {key}"))
                    .hint(format!("at most {TENSORS_MAX}"));
                continue;
            }
            for (index, tensor) in names.iter().enumerate() {
                let at = format!("{at}/{index}");
                if !is_word(tensor) {
                    self.at(
                        &at,
                        format!("load '{name}': '{}' is not a tensor's name", shown(tensor)),
                    )
                    .hint("the name from the model's metadata");
                } else if names.iter().take(index).any(|other| other == tensor) {
                    self.at(&at, format!("load '{name}': '{}' is named twice", shown(tensor)))
                        .hint("name each tensor once");
                }
            }
        }
    }

    fn input(&mut self, at: &str, load: &Load, kserve: &Kserve, input: &KserveInput) {
        let KserveInput { name: tensor, datatype, shape, data, below } = input;
        let (name, tensor) = (&load.name, shown(tensor));
        let count = shape.as_ref().map(|shape| elements(shape));
        if count == Some(None) || shape.as_ref().is_some_and(|shape| shape.contains(&0)) {
            self.at(
                &step(at, "shape"),
                format!("load '{name}': the shape of '{tensor}' is out of range"),
            )
            .hint(format!("sizes from 1, at most {TENSOR_ELEMENTS_MAX} elements in all"));
        }
        if datatype.is_some_and(|datatype| !datatype.has_json())
            && (load.driver == Driver::TritonGenerate
                || (load.driver == Driver::KserveHttp && !kserve.binary))
        {
            self.at(
                &step(at, "datatype"),
                format!("load '{name}': '{tensor}': JSON has no form for 16-bit floating point"),
            )
            .hint("driver kserve-http with binary: true, or kserve-grpc");
        }
        if *data == TensorData::Text
            && datatype.is_some_and(|datatype| datatype != super::super::Datatype::Bytes)
        {
            self.at(&step(at, "data"), format!("load '{name}': '{tensor}': prompts are BYTES"))
                .hint("datatype: BYTES, or data: random");
        }
        if *data == TensorData::Tokens && datatype.is_some_and(|datatype| !datatype.counts()) {
            self.at(
                &step(at, "data"),
                format!("load '{name}': '{tensor}': numbers of tokens have 32 or 64 bits"),
            )
            .hint("datatype: INT32, INT64, UINT32 or UINT64");
        }
        if *below == Some(0) || (below.is_some() && *data != TensorData::Random) {
            self.at(
                &step(at, "below"),
                format!("load '{name}': '{tensor}': below bounds random numbers"),
            )
            .hint("a number above 0, with data: random");
        }
        if let TensorData::Values(values) = data {
            let wanted = count.flatten();
            let length = u64::try_from(values.len()).unwrap_or(u64::MAX);
            if length == 0 || (length > 1 && wanted.is_some_and(|wanted| wanted != length)) {
                let wanted =
                    wanted.map_or_else(|| "at least 1".to_owned(), |n| format!("1 or {n}"));
                self.at(
                    &step(at, "data"),
                    format!("load '{name}': '{tensor}' has {length} values"),
                )
                .hint(format!("{wanted}, as its shape says"));
            }
            let odd = datatype.and_then(|datatype| {
                values.iter().find(|value| !datatype.takes(value)).map(|value| (datatype, value))
            });
            if let Some((datatype, value)) = odd {
                self.at(
                    &step(at, "data"),
                    format!(
                        "load '{name}': '{tensor}': {} is no {}",
                        shown(&value.to_string()),
                        datatype.as_str()
                    ),
                )
                .hint("each value has to fit the datatype");
            }
        }
    }
}

/// One line of text that can stand in a path or a name.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && !text.chars().any(char::is_control)
}
