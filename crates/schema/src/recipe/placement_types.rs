//! Where the parts of a recipe run: nodes, and options of Slurm.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Value of an sbatch option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, a number, true or false")]
pub enum SlurmValue {
    /// A flag: `exclusive: true`. False leaves it out.
    Flag(bool),
    /// A number: `nodes: 2`.
    Number(i64),
    /// A text: `time: "01:00:00"`.
    Text(String),
}

/// Which nodes of the allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "NodesText", into = "NodesText")]
pub enum Nodes {
    /// The first node.
    Head,
    /// Every node but those of the services; the first node if there is no other.
    Others,
    /// Every node.
    All,
    /// The first N nodes (a service), or N of the others (a load).
    Count(u32),
}

impl Nodes {
    pub(super) fn head() -> Self {
        Self::Head
    }
    pub(super) fn others() -> Self {
        Self::Others
    }
}

/// A number or a word.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected head, others, all or a number of nodes")]
enum NodesText {
    Count(u32),
    Word(String),
}

impl TryFrom<NodesText> for Nodes {
    type Error = String;
    fn try_from(text: NodesText) -> Result<Self, String> {
        match text {
            NodesText::Count(0) => Err("0 nodes: expected at least 1".into()),
            NodesText::Count(count) => Ok(Self::Count(count)),
            NodesText::Word(word) => match word.as_str() {
                "head" => Ok(Self::Head),
                "others" => Ok(Self::Others),
                "all" => Ok(Self::All),
                _ => Err(format!(
                    "'{}' is not a placement: expected head, others, all or a number of nodes",
                    super::shown(&word)
                )),
            },
        }
    }
}

impl From<Nodes> for NodesText {
    fn from(nodes: Nodes) -> Self {
        match nodes {
            Nodes::Head => Self::Word("head".into()),
            Nodes::Others => Self::Word("others".into()),
            Nodes::All => Self::Word("all".into()),
            Nodes::Count(count) => Self::Count(count),
        }
    }
}
