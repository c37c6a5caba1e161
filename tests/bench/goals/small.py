"""Start-up, size, and ten thousand streams from one process."""

import resource
import statistics

from . import machine, own
from .figures import absent, heading, line

STREAMS = 10_000
# Both ends are on this machine, each in a process of its own, and both have some files more.
FILES = STREAMS + 200


def start_up():
    heading("Start-up and size")
    with machine.mock("--ttft", "0s", "--itl", "0s") as server:
        walls = []
        for _ in range(22):
            result, ran = own.measured(
                "--driver", "http", "--url", server.url, "--path", "/health", "--concurrency", 1, "--requests", 1
            )
            assert result["counts"]["ok"] == 1, result
            walls.append(ran.wall * 1e3)
    middle = statistics.median(walls[2:])
    line("a whole run of one request (median of 20)", f"{middle:.1f} ms", "50 ms or less", middle <= 50)
    size = machine.LOADGEN.stat().st_size / 1e6
    line("size of aifb-loadgen", f"{size:.2f} MB", "20 MB or less", size <= 20)
    dynamic = machine.run(["readelf", "-d", machine.LOADGEN]).out
    needed = [text for text in dynamic.splitlines() if "NEEDED" in text]
    line("libraries that it needs", f"{len(needed)}", "none", not needed)


def many(engines):
    heading(f"{STREAMS} streams from one process")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        return absent(f"{STREAMS} streams", f"only {hard} open files are allowed, {FILES} are needed: ulimit -Hn")
    for engine in engines:
        words = ["--engine", engine] if engine else []
        with machine.mock("--ttft", "1s", "--itl", "500ms", files=FILES) as server:
            try:
                result, ran = own.measured(
                    "--driver", "openai-completions", "--url", server.url, "--concurrency", STREAMS, "--requests",
                    STREAMS, "--output-tokens", 20, "--input-tokens", 8, *words, files=FILES,
                )
            except own.NoResult as failed:
                absent(f"{STREAMS} streams, {engine}", str(failed))
                continue
        name, counts = f"{STREAMS} streams, {engine or 'loadgen'}", result["counts"]
        rss = ran.rss / 1e6
        line(f"{name}: resident set", f"{rss:.0f} MB", "150 MB or less", rss <= 150)
        good = counts["ok"] == STREAMS and counts["sent"] == STREAMS
        line(f"{name}: answered", f"{counts['ok']} of {counts['sent']}", "all", good)
        seen = result["metrics"].get("output_tokens")
        line(f"{name}: tokens", f"{seen}", f"{STREAMS * 20}", seen == STREAMS * 20)


def run(engines):
    start_up()
    many(engines)
