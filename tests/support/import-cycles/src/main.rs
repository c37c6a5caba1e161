//! `import-cycles [--top] ROOT...`: finds modules of a crate that import each other.
//!
//! ROOT is a crate's root file (`src/main.rs`, `src/lib.rs`); behind `--top` only its top-level modules
//! count. Modules of one parent must not form a
//! cycle, at the top of a crate or deeper: what a module is built on can then be read, tested and
//! moved without it. A parent and its own children may use each other, as is usual in Rust. Code
//! for tests only (`#[cfg(test)]`) does not count.
//!
//! Exit code 1 and a list of the imports that make the cycles if there are any, 2 if a file cannot
//! be read.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

mod cycle;
mod module;
mod resolve;
mod scan;

#[cfg(test)]
mod tests;

use module::Tree;

fn main() -> ExitCode {
    let (mut found, mut top) = (false, false);
    for root in std::env::args_os().skip(1) {
        if root == "--top" {
            top = true;
            continue;
        }
        match report(Path::new(&root), top) {
            Ok(clean) => found |= !clean,
            Err(error) => {
                let _ignored = writeln!(io::stderr(), "import-cycles: {error}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::from(u8::from(found))
}

/// Prints the cycles of one crate, of all its modules or those at its top; true if there are none.
fn report(root: &Path, top: bool) -> io::Result<bool> {
    let tree = Tree::read(root)?;
    let mut cycles = cycle::all(&tree, &resolve::uses(&tree));
    cycles.retain(|cycle| !top || cycle.depth == 0);
    let mut out = io::stdout().lock();
    for cycle in &cycles {
        write!(out, "{}: {cycle}", root.display())?;
    }
    if cycles.is_empty() {
        writeln!(out, "{}: {} modules, no cycle", root.display(), tree.modules.len())?;
    }
    Ok(cycles.is_empty())
}
