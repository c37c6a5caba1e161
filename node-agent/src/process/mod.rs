//! Processes of this node, from /proc.

pub(crate) mod script;
pub(crate) mod tree;
