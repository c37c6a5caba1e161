//! Run folders: where they are, how one is found, what is in it.

mod find;
mod folder;

pub(crate) use find::{Roots, list, of_this_job, present, select};
pub(crate) use folder::RunFolder;
