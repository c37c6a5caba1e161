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
}

#[test]
fn what_is_written_reads_back() {
    let resolved = resolve(SMALL, &[], Presets::built_in()).unwrap();
    let json = serde_json::to_string(&resolved.written()).unwrap();
    assert_eq!(parse(&json, &[]).unwrap(), *resolved.recipe());
    let json = serde_json::to_vec(&resolved).unwrap();
    assert_eq!(Resolved::from_json(&json).unwrap(), resolved);
    for wrong in ["", "{}", "{\"document\": 1, \"presets\": {}, \"recipe\": {}}"] {
        assert!(Resolved::from_json(wrong.as_bytes()).is_err(), "{wrong}");
    }
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
    assert!(recipe.services[0].args.ends_with(&["-c".to_owned(), "512".to_owned()]));
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
    let resolved = resolve(&text, &[], Presets::built_in()).unwrap();
    let points = resolved.points().unwrap();
    assert_eq!((points.len(), resolved.points_count()), (6, 6));
    assert_eq!(points[5].settings["load.chat.seed"], 3);
    assert_eq!(points[5].recipe.load[0].seed, 3);
    let settings = |point: &Point| {
        let values = ["load.chat.arrival.rate", "load.chat.seed"];
        values.map(|path| point.settings[path].to_string().replace('"', ""))
    };
    let order: Vec<[String; 2]> = points.iter().map(settings).collect();
    assert_eq!(
        (&order[0], &order[1]),
        (&["1/s", "1"].map(str::to_owned), &["1/s", "2"].map(str::to_owned))
    );
    assert_eq!(order[3], ["2/s", "1"]);
    assert!(
        points.iter().enumerate().all(|(index, point)| resolved.point(index).unwrap() == *point)
    );
    assert!(resolved.point(6).unwrap_err().contains("no point 6, only 6"));
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
    let kept = resolve_kept(&old, &sets("load.chat.http_version=\"1.1\"")).unwrap();
    let written = parse(&new, &sets("load.chat.connection.http_version=\"1.1\"")).unwrap();
    assert_eq!(*kept.recipe(), written);
    assert_eq!(kept.point(1).unwrap().settings["load.chat.llm.extra.top_k"], 2);
    assert_eq!(*resolve_kept(&new, &[]).unwrap().recipe(), parse(&new, &[]).unwrap());
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

const SITE: &str = "\
description: The site's own server.
needs: [model]
ready: {http: /up}
image: /apps/mine.sif
command: [mine]
args: [--port, \"{port}\"]
scheme: https
";

#[test]
fn a_preset_of_the_site_is_a_kind_of_its_own() {
    let mut presets = Presets::built_in().clone();
    presets.add("mine", SITE, "/etc/aifb/mine.yaml").unwrap();
    let text = SMALL.replace("llama-server\n    program", "mine\n    image");
    let service = resolve(&text, &[], &presets).unwrap().into_recipe().services.remove(0);
    assert_eq!(service.command_line(), ["mine", "--port", "{port}"]);
    assert_eq!(service.probe(), Probe::Http("/up".into()));
    assert_eq!(
        (service.image.as_deref(), service.scheme.as_deref()),
        (Some("/usr/bin/llama-server"), Some("https"))
    );
    let unknown = complain(&text.replace("kind: mine", "kind: min"));
    assert!(
        unknown.contains("unknown value 'min'") && unknown.contains("known here: llama-server"),
        "{unknown}"
    );
    let near = resolve(&text.replace("kind: mine", "kind: mime"), &[], &presets).unwrap_err();
    assert!(near[0].hint.as_ref().unwrap().starts_with("did you mean 'mine'?"), "{near:?}");
    let text = text.replace("    model: tiny.gguf\n", "");
    assert!(resolve(&text, &[], &presets).unwrap_err()[0].message.contains("needs a model"));
}

#[test]
fn the_resolved_recipe_has_presets_and_defaults() {
    let recipe = parse(SMALL, &[]).unwrap();
    let service = &recipe.services[0];
    let health = &service.health;
    assert_eq!(health.http.as_deref(), Some("/health"));
    assert_eq!(health.every, Some("100ms".parse().unwrap()));
    assert_eq!(
        (health.deadline, health.max),
        (Some("10m".parse().unwrap()), Some("1h".parse().unwrap()))
    );
    assert_eq!(service.scheme.as_deref(), Some("http"));
    assert_eq!(service.metrics.as_ref().unwrap().path, "/metrics");
    let long = SMALL.replace("    model", "    health: {deadline: 2h}\n    model");
    assert_eq!(parse(&long, &[]).unwrap().services[0].health.max, Some("2h".parse().unwrap()));
    let short = SMALL
        .replace("llama-server\n", "vllm\n")
        .replace("    model", "    health: {max: 5m}\n    model");
    assert_eq!(parse(&short, &[]).unwrap().services[0].health.max, Some("15m".parse().unwrap()));
}

#[test]
fn what_a_sweep_sets_comes_before_presets() {
    // A recipe may not sweep the kind of a service; what resolves a point could.
    let mut resolved = resolve(SMALL, &[], Presets::built_in()).unwrap();
    resolved.set("services.llm.kind", "container".into()).unwrap();
    assert_eq!(resolved.recipe().services[0].command_line(), ["/usr/bin/llama-server"]);
    assert!(resolved.set("services.llm.gpus", "x".into()).is_err());
    assert_eq!(resolved.recipe().services[0].kind.as_str(), "container");
}

#[test]
fn a_load_finds_its_service() {
    let mut recipe = parse(SMALL, &[]).unwrap();
    assert_eq!(recipe.service_of(&recipe.load[0]).unwrap().name.as_str(), "llm");
    recipe.load[0].service = Some("none".parse().unwrap());
    assert_eq!(recipe.service_of(&recipe.load[0]), None);
}
