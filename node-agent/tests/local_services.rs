//! Services of a local run: from the order to the end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers, too")]

mod common;

use std::{net::TcpListener, thread, time::Duration};

use common::{Answer, Run, any_file_contains, request, wait_for};

/// A service that says it is ready and stays.
fn sleeper(script: &str, more: &str) -> String {
    format!(
        "aifb: 1\nname: t\nservices:\n  - name: web\n    kind: container\n    program: /bin/sh\n    \
         args: [-c, {script:?}]\n    health: {{log: ready, every: 10ms, deadline: 5s}}\n{more}"
    )
}

const STAY: &str = "echo ready; while :; do sleep 1000 & wait; done";

#[test]
fn a_service_becomes_healthy_and_ends_in_order() {
    let mut run = Run::start(
        "aifb: 1\nname: t\nservices:\n  - {name: web-1, kind: container, program: python3, args: \
         [-m, http.server, '{port}', --bind, '{host}'], health: {http: /}}\n",
    );
    run.ready();
    let port = run.variable("SERVICE_PORT").to_owned();
    let url = format!("http://127.0.0.1:{port}");
    for (name, value) in [
        ("SERVICE_NAME", "web-1"),
        ("SERVICE_URL", &url),
        ("SERVICE_WEB_1_URL", &url),
        ("SERVICE_URLS", &url),
        ("SERVICE_HOSTNAME", "127.0.0.1"),
        ("AIFB_RUN_DIR", run.run_dir().to_str().unwrap()),
    ] {
        assert_eq!(run.variable(name), value);
    }
    assert_eq!(request(&format!("127.0.0.1:{port}"), "GET /", None).0, 200);
    assert!(run.file("services/web-1/endpoint.json").contains(&url));
    assert_eq!(run.end(), "completed");
    assert_eq!(run.record()["ended"]["signal"], "TERM");
    assert!(!run.file("nodes").contains("agent.json"));
}

/// Triton's preset with a stand-in: three ports, all different, told to the server, the script and
/// the clients.
#[test]
fn further_ports_have_names() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tritonserver");
    let script = "#!/usr/bin/env python3\nimport http.server, sys\n\
        args = dict(word.lstrip('-').split('=', 1) for word in sys.argv[1:])\n\
        print(args, flush=True)\n\
        handler = http.server.SimpleHTTPRequestHandler\n\
        handler.do_GET = lambda self: (self.send_response(200), self.end_headers())\n\
        http.server.HTTPServer((args['http-address'], int(args['http-port'])), handler).serve_forever()\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = Run::start(&format!(
        "aifb: 1\nname: t\nservices:\n  - {{name: tri, kind: triton, program: {}, model: /models, \
         health: {{every: 10ms}}}}\n",
        program.display()
    ));
    run.ready();
    let ports = ["", "_GRPC", "_METRICS"]
        .map(|name| run.variable(&format!("SERVICE_TRI_PORT{name}")).to_owned());
    assert_eq!(run.variable("SERVICE_PORT_GRPC"), ports[1]);
    let different: std::collections::BTreeSet<&String> = ports.iter().collect();
    assert_eq!(different.len(), 3, "{ports:?}");
    let seen = run.file("services/tri/stdout.log");
    for (argument, port) in ["http-port", "grpc-port", "metrics-port"].iter().zip(&ports) {
        assert!(seen.contains(&format!("'{argument}': '{port}'")), "{seen}");
    }
    assert!(seen.contains("'model-repository': '/models'"), "{seen}");
    let endpoint: serde_json::Value =
        serde_json::from_str(&run.file("services/tri/endpoint.json")).unwrap();
    assert_eq!(endpoint["ports"]["grpc"].to_string(), ports[1]);
    assert_eq!(run.end(), "completed");
}

#[test]
fn a_service_that_exits_at_once_fails_the_run_with_its_last_words() {
    let mut run = Run::start(&sleeper("echo no such model >&2; exit 3", ""));
    let (code, text) = run.failure();
    assert_eq!(code, 4);
    for part in ["web: exited with code 3", "(cause: service)", "| no such model", "run folder: /"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(run.wait(), 4);
    run.assert_nothing_left();
    let record = run.record();
    assert_eq!(record["state"], "failed");
    assert_eq!(record["failure"]["owner"], "service");
    assert_eq!(record["failure"]["log_tail"], "no such model\n");
}

#[test]
fn a_service_that_is_never_healthy_fails_at_its_deadline() {
    let recipe = sleeper("sleep 1000", "").replace("5s", "300ms");
    let mut run = Run::start(&recipe);
    let (code, text) = run.failure();
    assert_eq!(code, 4);
    assert!(text.contains("not healthy after") && text.contains("'ready'"), "{text}");
    run.wait();
    run.assert_nothing_left();
}

#[test]
fn a_service_that_ignores_sigterm_is_killed() {
    let mut run = Run::start(&sleeper(&format!("trap '' TERM; {STAY}"), "    stop: 300ms\n"));
    run.ready();
    assert_eq!(run.end(), "completed");
}

#[test]
fn what_a_service_forks_away_does_not_survive_it() {
    // The daemon has its own session and no parent when the service ends.
    let daemon = "setsid sh -c 'trap \"\" TERM HUP; echo ready; exec sleep 1111' & sleep 1000";
    let mut run = Run::start(&sleeper(&format!("({daemon}) & wait"), ""));
    run.ready();
    run.process("sleep 1111");
    assert_eq!(run.end(), "completed");
}

#[test]
fn a_service_must_stay_in_the_foreground() {
    let mut run = Run::start(&sleeper("echo started; setsid sleep 1112 & exit 0", ""));
    let (_, text) = run.failure();
    assert!(text.contains("exited with code 0") && text.contains("foreground"), "{text}");
    run.wait();
    run.assert_nothing_left();
}

#[test]
fn a_fixed_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut run = Run::start(&sleeper(STAY, &format!("    port: {port}\n")));
    let (code, text) = run.failure();
    assert_eq!(code, 4);
    assert!(text.contains(&format!("port {port} is in use on node")), "{text}");
}

#[test]
fn a_free_port_that_was_lost_is_replaced() {
    let script = "if [ -e '{data}/tried' ]; then echo ready on {port}; exec sleep 1000; fi; touch \
                  '{data}/tried'; echo 'bind: Address already in use' >&2; exit 1";
    let mut run = Run::start(&sleeper(script, ""));
    run.ready();
    assert_eq!(run.end(), "completed");
    let starts = run.told().iter().filter(|line| line.contains(": started")).count();
    assert_eq!(starts, 2, "{:?}", run.told());
}

#[test]
fn restarts_stop_at_their_limit() {
    let mut run = Run::start(&sleeper("echo again >&2; exit 9", "    restart: on-failure\n"));
    let (_, text) = run.failure();
    assert!(text.contains("given up after 3 restarts"), "{text}");
    let restarts: Vec<String> =
        run.told().into_iter().filter(|line| line.contains("restart ")).collect();
    assert_eq!(restarts.len(), 3, "{restarts:?}");
}

#[test]
fn a_restarted_service_keeps_its_port_and_the_run_goes_on() {
    let script = "echo ready; touch '{data}/up'; while [ ! -e '{data}/die' ]; do sleep 0.05; done; \
                  rm '{data}/die'; exit 1";
    let mut run = Run::start(&sleeper(script, "    restart: on-failure\n"));
    run.ready();
    std::fs::write(run.run_dir().join("services/web/data/die"), "").unwrap();
    wait_for("the second health", || {
        let healthy = run.told().into_iter().filter(|line| line.contains("healthy at"));
        let urls: Vec<String> = healthy.collect();
        (urls.len() == 2).then(|| assert_eq!(urls[0], urls[1]))
    });
    assert_eq!(run.end(), "completed");
}

#[test]
fn services_start_one_after_the_other_when_asked() {
    let service = |name: &str| {
        format!(
            "  - {{name: {name}, kind: container, program: /bin/sh, args: [-c, 'sleep 0.2; echo \
             ready; exec sleep 1000'], health: {{log: ready, every: 10ms}}}}\n"
        )
    };
    let recipe = format!(
        "aifb: 1\nname: t\nstart: sequential\nservices:\n{}{}",
        service("first"),
        service("second")
    );
    let mut run = Run::start(&recipe);
    run.ready();
    run.end();
    let told = run.told();
    let at = |words: &str| told.iter().position(|line| line.starts_with(words)).unwrap();
    assert!(at("first: healthy") < at("second: started"), "{told:?}");
    assert!(at("second: stopped") < at("first: stopped"), "{told:?}");
}

#[test]
fn a_missing_program_is_the_recipes_failure() {
    let recipe = sleeper(STAY, "").replace("/bin/sh", "/no/such/program");
    let mut run = Run::start(&recipe);
    let (code, text) = run.failure();
    assert_eq!(code, 2);
    assert!(text.contains("program '/no/such/program'"), "{text}");
}

#[test]
fn a_missing_image_is_the_recipes_failure() {
    // A stand-in for the runtime: it must be found before the image is looked for.
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("apptainer");
    std::fs::write(&runtime, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let recipe = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, image: none.sif}\n";
    let mut run = Run::start_with(recipe, &[], &[("PATH", &path)]);
    let (code, text) = run.failure();
    assert_eq!(code, 2);
    assert!(text.contains("none.sif': No such file"), "{text}");
}

#[test]
fn secrets_reach_the_service_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "very-secret-value\n").unwrap();
    let script = "test ${#API_KEY} = 17 && test \"$(cat {secret:API_KEY})\" = \"$API_KEY\" && echo \
                  ready; exec sleep 1000";
    let env = format!("    env: {{API_KEY: {{secret_file: {}}}}}\n", file.display());
    let mut run = Run::start(&sleeper(script, &env));
    run.ready();
    assert_eq!(run.end(), "completed");
    assert_eq!(any_file_contains(run.folder.path(), "very-secret-value"), None);
}

#[test]
fn a_service_sees_the_jobs_environment_without_slurms() {
    let variables = [("SLURM_NTASKS", "4"), ("MY_OWN", "kept"), ("AIFB_RUN_ID", "other")];
    let recipe = sleeper("env | sort; echo ready; exec sleep 1000", "");
    let mut run = Run::start_with(&recipe, &[], &variables);
    run.ready();
    run.end();
    let seen = run.file("services/web/stdout.log");
    assert!(seen.contains("MY_OWN=kept"), "{seen}");
    // Whoever runs the tests may have told them where to keep things.
    let mut names = seen.lines().filter(|line| !line.starts_with("AIFB_CACHE="));
    assert!(!names.any(|line| line.starts_with("SLURM") || line.starts_with("AIFB_")), "{seen}");
}

#[test]
fn an_external_service_is_only_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let recipe = format!(
        "aifb: 1\nname: t\nservices:\n  - {{name: a, kind: external, url: 'http://{address}'}}\n"
    );
    let mut run = Run::start(&recipe);
    run.ready();
    assert_eq!(run.variable("SERVICE_URL"), format!("http://{address}"));
    assert_eq!(run.end(), "completed");
}

#[test]
fn nobody_waits_in_mode_none() {
    let recipe = sleeper("sleep 0.5; echo ready; exec sleep 1000", "");
    let mut run = Run::start_with(&recipe, &["--wait", "none"], &[]);
    assert_eq!(run.answer(), Answer::Ready);
    assert!(run.variables.iter().all(|(name, _)| !name.starts_with("SERVICE_")));
    wait_for("health", || (run.state() == "healthy").then_some(()));
    assert_eq!(run.end(), "completed");
}

#[test]
fn an_exec_probe_is_asked_until_it_says_yes() {
    let recipe = sleeper(STAY, "").replace(
        "{log: ready, every: 10ms, deadline: 5s}",
        "{exec: [test, -e, '{data}/good'], every: 50ms}",
    );
    let mut run = Run::start(&recipe);
    run.process("sleep 1000");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(run.state(), "starting");
    std::fs::write(run.run_dir().join("services/web/data/good"), "").unwrap();
    run.ready();
    assert_eq!(run.end(), "completed");
}

/// A stand-in for Apptainer: `pull` makes a file, everything else runs the command behind the
/// image with the variables that a container would see.
const RUNTIME: &str = r#"#!/bin/sh
echo "$@" >>"$CALLS"
if [ "$1" = pull ]; then sleep 0.3; echo image >"$2"; exit; fi
while [ "${1%.sif}" = "$1" ]; do shift; done; shift
echo "FOO=$APPTAINERENV_FOO HOME=$HOME"
exec "$@"
"#;

/// A folder with the stand-in, and the variables that lead to it.
fn runtime() -> (tempfile::TempDir, Vec<(String, String)>) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("apptainer");
    std::fs::write(&runtime, RUNTIME).unwrap();
    std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let variables = [
        ("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap())),
        ("CALLS", path("calls")),
        ("AIFB_CACHE", path("cache")),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    (folder, variables)
}

#[test]
fn an_image_is_fetched_once_and_run_in_the_foreground() {
    let (folder, variables) = runtime();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let service = |name: &str| {
        format!(
            "  - {{name: {name}, kind: container, image: 'docker://a/b:1', command: [sh, -c, 'echo \
             ready; exec sleep 1000'], env: {{FOO: 'a $(b) {{port}}'}}, health: {{log: ready, every: \
             10ms, deadline: 5s}}}}\n"
        )
    };
    let recipe = format!("aifb: 1\nname: t\nservices:\n{}{}", service("one"), service("two"));
    for _ in 0..2 {
        let mut run = Run::start_with(&recipe, &[], &variables);
        run.ready();
        let port = run.variable("SERVICE_PORT").to_owned();
        let seen = run.file("services/one/stdout.log");
        assert!(seen.contains(&format!("FOO=a $(b) {port} HOME=")), "{seen}");
        assert_eq!(run.end(), "completed");
    }
    let calls = std::fs::read_to_string(folder.path().join("calls")).unwrap();
    let pulls = calls.lines().filter(|line| line.starts_with("pull ")).count();
    assert_eq!(pulls, 1, "{calls}");
    let start = calls.lines().find(|line| line.contains(" exec ")).unwrap();
    for part in ["--cleanenv", "--home ", "--bind ", ":/tmp --bind ", ".sif sh -c"] {
        assert!(start.contains(part), "{start}");
    }
    assert!(!start.contains("--nv"), "{start}");
    let scratch: Vec<&str> =
        start.split(' ').filter_map(|word| word.strip_suffix(":/tmp")).collect();
    assert!(!std::path::Path::new(scratch[0]).exists(), "{scratch:?} was left");
}

#[test]
fn a_failed_fetch_is_told_with_the_reference() {
    let (folder, variables) = runtime();
    std::fs::write(folder.path().join("apptainer"), "#!/bin/sh\necho no network >&2; exit 255\n")
        .unwrap();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let recipe =
        "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, image: 'docker://a/b:1'}\n";
    let mut run = Run::start_with(recipe, &[], &variables);
    let (code, text) = run.failure();
    assert_eq!(code, 4);
    for part in ["fetching image 'docker://a/b:1'", "code 255", "hint: fetch it on a machine"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(run.file("services/a/stderr.log"), "no network\n");
}

#[test]
fn without_a_runtime_the_node_is_to_blame() {
    let empty = tempfile::tempdir().unwrap();
    for program in ["sh", "sleep"] {
        std::os::unix::fs::symlink(format!("/bin/{program}"), empty.path().join(program)).unwrap();
    }
    let recipe = "aifb: 1\nname: t\nservices:\n  - {name: a, kind: container, image: x.sif}\n";
    let path = empty.path().display().to_string();
    let mut run = Run::start_with(recipe, &[], &[("PATH", &path)]);
    let (code, text) = run.failure();
    assert_eq!(code, 5);
    assert!(
        text.contains("no apptainer or singularity on PATH") && text.contains("module"),
        "{text}"
    );
}
