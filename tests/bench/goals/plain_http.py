"""Goal 5: plain HTTP at the speed of the tools that do nothing else."""

import json
import os
import pathlib
import re
import statistics
import tempfile
import time
import urllib.request

from . import clients, machine, own
from .figures import absent, heading, line, spread

CONNECTIONS, SECONDS = 64, 3

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "hello, world"; }}
  }}
}}
"""


class Nginx(machine.Server):
    """nginx with one worker that answers from memory."""

    def __init__(self, path, folder):
        port = machine.free_port()
        config = pathlib.Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, port=port))
        self.url = f"http://127.0.0.1:{port}"
        super().__init__([path, "-p", folder, "-c", config])

    def ready(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=1).read()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def worker(self):
        """Its worker, which does the work."""
        pid = self.process.pid
        return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.worker()}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_):
        # The master ends its worker.
        self.process.terminate()
        self.process.wait()


def wrk(path, url):
    ran = machine.run([path, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url])
    return float(re.search(r"Requests/sec:\s*([\d.]+)", ran.out).group(1)), ran


def h2load(path, url):
    ran = machine.run([path, "--h1", "-t1", f"-c{CONNECTIONS}", "-D", SECONDS, url])
    return float(re.search(r", ([\d.]+) req/s", ran.out).group(1)), ran


def oha(path, url):
    ran = machine.run(
        [path, "--no-tui", "--output-format", "json", "-c", CONNECTIONS, "-z", f"{SECONDS}s", url],
        env={"TOKIO_WORKER_THREADS": "1"},
    )
    return json.loads(ran.out)["summary"]["requestsPerSec"], ran


def ours(engine, url):
    words = ["--engine", engine] if engine else []
    result, ran = own.measured(
        "--driver", "http", "--url", url, "--concurrency", CONNECTIONS, "--for", f"{SECONDS}s", *words
    )
    return result["metrics"]["requests_per_second"], ran


def run(engines):
    heading(f"Goal 5: plain HTTP, {CONNECTIONS} connections, closed loop, nginx on one core, the client on the other")
    found = clients.installed("wrk", "h2load", "oha", "nginx")
    version, nginx = found.pop("nginx")
    if version == "-":
        return absent("goal 5", nginx)
    everyone = {f"aifb-loadgen {engine or ''}".strip(): (lambda url, e=engine: ours(e, url)) for engine in engines}
    for name, (version, path) in found.items():
        if version == "-":
            absent(f"  {name}", path)
        else:
            everyone[f"{name} {version}"] = lambda url, c={"wrk": wrk, "h2load": h2load, "oha": oha}[name], p=path: c(p, url)
    rates, costs, busy = ({name: [] for name in everyone} for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        # nginx's worker gives up root, and has to get at its folder.
        os.chmod(folder, 0o755)
        with Nginx(nginx, folder) as server:
            for number in range(machine.ROUNDS + 1):
                for name, client in everyone.items():
                    before = server.cpu()
                    rate, ran = client(server.url)
                    if number:
                        rates[name].append(rate)
                        costs[name].append(ran.cpu / (rate * SECONDS) * 1e6)
                        busy[name].append((server.cpu() - before) / SECONDS)
    print(f"{'client':<30} {'requests/s':>28} {'us of CPU for a request':>28} {'server busy':>14}")
    for name in everyone:
        print(f"{name:<30} {spread(rates[name], digits=0):>28} {spread(costs[name], digits=2):>28} {statistics.median(busy[name]):>13.0%}")
    # Where the server is the limit, clients are as fast as it is; their cost tells them apart.
    speed = lambda name: 1 / statistics.median(costs[name])
    rival = lambda word: next((name for name in everyone if name.startswith(word)), None)
    goals = [("hyper", "oha", 1.15), ("hyper", "wrk", 0.90), ("raw", "wrk", 1.2)] if "raw" in engines else [(None, "oha", 1.15), (None, "wrk", 0.90)]
    for engine, word, factor in goals:
        name, other = f"aifb-loadgen {engine or ''}".strip(), rival(word)
        if other is None:
            continue
        ratio = speed(name) / speed(other)
        plain = statistics.median(rates[name]) / statistics.median(rates[other])
        line(f"goal 5: {name} / {other}: requests per CPU second", f"{ratio:.2f} (requests/s: {plain:.2f})", f"{factor} or more", ratio >= factor)



