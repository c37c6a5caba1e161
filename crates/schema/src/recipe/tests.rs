use super::*;

const SMALL: &str = "\
aifb: 1
name: small
services:
  - name: llm
    kind: llama-server
    program: /usr/bin/llama-server
    model: tiny.gguf
load:
  - name: chat
    driver: openai-chat
    arrival: {process: poisson, rate: 20/s}
    phases: {warmup: 1s, measure: 5s}
";

fn complain(text: &str) -> String {
    parse(text, &[]).unwrap_err().iter().map(|d| d.render("x.yaml")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_recipe_is_read() {
    let recipe = parse(SMALL, &[]).unwrap();
    assert_eq!(recipe.load[0].clients, 1);
    assert_eq!(
        recipe.services[0].command_line()[..3],
        ["/usr/bin/llama-server", "--host", "{host}"]
    );
    assert_eq!(recipe.points().unwrap().len(), 1);
}

#[test]
fn what_is_written_reads_back() {
    let recipe = parse(SMALL, &[]).unwrap();
    let json = serde_json::to_string(&recipe).unwrap();
    assert_eq!(parse(&json, &[]).unwrap(), recipe);
}

#[test]
fn unknown_keys_are_named_with_place_and_suggestion() {
    let text = complain(&SMALL.replace("    driver: openai", "    drivr: openai"));
    assert!(text.starts_with("x.yaml:10:5: unknown key 'drivr'"), "{text}");
    assert!(text.contains("did you mean 'driver'?"), "{text}");
    let text = complain(&format!("{SMALL}monitr: {{}}\n"));
    assert!(text.starts_with("x.yaml:13:1: unknown key 'monitr' in the recipe"), "{text}");
    assert!(text.contains("did you mean 'monitor'?"), "{text}");
}

#[test]
fn wrong_values_are_named_with_place() {
    for (from, to, place, part) in [
        ("rate: 20/s", "rate: 20", "x.yaml:11:39", "invalid rate"),
        ("measure: 5s", "measure: 5", "x.yaml:12:35", "expected a time"),
        ("kind: llama-server", "kind: lama-server", "x.yaml:5:11", "unknown value 'lama-server'"),
        ("name: small", "name: Small", "x.yaml:2:7", "invalid name"),
        ("aifb: 1", "aifb: 2", "x.yaml:1:7", "version 2"),
        ("rate: 20/s", "rate: 20/s, concurrency: 3", "x.yaml:11:14", "both rate"),
        ("    model: tiny.gguf\n", "", "x.yaml:4:5", "needs a model"),
        ("driver: openai-chat", "driver: command", "x.yaml:9:5", "needs a command"),
        (
            "driver: openai-chat",
            "service: llmm\n    driver: openai-chat",
            "x.yaml:10:14",
            "no service 'llmm'",
        ),
    ] {
        let text = complain(&SMALL.replace(from, to));
        assert!(text.starts_with(place) && text.contains(part), "{from} -> {to}: {text}");
    }
}

#[test]
fn overrides_reach_members_by_name() {
    let sets =
        ["load.chat.arrival.rate=50/s".to_owned(), "services.llm.args=[-c, \"512\"]".to_owned()];
    let recipe = parse(SMALL, &sets).unwrap();
    assert_eq!(recipe.services[0].args, ["-c", "512"]);
    let wrong = parse(SMALL, &["load.chatt.seed=1".to_owned()]).unwrap_err();
    assert!(
        wrong[0]
            .render("x")
            .contains("--aifb-set 'load.chatt.seed=1': no member 'chatt': there are chat")
    );
    let wrong = parse(SMALL, &["load.chat.seeed=1".to_owned()]).unwrap_err();
    assert!(wrong[0].render("x").starts_with("--aifb-set"), "{}", wrong[0].render("x"));
}

#[test]
fn a_sweep_has_every_combination() {
    let text = format!(
        "{SMALL}sweep: {{matrix: {{load.chat.arrival.rate: [1/s, 2/s], load.chat.seed: [1, 2, 3]}}}}\n"
    );
    let points = parse(&text, &[]).unwrap().points().unwrap();
    assert_eq!(points.len(), 6);
    assert_eq!(points[5].settings["load.chat.seed"], 3);
    assert_eq!(points[5].recipe.load[0].seed, 3);
    assert!(complain(&text.replace("chat.seed", "chat.seeed")).contains("sweep"));
}

#[test]
fn a_literal_secret_is_refused() {
    let text = complain(
        &SMALL
            .replace("    model: tiny.gguf\n", "    model: tiny.gguf\n    env: {HF_TOKEN: abc}\n"),
    );
    assert!(
        text.contains("the secret HF_TOKEN stands in the recipe") && !text.contains("abc"),
        "{text}"
    );
}

#[test]
fn the_json_schema_knows_every_key() {
    let schema = json_schema();
    for pointer in ["/properties/services", "/properties/load", "/$defs/Load/properties/phases"] {
        assert!(schema.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn moved_keys_are_refused_with_their_new_place() {
    let old = SMALL.replace(
        "    driver: openai-chat",
        "    driver: openai-chat\n    engine: raw\n    extra: {a: 1}",
    );
    let text = complain(&old);
    let expected = "x.yaml:11:5: load 'chat': the key 'engine' has moved to connection.engine\n  \
        hint: write connection: {engine: \"raw\"}\n\
        x.yaml:12:5: load 'chat': the key 'extra' has moved to llm.extra\n  \
        hint: write llm: {extra: {…}}";
    assert_eq!(text, expected);
    for (set, hint) in [
        ("load.chat.engine=raw", "hint: write load.chat.connection.engine=raw"),
        ("load.chat.extra.top_k=3", "hint: write load.chat.llm.extra.top_k=3"),
        ("load.0.command=[a, b]", "hint: write load.0.command.argv=[a, b]"),
    ] {
        let refused = parse(SMALL, &[set.to_owned()]).unwrap_err()[0].render("x");
        assert!(refused.starts_with(&format!("--aifb-set '{set}': the key ")), "{refused}");
        assert!(refused.ends_with(hint), "{refused}");
    }
    let sweep = format!("{SMALL}sweep: {{matrix: {{load.chat.stream: [true, false]}}}}\n");
    let refused = complain(&sweep);
    assert!(refused.starts_with("x.yaml:13:18: the key 'load.chat.stream' has moved"), "{refused}");
    assert!(refused.ends_with("hint: write load.chat.llm.stream"), "{refused}");
    // A whole load that an override puts there.
    let load = "load=[{name: a, driver: command, command: [x], arrival: {concurrency: 1}, \
        phases: {measure: 5s}}]";
    let refused = parse(SMALL, &[load.to_owned()]).unwrap_err()[0].render("x");
    assert!(refused.contains("has moved to command.argv"), "{refused}");
}

#[test]
fn recipes_of_run_folders_may_have_old_keys() {
    let with = |keys: &str| {
        SMALL.replace("    driver: openai-chat", &format!("    driver: openai-chat{keys}"))
    };
    let sweep = |key: &str| format!("sweep: {{matrix: {{load.chat.{key}: [1, 2]}}}}\n");
    let old = with("\n    engine: raw\n    stream: true\n    tools: []") + &sweep("extra.top_k");
    let new = with("\n    connection: {engine: raw}\n    llm: {stream: true}")
        + &sweep("llm.extra.top_k");
    let sets = |set: &str| vec![set.to_owned()];
    let kept = parse_kept(&old, &sets("load.chat.http_version=\"1.1\"")).unwrap();
    let written = parse(&new, &sets("load.chat.connection.http_version=\"1.1\"")).unwrap();
    assert_eq!(kept, written);
    assert_eq!(parse_kept(&new, &[]).unwrap(), parse(&new, &[]).unwrap());
    assert!(parse(&old, &[]).is_err());
}

#[test]
fn keys_of_other_drivers_are_refused() {
    for (driver, key, value) in [
        ("openai-chat", "llm.batch", "4"),
        ("openai-chat", "kserve", "{version: \"1\"}"),
        ("openai-chat", "http", "{method: GET}"),
        ("openai-embeddings", "llm.stream", "true"),
        ("openai-embeddings", "slo.ttft", "1s"),
        ("kserve-http", "llm", "{extra: {a: 1}}"),
        ("http", "llm", "{}"),
        ("http", "model", "m"),
        ("postgresql", "connection", "{engine: auto}"),
        ("postgresql", "dataset", "{kind: synthetic}"),
        ("command", "connection", "{}"),
        ("openai-chat", "command", "{argv: [\"true\"]}"),
    ] {
        let sets = [format!("load.chat.driver={driver}"), format!("load.chat.{key}={value}")];
        let found = parse(SMALL, &sets).unwrap_err();
        let message = format!("load 'chat': {key} has no meaning for driver {driver}");
        let one = found.iter().find(|one| one.message == message);
        let one = one.unwrap_or_else(|| panic!("{key} for {driver}: {found:?}"));
        let hint = one.hint.as_deref().unwrap_or_default();
        assert!(hint.contains(takers(key)[0]) || hint.contains("aifb drivers"), "{hint}");
    }
}
