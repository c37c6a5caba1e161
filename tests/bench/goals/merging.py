"""Goal 6: many workers are one load: their histograms merge exactly, and they start together."""

import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import tempfile

from . import clients, histogram, machine, own
from .figures import absent, heading, line

SHARES = [0.5, 0.9, 0.99, 0.999, 0.9999]
WORKERS, RECORDS = 30, 10_000_000
PROCESSES = 8

TIMES = """
import sys, json, glob, pyarrow.ipc as ipc
times = []
for path in glob.glob(sys.argv[1] + "/worker-*.arrows"):
    with ipc.open_stream(path) as rows:
        for batch in rows:
            table = batch.to_pydict()
            for phase, outcome, planned, end in zip(table["phase"], table["outcome"], table["planned_ns"], table["end_ns"]):
                if str(phase) == "measure" and str(outcome) == "ok":
                    times.append(end - planned)
json.dump(times, sys.stdout)
"""

RECIPE = """aifb: 1
name: bench-merging
services:
  - name: web
    kind: container
    program: {loadgen}
    args: [mock, --listen, '{{host}}:{{port}}', --ttft, 5ms, --itl, 1ms]
    health: {{tcp: true}}
load:
  - name: many
    driver: openai-completions
    clients: {processes}
    arrival: {{process: poisson, rate: 800/s}}
    phases: {{measure: 5s, drain: 5s}}
    dataset: {{kind: synthetic, input_tokens: 8, output_tokens: 4}}
"""


def many_records():
    """Thirty workers of ten million requests each, of which only the histograms are left."""
    what = f"goal 6: {WORKERS} workers of {RECORDS / 1e6:.0f} M requests"
    with tempfile.TemporaryDirectory() as folder:
        with machine.mock() as server:
            own.measured(
                "--driver", "http", "--url", server.url, "--path", "/health", "--concurrency", 1, "--requests", 3,
                "--out", f"{folder}/one",
            )
        text = pathlib.Path(folder, "one/worker-0.hdr").read_text().splitlines()
        record = json.loads(next(row for row in text if row.startswith("#aifb ")).removeprefix("#aifb "))
        head = [row for row in text if not row.startswith(("#aifb ", "Tag="))]
        tags = [row.split(",")[0] for row in text if row.startswith("Tag=")]
        draw, whole = random.Random(6), {}
        load = pathlib.Path(folder, "load")
        load.mkdir()
        for rank in range(WORKERS):
            # Each has a distribution of its own, five thousand places wide.
            middle = 1e6 * (1 + rank)
            counts, left = {}, RECORDS
            for step in range(5000):
                value = int(middle * math.exp(draw.gauss(0, 0.7)))
                count = RECORDS // 5000 if step < 4999 else left
                left -= count
                place = histogram.index(value)
                counts[place] = counts.get(place, 0) + count
            for place, count in counts.items():
                whole[place] = whole.get(place, 0) + count
            record |= {"rank": rank, "size": WORKERS, "ended": True, "rows": 0, "rows_dropped": RECORDS}
            record["tally"] |= {"sent": RECORDS, "ok": RECORDS, "in_window": RECORDS}
            code = histogram.encode(counts)
            lines = [head[0], "#aifb " + json.dumps(record), *head[1:], *(f"{tag},0.000,1.000,1.0,{code}" for tag in tags)]
            (load / f"worker-{rank}.hdr").write_text("\n".join(lines) + "\n")
        plan = {
            "run_id": "bench", "folder": str(load), "point": 0, "settings": {}, "repeat": 0, "size": WORKERS,
            "endpoints": [], "model": None, "secrets": {},
            "load": {
                "name": "many", "driver": "http", "nodes": "others", "arrival": {"concurrency": WORKERS},
                "phases": {"measure": {"requests": WORKERS * RECORDS}}, "clients": WORKERS,
            },
        }
        file = pathlib.Path(folder, "plan.json")
        file.write_text(json.dumps(plan))
        # By way of a shell, which gives it its standard input.
        ran = machine.run(["sh", "-c", f"exec '{machine.LOADGEN}' merge < '{file}'"])
        if not ran.out.startswith("{"):
            return absent(what, (ran.err.strip() or str(ran.code)).splitlines()[0][:200])
        total = json.loads(ran.out)["metrics"]["total_seconds"]
    line(f"{what}: merged in", f"{ran.wall:.2f} s", "below 5 s", ran.wall < 5)
    line(f"{what}: resident set", f"{ran.rss / 1e6:.0f} MB", "below 300 MB", ran.rss < 300e6)
    line(f"{what}: requests", f"{total['count']}", f"{WORKERS * RECORDS}", total["count"] == WORKERS * RECORDS)
    names = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    off = max(abs(total[name] * 1e9 / histogram.quantile(whole, share) - 1) for name, share in names.items())
    line(f"{what}: p50 to p99 against the sum of all", f"off by {off:.4%} at most", "0.1 %", off <= 1e-3)


def together():
    """Eight processes under one coordinator on this machine, without Slurm."""
    what = f"goal 6: {PROCESSES} processes"
    dist = machine.ROOT / "target/x86_64-unknown-linux-gnu/dist"
    if not (dist / "aifb").exists():
        return absent(what, f"'{dist / 'aifb'}' is missing: make build")
    version, python = clients.installed("pyarrow")["pyarrow"]
    with tempfile.TemporaryDirectory() as folder:
        programs = pathlib.Path(folder, "bin")
        programs.mkdir()
        for program in (dist / "aifb", dist / "aifb-agent", machine.LOADGEN):
            shutil.copy2(program, programs / program.name)
        recipe = pathlib.Path(folder, "merging.yaml")
        recipe.write_text(RECIPE.format(loadgen=programs / "aifb-loadgen", processes=PROCESSES))
        ran = subprocess.run(
            [programs / "aifb", "run", "--local", recipe], cwd=folder, capture_output=True, text=True, timeout=120,
            env={**os.environ, "AIFB_RUNS": f"{folder}/runs"},
        )
        found = list(pathlib.Path(folder, "runs").glob("*/load/many/*/*/result.json"))
        if not found:
            return absent(what, (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1][:200])
        result, load = json.loads(found[0].read_text()), found[0].parent
        merged = {}
        for path in load.glob("worker-*.hdr"):
            code = next(row for row in path.read_text().splitlines() if row.startswith("Tag=total,")).rsplit(",", 1)[1]
            for place, count in histogram.decode(code).items():
                merged[place] = merged.get(place, 0) + count
        if version == "-":
            absent(f"{what}: percentiles", python)
        else:
            text = subprocess.run([python, "-c", TIMES, load], check=True, capture_output=True, text=True).stdout
            times = sorted(json.loads(text))
            rank = lambda share: times[max(1, math.ceil(share * len(times))) - 1]
            off = max(abs(histogram.quantile(merged, share) / rank(share) - 1) for share in SHARES)
            same = len(times) == sum(merged.values()) == result["counts"]["ok"]
            line(f"{what}: requests in rows, histograms, result", f"{len(times)}, {sum(merged.values())}, {result['counts']['ok']}", "equal", same)
            line(f"{what}: p50 to p99.99, histograms against rows", f"off by {off:.4%} at most", "0.1 %", off <= 1e-3)
    skew = result["client"].get("start_skew_ns")
    if skew is None:
        return absent(f"{what}: start skew", "the result has none")
    error = result["client"].get("clock_error_ns") or 0
    line(f"{what}: start skew", f"{skew / 1e3:.0f} us (clock error {error / 1e3:.0f} us)", "200 us or less", skew <= 200_000)


def run():
    heading("Goal 6: many workers are one load")
    many_records()
    together()
