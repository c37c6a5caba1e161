"""Programs on fixed cores, and what they cost."""

import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[3]
LOADGEN = pathlib.Path(
    os.environ.get("AIFB_BENCH_LOADGEN", ROOT / "target/static/x86_64-unknown-linux-gnu/dist/aifb-loadgen")
)
CPUS = sorted(os.sched_getaffinity(0))
# Server and client do not share a core where there are two.
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]
ROUNDS = int(os.environ.get("AIFB_BENCH_ROUNDS", "4"))

# Longest time for one run of a client: the slowest takes half a minute.
RUN_SECONDS_MAX = 240


@dataclass
class Ran:
    """A program that has ended."""

    code: int
    out: str
    err: str
    wall: float
    # Seconds of user and system time, its children included.
    cpu: float
    # Bytes: the most that all of its processes had resident, looked at every 20 ms. wait4(2)
    # would count what was resident in the process that started it.
    rss: int


def prepared(cpu, files=None):
    def prepare():
        os.sched_setaffinity(0, {cpu})
        if files:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))

    return prepare


def run(command, cpu=CLIENT_CPU, env=None, files=None, cwd=None, during=None):
    """Runs a program to its end; `during(pid)` is called once it runs."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.monotonic()
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            preexec_fn=prepared(cpu, files),
            start_new_session=True,
        )
        if during:
            during(child.pid)
        code, usage, rss = wait(child, begun + RUN_SECONDS_MAX)
        wall = time.monotonic() - begun
        out.seek(0), err.seek(0)
        return Ran(
            code,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            wall,
            usage.ru_utime + usage.ru_stime,
            rss,
        )


def wait(child, deadline):
    """Waits for a child with its usage; one that does not end is ended with all of its group."""
    peak = 0
    end = os.pidfd_open(child.pid)
    try:
        while not select.select([end], [], [], 0.02)[0]:
            peak = max(peak, resident(child.pid))
            if time.monotonic() > deadline:
                os.killpg(child.pid, signal.SIGKILL)
                deadline = float("inf")
    finally:
        os.close(end)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage, peak


def resident(pid):
    """Bytes resident in a process and its children; 0 where it has just gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    # Of a single process the kernel itself knows the peak.
    key = "VmRSS:" if children else "VmHWM:"
    own = next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key)), 0)
    return own + sum(resident(int(child)) for child in children)


class Server:
    """A server on its core, ended with the block that it is used in."""

    def __init__(self, command, files=None):
        self.command, self.files = command, files

    def __enter__(self):
        self.process = subprocess.Popen(
            [str(word) for word in self.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=prepared(SERVER_CPU, self.files),
        )
        self.ready()
        return self

    def ready(self):
        self.url = self.process.stdout.readline().strip().removeprefix("listening on ")
        if not self.url.startswith("http"):
            raise RuntimeError(f"the mock did not start: {self.url!r}")

    def cpu(self):
        """Its CPU seconds so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_):
        # One that was stopped takes SIGKILL too.
        self.process.kill()
        self.process.wait()


def mock(*options, files=None):
    """The truth server."""
    return Server([LOADGEN, "mock", *options], files=files)


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def stop_for(pid, after, seconds):
    """Stops a process after a while, for a while."""
    time.sleep(after)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)
