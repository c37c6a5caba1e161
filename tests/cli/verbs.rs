//! Verbs that need no run: help, examples, schema, reference, completions, version.

use crate::programs::{GOOD, Place, programs};

#[test]
fn one_version_line_for_all_programs() {
    let place = Place::new();
    let ran = place.aifb(&["--version"]);
    let line = ran.stdout.trim().strip_prefix("aifb ").unwrap().to_owned();
    assert!(line.contains("(protocol "), "{line}");
    for name in ["aifb-agent", "aifb-loadgen"] {
        let output =
            std::process::Command::new(programs().join(name)).arg("--version").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("{name} {line}"));
    }
}

#[test]
fn wrong_usage_is_code_2() {
    let place = Place::new();
    for words in [
        &["nonsense"][..],
        &["validate"],
        &["run"],
        &["wait", "--timeout", "5"],
        &["run", "--local", "--no-wait", "x.yaml"],
        &["load"],
        &["up", "x.yaml"],
        &["status"],
        &["status", "4711"],
        &["logs", "show", "/nowhere"],
        &["recipe", "show", "nonsense"],
    ] {
        let ran = place.aifb(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{words:?}: {ran:?}");
    }
}

#[test]
fn every_verb_explains_itself() {
    let place = Place::new();
    let verbs = [
        "run",
        "validate",
        "up",
        "wait",
        "load",
        "list",
        "status",
        "watch",
        "stop",
        "logs",
        "report",
        "recipe",
        "doctor",
        "env",
        "completions",
        "man",
    ];
    let help = place.aifb(&["--help"]).stdout;
    for verb in verbs {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
        let ran = place.aifb(&[verb, "--help"]);
        assert!(ran.code == 0 && ran.stdout.contains("Usage: aifb"), "{verb}: {ran:?}");
    }
}

#[test]
fn every_example_is_a_good_recipe() {
    let place = Place::new();
    let examples = place.aifb(&["recipe", "list", "--json"]).json();
    let examples = examples.as_array().unwrap();
    assert!(examples.len() >= 5);
    for example in examples {
        let name = example["name"].as_str().unwrap();
        assert!(!example["description"].as_str().unwrap().is_empty(), "{name}");
        let shown = place.aifb(&["recipe", "show", name]);
        place.write("x.yaml", &shown.stdout);
        let ran = place.aifb(&["validate", "x.yaml"]);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        let ran = place.aifb(&["run", "--dry-run", "x.yaml", "--plugin", "never"]);
        assert!(ran.code == 0 && ran.stdout.starts_with("sbatch --parsable "), "{name}: {ran:?}");
    }
}

#[test]
fn a_shown_recipe_has_its_defaults_and_reads_back() {
    let place = Place::new();
    place.write("x.yaml", GOOD);
    let shown = place.aifb(&["recipe", "show", "x.yaml", "--set", "load.hits.seed=7"]);
    assert!(shown.stdout.contains("seed: 7") && shown.stdout.contains("timeout: "), "{shown:?}");
    place.write("y.yaml", &shown.stdout);
    let first = place.aifb(&["recipe", "show", "x.yaml", "--set", "load.hits.seed=7", "--json"]);
    assert_eq!(first.json(), place.aifb(&["recipe", "show", "y.yaml", "--json"]).json());
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let schema = Place::new().aifb(&["recipe", "schema"]).json();
    assert!(schema["properties"]["services"].is_object(), "{schema:#}");
}

#[test]
fn completions_are_for_the_shell_asked_for() {
    let place = Place::new();
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef aifb"), ("fish", "complete -c aifb")]
    {
        let ran = place.aifb(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains(word), "{shell}");
    }
}

/// `aifb recipe list | head -1` ends quietly.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = place
        .command(&["recipe", "reference"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// docs/reference/exit-codes.md has every code, and no other.
#[test]
fn every_exit_code_is_explained() {
    use aifb_schema::names::exit;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/exit-codes.md");
    let page = std::fs::read_to_string(page).unwrap();
    let explained: Vec<i32> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | ")?.0.parse().ok())
        .collect();
    let codes = [
        exit::OK,
        exit::CHECK_FAILED,
        exit::USAGE,
        exit::SLURM,
        exit::SERVICE,
        exit::INCOMPLETE,
        exit::UNBELIEVABLE,
        exit::INTERRUPTED,
        exit::TERMINATED,
    ];
    assert_eq!(explained, codes);
}

/// The commands that docs/user/first-recipe.md begins with, as they stand there.
#[test]
fn the_first_commands_of_the_guide_work() {
    let place = Place::new();
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/user/first-recipe.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let first = guide.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    let commands: Vec<&str> = first
        .lines()
        .map(|line| line.split('#').next().unwrap().trim())
        .filter(|line| !line.starts_with("aifb run"))
        .collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    let output = std::process::Command::new("/bin/sh")
        .args(["-ec", &commands.join("\n")])
        .current_dir(place.folder.path())
        .env("PATH", format!("{}:/usr/bin:/bin", programs().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok http-program"), "{output:?}");
}
