//! Crates made up for the purpose: each way to name a module, in a cycle and without one.

use std::{fs, path::Path};

use crate::{cycle, module::Tree, resolve};

/// The cycles of a crate of these files, as they are printed.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let tree = Tree::read(&folder.path().join("main.rs")).unwrap();
    let prefix = format!("{}/", folder.path().display());
    let found = cycle::all(&tree, &resolve::uses(&tree));
    found.iter().map(|cycle| cycle.to_string().replace(&prefix, "")).collect()
}

/// A crate in which `b` uses `a`, and `a` has this code.
fn with_a(code: &str) -> Vec<String> {
    cycles(&[
        ("main.rs", "mod a; mod b; mod c;"),
        ("a.rs", code),
        ("b.rs", "use crate::a::Thing;\npub struct B;\npub mod deep { pub fn f() {} }"),
        ("c.rs", "pub use crate::b::B;\npub use crate::b::deep::*;"),
    ])
}

#[test]
fn a_cycle_is_named_with_its_places() {
    assert_eq!(
        with_a("pub struct Thing;\n\nuse crate::b::B;"),
        ["a, b use each other\n    a → b: a.rs:3\n    b → a: b.rs:1\n"]
    );
}

#[test]
fn each_way_to_name_a_module_counts() {
    for code in [
        "use super::b::B;",
        "use crate::{b::{self}};",
        "use crate::{b as other};",
        "use crate::b::*;",
        "fn f() { crate::b::deep::f() }",
        "fn f() { println!(\"{}\", crate::b::B) }",
        "fn f() { use super::b; }",
        "mod inner { use super::super::b::B; }",
        "#[serde(with = \"crate::b\")] struct S;",
        "#[derive(crate::b::B)] struct S;",
    ] {
        assert_eq!(with_a(code).len(), 1, "{code}");
    }
}

#[test]
fn what_uses_nothing_does_not_count() {
    for code in [
        "pub struct Thing;",
        "// use crate::b::B;\n/* crate::b */",
        "/// See [`crate::b::B`].\nfn f() { let _ = \"crate::b::B\"; }",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] use crate::b::B;",
        "#[cfg(all(test, unix))] fn f() { crate::b::deep::f() }",
        "pub(in crate::b) struct S;",
        "fn f(&self, b: B) { self.b; b::f() }",
    ] {
        assert_eq!(with_a(code), [""; 0], "{code}");
    }
}

#[test]
fn a_name_that_is_passed_on_is_followed() {
    for code in ["use crate::c::B;", "use crate::c::f;", "use crate::c::*;"] {
        let found = with_a(code);
        assert!(found.first().is_some_and(|cycle| cycle.starts_with("a, b, c use")), "{found:?}");
    }
    // By way of the root.
    let found = cycles(&[
        ("main.rs", "mod a; mod b;\nuse b::B;"),
        ("a/mod.rs", "pub struct Thing;\nuse crate::B;"),
        ("b.rs", "use crate::a::Thing;\npub struct B;"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn children_of_one_parent_are_looked_at() {
    let files = |two: &'static str| {
        cycles(&[
            ("main.rs", "mod a;"),
            ("a/mod.rs", "mod one; mod two;\npub use one::One;"),
            ("a/one.rs", "use super::two::Two;\npub struct One;"),
            ("a/two.rs", two),
        ])
    };
    assert_eq!(files("pub struct Two;"), [""; 0]);
    assert_eq!(files("pub struct Two; use super::One;").len(), 1);
    // A child and its parent may.
    assert_eq!(files("pub struct Two; use crate::a;"), [""; 0]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("main.rs");
    fs::write(&root, "mod gone;").unwrap();
    let error = Tree::read(Path::new(&root)).unwrap_err().to_string();
    assert!(error.contains("gone/mod.rs"), "{error}");
}
