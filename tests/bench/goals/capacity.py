"""Goal 9: the largest load within limits, against servers whose capacity is known."""

import pathlib
import json
import tempfile
import time

from . import clients, machine, own
from .figures import absent, heading, line

# Slots, time to first token, gap and tokens of a server, and the seconds of a probe.
SERVERS = [
    (10, 0.100, 0.0, 1, 5),
    (32, 0.050, 0.010, 20, 5),
]


def ours():
    for slots, ttft, itl, tokens, probe in SERVERS:
        service = ttft + (tokens - 1) * itl
        truth = slots / service
        what = f"goal 9: {slots} slots of {service * 1e3:.0f} ms, {truth:.1f}/s"
        with machine.mock("--slots", slots, "--ttft", f"{ttft * 1e3:.0f}ms", "--itl", f"{itl * 1e3:.0f}ms", "--tokens", tokens) as server:
            begun = time.monotonic()
            try:
                result, _ = own.measured(
                    "--driver", "openai-chat", "--url", server.url, "--search", "ttft_p99=1s", "--from", f"{truth / 10:.0f}/s",
                    "--to", f"{truth * 10:.0f}/s", "--process", "constant", "--warmup", "500ms", "--for", f"{probe}s",
                )
            except own.NoResult as failed:
                absent(what, str(failed))
                continue
            took = time.monotonic() - begun
        search = result["search"]
        found, probes = search.get("capacity"), len(search["probes"])
        if found is None:
            line(f"{what}: found", f"nothing: {search['reason']}", "+-3 %", False)
            continue
        off = found / truth - 1
        line(f"{what}: found", f"{found:.1f}/s ({off:+.1%})", "+-3 %", abs(off) <= 0.03)
        line(f"{what}: probes, time", f"{probes}, {took:.0f} s", "10, 120 s", probes <= 10 and took <= 120)


def aiperf():
    """AIPerf's own search, over concurrencies, on the first of the servers."""
    slots, ttft, itl, tokens, _ = SERVERS[0]
    truth = slots / (ttft + (tokens - 1) * itl)
    version, place = clients.installed("aiperf")["aiperf"]
    if version == "-":
        return absent("  AIPerf's search", place)
    with machine.mock("--slots", slots, "--ttft", f"{ttft * 1e3:.0f}ms", "--itl", f"{itl * 1e3:.0f}ms", "--tokens", tokens) as server, \
            tempfile.TemporaryDirectory() as folder:
        ran = machine.run(
            [pathlib.Path(place, "aiperf"), "profile", "--model", "m", "--url", server.url, "--endpoint-type", "completions",
             "--streaming", "--prompt-input-tokens-mean", 8, "--prompt-output-tokens-mean", tokens, "--use-legacy-max-tokens",
             "--tokenizer", clients.tokenizer(), "--workers-max", 1, "--record-processor-service-count", 1,
             "--use-server-token-count", "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics",
             "--output-artifact-dir", folder, "--search-space", "concurrency:1,1000:int",
             "--search-metric", "request_throughput", "--search-stat", "avg", "--search-direction", "maximize",
             "--search-sla", "time_to_first_token:p99:le:1000", "--search-max-iterations", 10,
             "--benchmark-duration", 5],
            env={"NO_COLOR": "1"},
            cwd=folder,
        )
        found = [json.loads(path.read_text()) for path in pathlib.Path(folder).rglob("profile_export_aiperf.json")]
    best = max(((result.get("request_throughput") or {}).get("avg") or 0 for result in found), default=0)
    if not best:
        return absent(f"  AIPerf {version}'s search", clients.plain(ran.out + ran.err)[-160:])
    line(f"  AIPerf {version}'s search, {len(found)} probes", f"{best:.1f}/s ({best / truth - 1:+.1%}), {ran.wall:.0f} s")


def run():
    heading("Goal 9: search for the largest load with a p99 of the time to first token of 1 s")
    ours()
    aiperf()
