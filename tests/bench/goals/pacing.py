"""Goal 3: requests leave when they should."""

import json
import math
import pathlib
import statistics
import subprocess
import tempfile

from . import clients, machine, own
from .figures import absent, heading, kolmogorov_smirnov, line

RATE, SECONDS = 5000, 10

# Prints the stamps of the measured rows: planned, and first byte written.
STAMPS = """
import sys, json, pyarrow.ipc as ipc
planned, written = [], []
with ipc.open_stream(sys.argv[1]) as rows:
    for batch in rows:
        table = batch.to_pydict()
        for phase, at, lag in zip(table["phase"], table["planned_ns"], table["first_write_ns"]):
            if str(phase) == "measure" and lag is not None:
                planned.append(at); written.append(lag)
json.dump([planned, written], sys.stdout)
"""


def stamps(python, rows):
    text = subprocess.run([python, "-c", STAMPS, rows], check=True, capture_output=True, text=True).stdout
    return json.loads(text)


def run(engines):
    heading(f"Goal 3: pacing, Poisson arrivals at {RATE} requests/s for {SECONDS} s on one core")
    version, python = clients.installed("pyarrow")["pyarrow"]
    for engine in engines:
        name = f"goal 3: {engine or 'loadgen'}"
        words = ["--engine", engine] if engine else []
        halves, mosts, rates = [], [], []
        with machine.mock() as server, tempfile.TemporaryDirectory() as folder:
            for number in range(3):
                result, _ = own.measured(
                    "--driver", "http", "--url", server.url, "--path", "/health", "--rate", f"{RATE}/s",
                    "--process", "poisson", "--for", f"{SECONDS}s", "--seed", number, "--out", f"{folder}/{number}",
                    *words,
                )
                lag, counts = result["metrics"]["client_lag_seconds"], result["counts"]
                halves.append(lag["p50"] * 1e6), mosts.append(lag["p99"] * 1e6)
                rates.append(abs(counts["sent"] / counts["planned"] - 1))
            accurate = engine == engines[-1]
            goal = lambda text, met: (text, met) if accurate else (None, True)
            half, most = statistics.median(halves), statistics.median(mosts)
            line(f"{name}: send delay p50", f"{half:.1f} us", *goal("5 us or less", half <= 5))
            line(f"{name}: send delay p99", f"{most:.0f} us", *goal("100 us or less", most <= 100))
            off = max(rates)
            line(f"{name}: planned requests that were not sent", f"{off:.3%}", *goal("0.1 % or less", off <= 1e-3))
            if version == "-":
                absent(f"{name}: gaps between requests", python)
                continue
            # Of the first run only: repeating the test would find a chance difference sooner.
            _, written = stamps(python, pathlib.Path(folder, "0/worker-0.arrows"))
            written.sort()
            gaps = [(b - a) / 1e9 for a, b in zip(written, written[1:])]
            distance, p = kolmogorov_smirnov(gaps, lambda gap: 1 - math.exp(-RATE * gap))
            line(
                f"{name}: gaps of {len(gaps)} requests, KS test against Poisson",
                f"D = {distance:.4f}, p = {p:.3f}",
                *goal("p of 0.01 or more", p >= 0.01),
            )
