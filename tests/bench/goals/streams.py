"""Goals 1 and 2: what a token costs, and how true the times are, with many streams on one core."""

import os
import statistics

from . import clients, machine
from .clients import Load
from .figures import absent, heading, line, spread

TTFT, ITL = 0.050, 0.020
STREAMS = [int(n) for n in os.environ.get("AIFB_BENCH_STREAMS", "100,500,1000,2000").split(",")]
# At more the Python peers deliver a fraction of the load.
HEAVY_STREAMS_MAX = 500
HEAVY = {"aiperf", "inference-perf"}
# Rounds of peers that take ten seconds to start and stop.
HEAVY_ROUNDS = 2


def measure(ready, ours, streams):
    """All clients in turn, round by round, the first round dropped; reports by client."""
    everyone = {**{client.name: client for client in ours}}
    everyone |= {name: peer for name, peer in ready.items() if name not in HEAVY}
    heavy = {name: peer for name, peer in ready.items() if name in HEAVY and streams <= HEAVY_STREAMS_MAX}
    load = lambda server, requests: Load(server.url, streams, requests)
    reports, failures = {}, {}
    with machine.mock("--ttft", f"{TTFT * 1e3:.0f}ms", "--itl", f"{ITL * 1e3:.0f}ms", files=65536) as server:
        for number in range(machine.ROUNDS):
            turn = everyone if number >= HEAVY_ROUNDS else everyone | heavy
            for name, client in turn.items():
                try:
                    report = client.run(load(server, 3 * streams))
                except clients.Failed as failed:
                    failures[name] = str(failed)
                    continue
                # The heavy peers' few rounds all count.
                if number or name in HEAVY or machine.ROUNDS == 1:
                    reports.setdefault(name, []).append(report)
        # What starting and stopping costs them is not a token's cost.
        fixed = {}
        for name, client in heavy.items():
            try:
                fixed[name] = client.run(load(server, streams))
            except clients.Failed as failed:
                failures[name] = str(failed)
    return everyone | heavy, reports, fixed, failures


def cost(name, report, fixed):
    """Microseconds of CPU for each token; of the heavy peers what a further token costs."""
    cpu, tokens = report.ran.cpu, report.tokens
    if name in fixed:
        cpu, tokens = cpu - fixed[name].ran.cpu, tokens - fixed[name].tokens
    return cpu / max(tokens, 1) * 1e6


def rows(streams, measured):
    everyone, reports, fixed, failures = measured
    offered = streams * clients.TOKENS / (TTFT + (clients.TOKENS - 1) * ITL)
    heading(f"{streams} streams, {offered / 1e3:.1f} k tokens/s offered: time to first token {TTFT * 1e3:.0f} ms, gap {ITL * 1e3:.0f} ms")
    print(f"{'client':<30} {'k tok/s':>8} {'ok/failed':>12} {'TTFT error p50 / p99 ms':>26} {'ITL error p50 / p99 ms':>26} {'us CPU/token':>22} {'MB':>6}")
    costs = {}
    for name, client in everyone.items():
        if name not in reports:
            print(f"{client.name:<30} no figures: {failures.get(name, 'it was not run')}")
            continue
        kept = reports[name]
        middle = lambda of: statistics.median(of(report) for report in kept)
        costs[name] = [cost(name, report, fixed) for report in kept]
        error = lambda which, truth: " / ".join(
            f"{(middle(lambda r, at=at: which(r)[at]) - truth) * 1e3:.2f}" for at in (0, 1)
        )
        print(
            f"{client.name + ' ' + client.version:<30} {middle(lambda r: r.tokens_per_second) / 1e3:>8.1f} "
            f"{sum(r.ok for r in kept):>6}/{sum(r.failed for r in kept):<5} "
            f"{error(lambda r: r.ttft, TTFT):>26} {error(lambda r: r.itl, ITL):>26} "
            f"{spread(costs[name]):>22} {middle(lambda r: r.ran.rss) / 1e6:>6.0f}",
            flush=True,
        )
    return costs


def goals(streams, measured, costs, ours):
    everyone, reports, _, failures = measured
    best = min((client.name for client in ours if client.name in costs), key=lambda n: statistics.median(costs[n]), default=None)
    if best is None:
        for client in ours:
            absent(f"{client.name}: goals 1 and 2", failures.get(client.name, "not run"))
        return
    own = statistics.median(costs[best])
    for name, factor, at in [("sglang", 1.5, 2000), ("vllm", 7, 500), ("aiperf", 10, 500), ("inference-perf", 10, 500)]:
        if name not in costs:
            if name in failures:
                absent(f"goal 1: CPU per token, ratio to {name}", failures[name])
            continue
        ratio = statistics.median(costs[name]) / own
        what = f"goal 1: CPU per token, {everyone[name].name} / {best} at {streams}"
        line(what, f"{ratio:.1f}", f"{factor} or more" if streams == at else None, streams != at or ratio >= factor)
    if streams != 2000:
        return
    for client in ours:
        if client.name not in reports:
            absent(f"{client.name} at {streams}", failures.get(client.name, "not run"))
            continue
        kept = reports[client.name]
        middle = lambda of: statistics.median(of(report) for report in kept)
        name = f"{client.name} at {streams}"
        value = statistics.median(costs[client.name])
        accurate = client is ours[-1]
        goal = lambda text, met: (text, met) if accurate else (None, True)
        line(f"goal 1: {name}: CPU", f"{value:.2f} us/token", *goal("4.5 us or less", value <= 4.5))
        value = middle(lambda r: r.ran.rss) / 1e6
        line(f"goal 1: {name}: resident set", f"{value:.1f} MB", *goal("30 MB or less", value <= 30))
        value = (middle(lambda r: r.ttft[1]) - TTFT) * 1e3
        line(f"goal 2: {name}: TTFT p99 error", f"{value:.2f} ms", *goal("8 ms or less", value <= 8))
        if all(report.service_ttft for report in kept):
            value = (middle(lambda r: r.service_ttft[1]) - TTFT) * 1e3
            line(f"goal 2: {name}: the same from the first byte written, as peers count", f"{value:.2f} ms")
        value = abs(middle(lambda r: r.itl[0]) - ITL) * 1e3
        line(f"goal 2: {name}: ITL p50 error", f"{value:.3f} ms", *goal("0.1 ms or less", value <= 0.1))
        if all(report.lag for report in kept):
            half, most = middle(lambda r: r.lag[0]) * 1e6, middle(lambda r: r.lag[1]) * 1e3
            line(f"goal 2: {name}: receive lag p50", f"{half:.0f} us", *goal("25 us or less", half <= 25))
            line(f"goal 2: {name}: receive lag p99", f"{most:.2f} ms", *goal("3 ms or less", most <= 3))
        else:
            absent(f"goal 2: {name}: receive lag", "the result has no receive_lag_seconds")


def run(ours):
    ready, missing = clients.peers()
    heading("Goals 1 and 2: cost of a token, and truth under load")
    for name, why in missing.items():
        absent(name, why)
    for streams in STREAMS:
        measured = measure(ready, ours, streams)
        costs = rows(streams, measured)
        goals(streams, measured, costs, ours)
