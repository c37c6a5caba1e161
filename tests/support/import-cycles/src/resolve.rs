//! Which module each path leads to.

use crate::module::{Import, Module, Tree};

/// Imports that lead to other imports are followed this far; a chain that is longer goes round.
const IMPORTS_FOLLOWED: usize = 16;

/// One place where a module names something of another module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) line: usize,
}

/// Every use of one module by another, in the order of the code. A name that a module only passes
/// on is a use of that module and of the one that it comes from.
pub(crate) fn uses(tree: &Tree) -> Vec<Use> {
    let mut uses = Vec::new();
    for (from, module) in tree.modules.iter().enumerate() {
        for reference in &module.paths {
            let mut way = Way { tree, passed: Vec::new() };
            way.path(from, &reference.path, 0);
            way.passed.dedup();
            let line = reference.line;
            uses.extend(way.passed.into_iter().map(|to| Use { from, to, line }));
        }
    }
    uses
}

/// The modules that a path passes through.
struct Way<'a> {
    tree: &'a Tree,
    passed: Vec<usize>,
}

impl Way<'_> {
    fn module(&self, number: usize) -> Option<&Module> {
        self.tree.modules.get(number)
    }

    /// Follows a path as written in `from`; gives the module it names, if it names one.
    fn path(&mut self, from: usize, path: &[String], followed: usize) -> Option<usize> {
        let mut at = from;
        for (index, name) in path.iter().enumerate() {
            at = match name.as_str() {
                "crate" if index == 0 => 0,
                "self" => at,
                "super" => self.module(at)?.parent?,
                name => self.name(at, name, followed)?,
            };
            self.passed.push(at);
        }
        Some(at)
    }

    /// What a name stands for in a module, if that is a module.
    fn name(&mut self, at: usize, name: &str, followed: usize) -> Option<usize> {
        let module = self.tree.modules.get(at)?;
        if let Some(&child) = module.children.get(name) {
            return Some(child);
        }
        if module.defines.contains(name) || followed == IMPORTS_FOLLOWED {
            return None;
        }
        let named = |import: &&Import| import.name.as_deref() == Some(name);
        if let Some(import) = module.imports.iter().find(named) {
            // `use rand::Rng` is found under its own name: it leads to no module of the crate.
            if import.path.first().is_some_and(|first| first == name) {
                return None;
            }
            return self.path(at, &import.path, followed + 1);
        }
        for all in module.imports.iter().filter(|import| import.name.is_none()) {
            let mut way = Way { tree: self.tree, passed: Vec::new() };
            let Some(source) = way.path(at, &all.path, followed + 1) else { continue };
            if way.has(source, name, followed + 1) {
                self.passed.extend(way.passed);
                return self.name(source, name, followed + 1);
            }
        }
        None
    }

    /// Whether a module defines or passes on a name.
    fn has(&self, at: usize, name: &str, followed: usize) -> bool {
        let Some(module) = self.module(at) else { return false };
        if module.children.contains_key(name) || module.defines.contains(name) {
            return true;
        }
        if followed == IMPORTS_FOLLOWED {
            return false;
        }
        module.imports.iter().any(|import| match &import.name {
            Some(own) => own == name,
            None => {
                let mut way = Way { tree: self.tree, passed: Vec::new() };
                let source = way.path(at, &import.path, followed + 1);
                source.is_some_and(|source| source != at && self.has(source, name, followed + 1))
            }
        })
    }
}
