//! docs/reference/result.md and metrics.md: made from the types and from the table of metric
//! families, so that no key lacks its meaning. `AIFB_BLESS=1 cargo test -p aifb report` writes
//! them.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use aifb_schema::{
    metric,
    result::{LoadResult, Report, SeriesPoint},
};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

const RESULT_INTRODUCTION: &str = "\
# Results and reports, version 1

Made from the types by a test (`AIFB_BLESS=1 cargo test -p aifb report`); do not edit.

A load writes `load/<name>/p<point>/r<repeat>/result.json` in the run folder when a repeat ends, and
`series.jsonl` beside it: a line for each second. Each worker leaves `worker-<rank>.arrows` (a row
for each request, Arrow IPC; its columns: [rows](rows.md)), `worker-<rank>.hdr` (its sums and histograms) and
`worker-<rank>.jsonl` (its seconds), all readable at any instant.
`aifb report` reads the run folder, prints the report and keeps it as `report.json` there (and as
`report.txt` where the recipe's `report` lists `text`); `aifb report --json` prints the same JSON.
Every number can be computed again from the run folder.

- A key that is absent was not measured or does not apply; it is never 0 instead.
- Units are in the names: `_seconds`, `_bytes`, `_per_second`, `_ratio` (0 to 1), `_ns`
  (nanoseconds), `_epoch_ns` (nanoseconds since 1970, UTC), `_mono_ns` (CLOCK_MONOTONIC of a node).
  What has none of these is a count, a number or a word.
- `sent = ok + failed + cancelled + unfinished`, always. With a planned arrival process also
  `planned = sent + unsent`. The warm-up is in none of them.
- Times of a request count from the instant at which it was planned, not from the one at which it
  could be sent, unless the meaning says otherwise.
- Percentile p of n values is the smallest value that at least p % of them do not exceed: one that
  was measured, from the request rows where these are complete, else from histograms of three
  significant digits; `source` says which.
- A new key may be added within a version: a reader passes over keys that it does not know.

## Conversion: what other programs print

Equal names mean different things. All of these are computed from the same stamps of the same
requests and stand beside ours in `comparable`. P is the planned instant, Q the instant at which
the client takes the request up, S the first byte written, A1 and Ak the first and last event with a
choice (content or not), C1 and Ck the first and last content (text, reasoning or a tool call), R1
and Rk the first and last event, D the mark that ends the stream (or the end of the body), n the
output tokens.

| program | its metric | formula | ours | beside it |
|---|---|---|---|---|
| vLLM `bench serve` | TTFT | A1 − Q: an event without content counts | `ttft_seconds` = C1 − P | `ttft_vllm_seconds` |
| | TPOT | (Ak − A1)/(n − 1) | `tpot_seconds` = (Ck − C1)/(n − 1) | `tpot_vllm_seconds` |
| | ITL | gaps between events with a choice | `inter_token_seconds`: gaps between content events | `itl_vllm_seconds` |
| | E2EL | Ak − Q | `e2e_seconds` = Ck − P | `e2e_vllm_seconds` |
| | request goodput | by these times ÷ first request to last answer | `goodput_per_second`: ÷ measured part | `goodput_vllm_per_second` |
| sglang `bench_serving` | TTFT | C1 − Q | `ttft_seconds` | `ttft_sglang_seconds` |
| | TPOT, E2E | (D − C1)/(n − 1), D − Q | `tpot_seconds`, `e2e_seconds` | `tpot_sglang_seconds`, `e2e_sglang_seconds` |
| | goodput ratio | good ÷ sent | `attainment_ratio`: good ÷ due | `attainment_sglang_ratio` |
| AIPerf | TTFT | C1 − Q | `ttft_seconds` | `ttft_sglang_seconds` |
| | ITL | (Ck − C1)/(n − tokens of the first chunk) | `tpot_seconds` | `itl_aiperf_seconds` |
| | ICL | gaps between content events | `inter_token_seconds` | the same |
| | request latency | Ck − Q | `e2e_seconds` | `e2e_aiperf_seconds` |
| genai-perf | TTFT, ITL | R1 − Q, (Rk − R1)/(n − 1) | `ttft_seconds`, `tpot_seconds` | `ttft_genai_seconds`, `itl_genai_seconds` |
| GuideLLM | TTFT, ITL | C1 − Q, (Ck − C1)/(n − 1) | `ttft_seconds`, `tpot_seconds` | `ttft_sglang_seconds`, `tpot_seconds` |
| | TPOT | (Ck − Q)/n, the first token is in it | | `tpot_guidellm_seconds` |
| inference-perf | TTFT, TPOT | C1 − Q, (D − C1)/(n − 1) | `ttft_seconds`, `tpot_seconds` | `ttft_sglang_seconds`, `tpot_sglang_seconds` |
| | ITL | gap of a chunk ÷ its tokens | `inter_token_seconds` | `itl_infperf_seconds`, with the request's mean of tokens a chunk |
| | NTPOT | (D − Q)/n | | `ntpot_seconds` |
| MLPerf loadgen | TTFT, TPOT, latency | C1 − P, (D − C1)/(n − 1), D − P | `ttft_seconds`, `tpot_seconds`, `total_seconds` | `ttft_mlperf_seconds`, `tpot_mlperf_seconds`, `latency_mlperf_seconds`; its percentile is the value of index ⌊n·p⌋ |

Percentiles of these come from histograms of three digits. `compatible` has the main figures under
the names `response_time`, `throughput`, `time_to_first_token` and `tokens_generated_per_second`,
with average, median, minimum, maximum, standard deviation and interpolated percentiles.

Exit code of `aifb report`: that of the run where it failed or was ended from outside, else 5 when
a result is missing or incomplete, else 1 when no request of a load succeeded, else 6 when there is
a verdict and `--strict` or the load's `verdicts: fail` asks for it, else 0.
";

const METRICS_INTRODUCTION: &str = "\
# Metrics, version 1

Made from the table of metric families by a test (`AIFB_BLESS=1 cargo test -p aifb report`); do
not edit.

Every agent records these once a sampling interval in `nodes/<node>/samples.bin` (raw counters,
without the prefix `aifb_`) and shows the last sample on `GET /metrics`, in OpenMetrics 1.0 for who
asks for it and else in the text format 0.0.4. Series of the whole run (`aifb_run_info`, requests,
tokens) are on `/metrics` only. Where the recipe says so, all of them are also sent by remote write.
A service's own metrics keep their names and stand as `engine/<name>` in `samples.bin`; see
[monitoring](../user/monitoring.md).

- Every series that leaves the node also has the labels `run_id`, `node` and, in a Slurm job, `job`.
- A value that cannot be read is absent, never 0; `aifb_agent_source_absent_info` says what is
  absent and why.
- Counters begin with what they count: those of a node at its boot, those of a step, a service or
  the agent at 0.
- GPUs and devices are read beside the tick: their values are of their newest reading, for GPUs
  `aifb_gpu_reading_age_seconds` before the sample ([how](../user/sampling.md)).
- Services are sums over their process trees, the agent is counted apart, and a step is what the
  kernel accounts to its cgroup (`source=\"cgroup\"`) or, where the controller is missing, the sum
  over its processes (`source=\"processes\"`).

| name | type | unit | labels | meaning |
|---|---|---|---|---|
";

/// A table for every type that the document has, the outermost first.
fn result_page() -> String {
    let mut page = RESULT_INTRODUCTION.to_owned();
    let mut told = BTreeSet::new();
    add_type::<Report>(&mut page, "report.json", &mut told);
    add_type::<LoadResult>(&mut page, "result.json", &mut told);
    add_type::<SeriesPoint>(&mut page, "series.jsonl", &mut told);
    page
}

fn add_type<T: JsonSchema>(page: &mut String, title: &str, told: &mut BTreeSet<String>) {
    let schema = schema_for!(T).to_value();
    add_section(page, title, &schema);
    told.insert(T::schema_name().into_owned());
    let types = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, of) in types.iter().filter(|(name, _)| *name != "LoadResult") {
        if told.insert(name.clone()) {
            add_section(page, name, of);
        }
    }
}

fn add_section(page: &mut String, title: &str, of: &Value) {
    write!(page, "\n## {title}\n\n{}\n", meaning(of)).unwrap();
    if let Some(words) = of.get("oneOf").and_then(Value::as_array) {
        page.push('\n');
        for word in words {
            writeln!(page, "- `{}`: {}", word["const"].as_str().unwrap(), meaning(word)).unwrap();
        }
        return;
    }
    let required: Vec<&str> = of["required"]
        .as_array()
        .map_or(Vec::new(), |names| names.iter().filter_map(Value::as_str).collect());
    page.push_str("\n| key | value | unit | always | meaning |\n|---|---|---|---|---|\n");
    for (key, value) in of["properties"].as_object().unwrap() {
        let always = if required.contains(&key.as_str()) { "yes" } else { "" };
        let (kind, unit) = (kind(value), unit(title, key));
        let meaning = meaning(value);
        writeln!(page, "| `{key}` | {kind} | {unit} | {always} | {meaning} |").unwrap();
    }
}

/// The description on one line; every key must have one.
fn meaning(of: &Value) -> String {
    let text = of["description"].as_str().unwrap_or_else(|| panic!("no description: {of:#}"));
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    plain_links(&line)
}

/// Rust's links between items mean nothing to a reader: [`names::PROTOCOL`] is `PROTOCOL`.
fn plain_links(text: &str) -> String {
    let mut plain = String::new();
    for (at, part) in text.split("[`").enumerate() {
        let (name, rest) = if at == 0 { ("", part) } else { part.split_once("`]").unwrap() };
        if at > 0 {
            write!(plain, "`{}`", name.rsplit("::").next().unwrap()).unwrap();
        }
        plain.push_str(rest);
    }
    plain
}

fn kind(of: &Value) -> String {
    if let Some(target) = of["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap();
        return if name == "LoadResult" {
            "[result.json](#resultjson)".into()
        } else {
            format!("[{name}](#{})", name.to_lowercase())
        };
    }
    if let Some(choices) = of["anyOf"].as_array() {
        let some = choices.iter().find(|choice| choice["type"] != "null");
        return kind(some.unwrap());
    }
    let name = of["type"].as_str().or_else(|| of["type"][0].as_str()).unwrap_or("any");
    match name {
        "array" if of.get("items").is_some() => format!("list of {}", kind(&of["items"])),
        "array" => "pair".into(),
        "object" if of["additionalProperties"].is_object() => {
            format!("map to {}", kind(&of["additionalProperties"]))
        }
        "string" => "text".into(),
        "boolean" => "true or false".into(),
        other => other.into(),
    }
}

fn unit(of: &str, key: &str) -> &'static str {
    let by_name = [
        ("_epoch_ns", "ns since 1970"),
        ("_epoch_s", "s since 1970"),
        ("epoch_ns", "ns since 1970"),
        ("_ns", "ns"),
        ("_us_per_token", "µs"),
        ("_per_second", "1/s"),
        ("_seconds", "s"),
        ("seconds", "s"),
        ("seconds_to_limit", "s"),
        ("_bytes", "bytes"),
        ("_ratio", "0 to 1"),
    ];
    match of {
        "Distribution" if key == "count" => "",
        "Distribution" => "of its key",
        _ => by_name.iter().find(|(end, _)| key.ends_with(end)).map_or("", |(_, unit)| unit),
    }
}

fn metrics_page() -> String {
    let mut page = METRICS_INTRODUCTION.to_owned();
    for family in metric::ALL {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            page,
            "| `{}{}` | {} | {} | {} | {} |",
            metric::PREFIX,
            family.name,
            family.kind.as_str(),
            family.unit.unwrap_or(""),
            labels.join(", "),
            family.help
        )
        .unwrap();
    }
    page
}

#[test]
fn the_pages_are_those_of_the_types() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    for (name, page) in [("result.md", result_page()), ("metrics.md", metrics_page())] {
        let path = folder.join(name);
        if std::env::var_os("AIFB_BLESS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &page).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == page, "{} is old: AIFB_BLESS=1 writes it", path.display());
    }
}

#[test]
fn every_link_has_its_section() {
    let page = result_page();
    for link in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        let found = page
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .any(|title| title.to_lowercase().replace('.', "") == link);
        assert!(found, "{link}");
    }
}
