//! Workers of a run that do not reach their agent meet through files of the run folder.

use std::fs;

use serde_json::Value;

use super::{LOAD, Local, recipe, text};

/// The agent's record names a socket that nobody listens on, as it is for a process in a network
/// namespace of its own. `start RANK SIZE OPTIONS` starts a worker whose output is in `outRANK`.
const UNREACHED: &str = r#"
sed -i 's/"socket": *"[^"]*"/"socket":"nobody-listens-here"/' "$AIFB_RUN_DIR"/nodes/*/agent.json
start() {
    rank=$1 size=$2
    shift 2
    AIFB_LOCAL_STEP=s AIFB_LOCAL_RANK=$rank AIFB_LOCAL_SIZE=$size aifb-loadgen "$@" >out$rank 2>&1
}
"#;

#[test]
fn workers_that_do_not_reach_their_agent_are_one_load() {
    let rules = LOAD.replace("hits", "rules").replace("load:\n", "") + "    stop: {errors: 5}\n";
    let loads = (LOAD.to_owned() + &rules).replace("MEASURE", "2s");
    // Nobody can tell the workers a secret.
    let local = Local::new(&recipe("", &loads).replace("    env: {TOKEN: generate}\n", ""));
    let script = format!(
        "{UNREACHED}
        start 1 2 --load hits & other=$!
        start 0 2 --load hits; echo $? >codes
        wait $other; echo $? >>codes
        mv out0 first0; mv out1 first1
        start 0 2 --load hits; echo $? >>codes; mv out0 again
        start 0 2 --load rules; echo $? >>codes; mv out0 rules
        start 0 1 --load hits --repeat 1 --strict; echo $? >>codes"
    );
    let output = local.run(&["run", "--local", "x.yaml", "--", "sh", "-c", &script]);
    let of = |name: &str| fs::read_to_string(local.folder.path().join(name)).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    // Both; a repeat that is there; rules that nobody could judge; and a doubt where --strict asks.
    assert_eq!(of("codes"), "0\n0\n5\n5\n6\n", "{}{}{}", of("first0"), of("first1"), of("out0"));
    assert!(of("again").contains("hint: name another repeat: --repeat N"), "{}", of("again"));
    let rules = of("rules");
    assert!(rules.contains("connecting to the agent on node") && rules.contains("rules of 'stop'"));

    let folder = local.only_run().unwrap().join("load/hits/p0/r0");
    let result: Value =
        serde_json::from_slice(&fs::read(folder.join("result.json")).unwrap()).unwrap();
    assert_eq!((&result["plan"]["workers"], &result["complete"]), (&2.into(), &true.into()));
    let counts = &result["counts"];
    assert_eq!(
        (&counts["planned"], &counts["sent"], &counts["ok"]),
        (&100.into(), &100.into(), &100.into())
    );
    assert!(result["client"]["start_skew_ns"].is_u64(), "{result:#}");
    let verdicts = result["verdicts"].as_array().unwrap();
    let met = verdicts.iter().find(|verdict| verdict["kind"] == "met_by_files").unwrap();
    let message = met["message"].as_str().unwrap();
    assert!(message.contains("refused") && message.contains("no live metrics"), "{message}");
    // It is a part of the run like any other.
    let report = local.run(&["report", "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&report)));
    assert_eq!(report["results"].as_array().unwrap().len(), 2, "{report:#}");
    local.nothing_left();
    // And its result can be made again from the files, with what it says of itself.
    fs::remove_file(folder.join("result.json")).unwrap();
    let report = local.run(&["report", "--json"]);
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert_eq!(report.matches("met_by_files").count(), 2, "{report}");
}
