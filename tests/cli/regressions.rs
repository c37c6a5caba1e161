//! docs/developer/regressions.md names tests: they are there.

use std::{fs, path::Path};

#[test]
fn every_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/developer/regressions.md")).unwrap();
    let named: Vec<(&str, &str)> =
        page.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 30, "{named:?}");
    for (file, name) in named.into_iter().filter(|(file, _)| *file != "file") {
        let code = fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("no {file}"));
        assert!(code.contains(&format!("fn {name}(")), "{file} has no {name}");
    }
    // One row for each defect.
    for number in 1..=18 {
        assert!(page.contains(&format!("\n| r{number} |")), "r{number}");
    }
}
