//! `make install` and `make uninstall`, of programs that are there already.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::programs::{Place, programs};

/// All files below a folder, by their names from there.
fn files(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true => files(root, &path),
        false => vec![path.strip_prefix(root).unwrap().to_owned()],
    });
    below.collect()
}

/// Words of a text that name a page of docs/.
fn pages(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| letter.is_whitespace() || "(),;'".contains(letter));
    let words = words.filter(|word| word.starts_with("docs/") && word.ends_with(".md"));
    words.map(str::to_owned).collect()
}

#[test]
fn what_help_texts_name_is_installed_and_goes_with_the_rest() {
    let place = Place::new();
    let (built, root) = (place.folder.path().join("built"), place.folder.path().join("root"));
    fs::create_dir(&built).unwrap();
    for program in ["aifb", "aifb-agent", "aifb-loadgen"] {
        std::os::unix::fs::symlink(programs().join(program), built.join(program)).unwrap();
    }
    place.write("built/libaifb_spank.so", "");
    let make = |target: &str| {
        let output = Command::new("make")
            .args(["-s", target, "PREFIX=/opt/aifb"])
            .arg(format!("DESTDIR={}", root.display()))
            .args(["BUILD", "STATIC"].map(|name| format!("{name}={}", built.display())))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("MAKEFLAGS")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    make("install");
    let prefix = root.join("opt/aifb");
    let installed = Command::new(prefix.join("bin/aifb")).arg("--help").output().unwrap();
    let help = String::from_utf8(installed.stdout).unwrap();
    let report = place.aifb(&["report", "--help"]).stdout;
    let named = [pages(&help), pages(&report)].concat();
    assert!(named.len() >= 2 && help.contains("share/aifb/docs"), "{named:?}: {help}");
    let there = |name: &str| prefix.join(name).is_file();
    for page in named {
        assert!(there(&format!("share/aifb/{page}")), "{page}");
    }
    assert!(there("share/aifb/monitoring/rules/aifb.yml"));
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    for verb in
        verbs.map_while(|line| line.split_whitespace().next()).filter(|verb| *verb != "help")
    {
        assert!(there(&format!("share/man/man1/aifb-{verb}.1")), "{verb}");
    }
    // What the administrator put there stays; of ours nothing does.
    fs::write(prefix.join("share/man/man1/other.1"), "").unwrap();
    make("uninstall");
    assert_eq!(files(&root, &root), [Path::new("opt/aifb/share/man/man1/other.1")]);
}
