//! The modules of a crate as its files declare them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use proc_macro2::TokenStream;

use crate::scan::{self, Child};

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
}

/// One module: a file, or a block of one.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Names from the root to here; empty for the root.
    pub(crate) path: Vec<String>,
    /// The module it is declared in; absent for the root.
    pub(crate) parent: Option<usize>,
    /// The file that its code stands in.
    pub(crate) file: PathBuf,
    /// Modules that it declares, by name.
    pub(crate) children: BTreeMap<String, usize>,
    /// Names of the items that it defines.
    pub(crate) defines: BTreeSet<String>,
    /// What its `use` declarations bring in.
    pub(crate) imports: Vec<Import>,
    /// Paths that its code names, `use` declarations included.
    pub(crate) paths: Vec<Reference>,
}

/// One name of a `use` declaration at the top of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name it has here; absent for `*`.
    pub(crate) name: Option<String>,
    /// What it stands for; of `*`, the module.
    pub(crate) path: Vec<String>,
}

/// A path that begins with `crate`, `super` or `self`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) line: usize,
    pub(crate) path: Vec<String>,
}

/// Where a module's code is, and where the files of its children are looked for.
struct Place {
    file: PathBuf,
    folder: PathBuf,
}

impl Tree {
    /// Reads a crate from its root file.
    ///
    /// # Errors
    /// A file that cannot be read or is not Rust, by name.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let folder = root.parent().unwrap_or_else(|| Path::new("")).to_owned();
        let mut tree = Self::default();
        let place = Place { file: root.to_owned(), folder };
        tree.add(None, Vec::new(), &place, tokens(root)?)?;
        Ok(tree)
    }

    /// Adds a module and all below it; gives its number.
    fn add(
        &mut self,
        parent: Option<usize>,
        path: Vec<String>,
        place: &Place,
        code: TokenStream,
    ) -> io::Result<usize> {
        let found = scan::module(code);
        let number = self.modules.len();
        self.modules.push(Module {
            path: path.clone(),
            parent,
            file: place.file.clone(),
            children: BTreeMap::new(),
            defines: found.defines,
            imports: found.imports,
            paths: found.paths,
        });
        for Child { name, code, file } in found.children {
            let folder = place.folder.join(&name);
            let (code, file) = match code {
                Some(code) => (code, place.file.clone()),
                None => {
                    let file = match file {
                        Some(named) => place.file.with_file_name(named),
                        None => file_of(&place.folder, &name),
                    };
                    (tokens(&file)?, file)
                }
            };
            let path = path.iter().chain([&name]).cloned().collect();
            let child = self.add(Some(number), path, &Place { file, folder }, code)?;
            if let Some(module) = self.modules.get_mut(number) {
                module.children.insert(name, child);
            }
        }
        Ok(number)
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    if file.exists() { file } else { folder.join(name).join("mod.rs") }
}

fn tokens(file: &Path) -> io::Result<TokenStream> {
    let named = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("reading '{}': {error}", file.display()))
    };
    let text = fs::read_to_string(file).map_err(|error| named(&error))?;
    text.parse().map_err(|error: proc_macro2::LexError| named(&error))
}
