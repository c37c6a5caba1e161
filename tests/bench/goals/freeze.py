"""Goal 4: who stands still is seen, server or client."""

import json

from . import clients, machine, own
from .figures import absent, heading, line

RATE, SECONDS, CONNECTIONS = 1000, 10, 16
AFTER, STOPPED = 4.0, 1.0


def ours(server, during):
    result, _ = own.measured(
        "--driver", "http", "--url", server.url, "--path", "/health", "--rate", f"{RATE}/s", "--process", "constant",
        "--for", f"{SECONDS}s", during=during,
    )
    return result


def oha(path, server, during, *more):
    ran = machine.run(
        [path, "--no-tui", "--output-format", "json", "-c", CONNECTIONS, "-q", RATE, "-z", f"{SECONDS}s", *more,
         f"{server.url}/health"],
        env={"TOKIO_WORKER_THREADS": "1"},
        during=during,
    )
    found = json.loads(ran.out)["latencyPercentiles"]
    return found["p95"] * 1e3, found["p99"] * 1e3


def run():
    heading(f"Goal 4: {STOPPED:.0f} s of {SECONDS} s standing still, {RATE} requests/s")
    version, path = clients.installed("oha")["oha"]
    with machine.mock() as server:
        freeze_server = lambda _: machine.stop_for(server.process.pid, AFTER, STOPPED)
        freeze_client = lambda pid: machine.stop_for(pid, AFTER, STOPPED)
        metrics = ours(server, freeze_server)["metrics"]["total_seconds"]
        p95, p99 = metrics["p95"] * 1e3, metrics["p99"] * 1e3
        line("goal 4: server stopped: response p95", f"{p95:.0f} ms", "500 +- 25 ms", abs(p95 - 500) <= 25)
        line("goal 4: server stopped: response p99", f"{p99:.0f} ms", "900 +- 45 ms", abs(p99 - 900) <= 45)
        result = ours(server, freeze_client)
        total, service = (result["metrics"][name]["p99"] * 1e3 for name in ("total_seconds", "service_seconds"))
        kinds = [verdict["kind"] for verdict in result["verdicts"]]
        line("goal 4: client stopped: response p99", f"{total:.0f} ms", "850 ms or more", total >= 850)
        line("goal 4: client stopped: service p99", f"{service:.1f} ms", "below 20 ms", service < 20)
        line("goal 4: client stopped: verdicts", ", ".join(kinds) or "none", "client_stall", "client_stall" in kinds)
        if version == "-":
            absent("oha with a server or itself stopped", path)
            return
        for what, more in [("", ()), (" with --latency-correction", ("--latency-correction",))]:
            for who, during in [("server", freeze_server), ("client", freeze_client)]:
                p95, p99 = oha(path, server, during, *more)
                line(f"  oha {version}{what}: {who} stopped: p95, p99", f"{p95:.1f}, {p99:.1f} ms")
