//! Wrong recipes: tests/fixtures/bad/NAME.yaml is refused with exactly the words of NAME.txt.
//!
//! `AIFB_BLESS=1 cargo test --test cli` writes the texts anew, to be read before they are kept.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::programs::{GOOD, Place, Ran, programs};

fn fixtures() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bad");
    let mut files: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn each_is_refused_with_place_cause_and_hint() {
    let place = Place::new();
    let fixtures = fixtures();
    assert!(fixtures.len() >= 30);
    let mut wrong = Vec::new();
    for fixture in fixtures {
        fs::copy(&fixture, place.folder.path().join("x.yaml")).unwrap();
        let ran = place.aifb(&["validate", "x.yaml"]);
        let expected = fixture.with_extension("txt");
        if std::env::var_os("AIFB_BLESS").is_some() {
            fs::write(&expected, &ran.stderr).unwrap();
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        let name = fixture.file_stem().unwrap().to_str().unwrap();
        if ran.code != 2 || !ran.stdout.is_empty() || ran.stderr != expected {
            wrong.push(format!("{name}: expected:\n{expected}\nfound: {ran:?}"));
        }
        // Every complaint has its place, and a hint on the line behind it.
        let lines: Vec<&str> = ran.stderr.lines().collect();
        for pair in lines.chunks(2) {
            let parts: Vec<&str> = pair[0].splitn(4, ':').collect();
            let placed = parts.len() == 4
                && parts[0] == "x.yaml"
                && parts[1].parse::<u32>().is_ok()
                && parts[2].parse::<u32>().is_ok();
            if !placed || !pair.get(1).is_some_and(|line| line.starts_with("  hint: ")) {
                wrong.push(format!("{name}: not place, cause and hint: {pair:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_has_the_same_complaints() {
    let place = Place::new();
    place.write(
        "x.yaml",
        &GOOD
            .replace("clients: 3", "clients: 0")
            .replace("program:", "url: http://x:1\n    program:"),
    );
    let ran = place.aifb(&["validate", "x.yaml", "--json"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    let complaints = answer["complaints"].as_array().unwrap();
    assert_eq!(complaints.len(), 2, "{answer:#}");
    assert_eq!((&complaints[0]["line"], &complaints[0]["column"]), (&7.into(), &5.into()));
    assert_eq!(complaints[1]["hint"], "from 1 to 100000");
}

#[test]
fn overrides_are_blamed_by_name() {
    let place = Place::new();
    place.write("x.yaml", GOOD);
    for (set, words) in [
        ("load.hits.clients=0", "--aifb-set 'load.hits.clients=0': load 'hits': clients 0"),
        ("load.hit.clients=1", "no member 'hit': there are hits"),
        ("load.hits.clints=1", "unknown key 'clints'"),
        ("load.hits", "expected PATH=VALUE"),
        ("=1", "is not a path"),
        ("load.hits.arrival=[", "the value: not valid YAML"),
        ("name=&a x", "an anchor"),
        ("load.hits.seed.deep=1", "wrong type: map"),
    ] {
        let ran = place.aifb(&["validate", "x.yaml", "--set", set]);
        assert_eq!(ran.code, 2, "{set}: {ran:?}");
        assert!(ran.stderr.contains(words) && ran.stderr.contains("hint: "), "{set}: {ran:?}");
    }
    let ran = place.aifb(&["validate", "x.yaml", "--set", "load.hits.clients=5", "--json"]);
    assert_eq!(ran.json()["recipe"]["load"][0]["clients"], 5);
}

/// What is not an ordinary file of text is refused at once, by what it is.
#[test]
fn strange_files_are_refused_without_a_hang() {
    let place = Place::new();
    let at = |name: &str| place.folder.path().join(name);
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("large"), vec![b'#'; 1 << 20]).unwrap();
    fs::write(at("latin1"), b"aifb: 1\nname: caf\xe9\n").unwrap();
    fs::write(at("nul"), b"aifb: 1\nname: a\0b\n").unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    for (name, words) in [
        ("fifo", "it is a pipe"),
        ("/dev/zero", "it is a device"),
        ("folder", "it is a folder"),
        ("large", "it has 1048576 bytes"),
        ("latin1", "not UTF-8 text (byte 17)"),
        ("nul", "NUL byte on line 2"),
        ("missing", "No such file"),
        ("loop", "symbolic links"),
        ("folder/x/y", "No such file"),
        ("/proc/self/environ", ""),
    ] {
        let started = Instant::now();
        let ran = place.aifb(&["validate", name]);
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}");
        assert!(ran.stderr.contains(words) && ran.stdout.is_empty(), "{name}: {ran:?}");
        if !words.is_empty() {
            let start = format!("aifb-agent: reading recipe '{name}': ");
            assert!(ran.stderr.starts_with(&start) && ran.stderr.contains("hint: "), "{ran:?}");
        }
    }
    let long = format!("{}.yaml", "x".repeat(4096));
    let ran = place.aifb(&["validate", &long]);
    assert!(ran.code == 2 && ran.stderr.contains("File name too long"), "{ran:?}");
}

#[test]
fn an_unreadable_file_is_refused() {
    let place = Place::new();
    place.write("secret.yaml", GOOD);
    let file = place.folder.path().join("secret.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    // Root can read everything: as somebody else, then, who can reach programs and folder.
    let ran = if nix::unistd::getuid().is_root() {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.folder.path(), open).unwrap();
        let copy = place.folder.path().join("bin");
        fs::create_dir(&copy).unwrap();
        // By another process: what another test starts meanwhile would inherit a file of ours that
        // is open for writing, and a program that may be written is not started.
        let files = ["aifb", "aifb-agent"].map(|name| programs().join(name));
        let copied = std::process::Command::new("cp").args(files).arg(&copy).status().unwrap();
        assert!(copied.success());
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(copy.join("aifb")).args(["validate", "secret.yaml"]);
        Ran::of(command.current_dir(place.folder.path()).output().unwrap())
    } else {
        place.aifb(&["validate", "secret.yaml"])
    };
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("Permission denied") && ran.stderr.contains("hint: "), "{ran:?}");
}

/// Paths with characters that formats and shells treat as special.
#[test]
fn strange_names_of_good_files_work() {
    let place = Place::new();
    for name in ["a b.yaml", "%s%n.yaml", "a;b.yaml", "é.yaml", "a'b.yaml", "-x.yaml"] {
        place.write(name, GOOD);
        let ran = place.aifb(&["validate", "--", name]);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
    }
}

#[test]
fn nothing_is_written() {
    let place = Place::new();
    place.write("x.yaml", &GOOD.replace("kind:", "knd:"));
    for words in [&["validate", "x.yaml"][..], &["run", "--local", "x.yaml"], &["run", "x.yaml"]] {
        assert_eq!(place.aifb(words).code, 2);
    }
    let left: Vec<_> =
        place.folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["x.yaml"]);
}
