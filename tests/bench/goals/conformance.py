"""Goal 7: streams as hostile as servers can be, and what each client makes of them."""

import os

from . import clients, machine
from .clients import Load
from .figures import absent, heading, line

# Each client meets each stream so often, on connections that it may keep.
REQUESTS, STREAMS, TOKENS = 6, 2, 12

# Streams that end only by a time limit: peers have none that can be set for each request, and
# would take minutes; ours are in the tests.
ENDLESS = {"slow-body", "hang", "endless-head", "long-line", "zip-bomb"}

# Clients that take seconds to start meet one stream in three unless all are asked for.
HEAVY = {"aiperf", "inference-perf"}
ALL = os.environ.get("AIFB_BENCH_CONFORMANCE") == "all"


def table():
    """Faults that a completion as server-sent events can have: name and what is right."""
    rows = [text.split("\t") for text in machine.run([machine.LOADGEN, "mock", "--list-faults"]).out.splitlines()]
    apply = {"all", "streams", "sse"}
    return [(name, right) for name, on, right, _ in rows if apply & set(on.split(",")) and name not in ENDLESS]


def passes(report, right):
    """Whether a client's own figures say what happened."""
    if right == "ok":
        return report.ok == REQUESTS and report.tokens == REQUESTS * TOKENS
    if right == "ok-chunks":
        return report.ok == REQUESTS
    return report.ok == 0


def run(ours):
    faults = table()
    heading(f"Goal 7: {len(faults)} odd and broken streams, {REQUESTS} requests each: all answered with the server's token count, or all failed")
    ready, missing = clients.peers()
    for name, why in missing.items():
        absent(f"  {name}", why)
    everyone = {client.name: client for client in ours} | ready
    wrong = {name: [] for name in everyone}
    met = dict.fromkeys(everyone, 0)
    for number, (fault, right) in enumerate(faults):
        with machine.mock("--ttft", "2ms", "--itl", "1ms", "--fault", fault) as server:
            for name, client in everyone.items():
                if name in HEAVY and not ALL and number % 3:
                    continue
                met[name] += 1
                try:
                    report = client.run(Load(server.url, STREAMS, REQUESTS, TOKENS))
                    good = passes(report, right)
                except clients.Failed:
                    # It printed nothing: right only where nothing could be answered.
                    good = not right.startswith("ok")
                if not good:
                    wrong[name].append(fault)
    for name, client in everyone.items():
        figure = f"{met[name] - len(wrong[name])} of {met[name]}"
        if wrong[name]:
            figure += f" (not: {', '.join(wrong[name])})"
        what = f"goal 7: {client.name} {client.version}".strip()
        if client in ours:
            line(what, figure, "all", not wrong[name])
        else:
            line(what, figure)
