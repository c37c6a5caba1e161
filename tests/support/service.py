#!/usr/bin/env python3
"""A small HTTP service that misbehaves on request, for the tests of services.

GET /health answers 200 or, when it is unhealthy, 503; GET / answers "hello"; GET /metrics is a page of
its own Prometheus metrics, with the number of looks at it.
"""

import argparse
import http.server
import itertools
import os
import signal
import socketserver
import sys
import threading
import time


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0, help="seconds before it listens")
    parser.add_argument("--exit-at-once", type=int, metavar="CODE", help="write a complaint and exit")
    parser.add_argument("--exit-after", type=float, metavar="SECONDS", help="exit with code 9 then")
    parser.add_argument("--exit-once", metavar="FILE", help="exit with code 9 unless FILE exists; makes it")
    parser.add_argument("--never-healthy", action="store_true")
    parser.add_argument("--unhealthy-after", type=float, metavar="SECONDS")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--double-fork", action="store_true", help="leave a daemon behind that keeps the port")
    parser.add_argument("--allocate", type=int, metavar="MB", help="take so much memory once it is asked for /allocate")
    parser.add_argument("--environment", metavar="FILE", help="write its environment, limits, umask and groups there")
    return parser.parse_args()


def describe(path):
    import resource

    listed = [int(fd) for fd in os.listdir("/proc/self/fd")]
    # Without the one that the listing itself needed.
    fds = sorted(fd for fd in listed if os.path.exists(f"/proc/self/fd/{fd}"))
    with open(path, "w", encoding="utf-8") as out:
        for key in sorted(os.environ):
            print(f"env {key}={os.environ[key]}", file=out)
        for name in sorted(n for n in dir(resource) if n.startswith("RLIMIT_")):
            print(f"limit {name} {resource.getrlimit(getattr(resource, name))}", file=out)
        umask = os.umask(0)
        os.umask(umask)
        print(f"umask {umask:04o}", file=out)
        print(f"groups {sorted(os.getgroups())}", file=out)
        print(f"ids {os.getresuid()} {os.getresgid()}", file=out)
        with open("/proc/self/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith(("SigBlk", "SigIgn", "CapEff", "NoNewPrivs")):
                    print(line.strip(), file=out)
        with open("/proc/self/oom_score_adj", encoding="utf-8") as adj:
            print(f"oom_score_adj {adj.read().strip()}", file=out)
        print(f"fds {fds}", file=out)


def main():
    args = options()
    started = time.monotonic()
    if args.environment:
        describe(args.environment)
    if args.exit_at_once is not None:
        print("service.py: cannot start: the flux capacitor is empty", file=sys.stderr)
        sys.exit(args.exit_at_once)
    if args.exit_once and not os.path.exists(args.exit_once):
        open(args.exit_once, "w", encoding="utf-8").close()
        print("service.py: first start fails", file=sys.stderr)
        sys.exit(9)
    if args.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if args.exit_after is not None:
        threading.Timer(args.exit_after, lambda: os._exit(9)).start()
    time.sleep(args.delay)
    if args.double_fork and os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
        os._exit(0)

    hoard = []
    looks = itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            code, body = 200, b"hello\n"
            if self.path == "/health":
                late = args.unhealthy_after is not None and time.monotonic() - started > args.unhealthy_after
                code, body = (503, b"no\n") if args.never_healthy or late else (200, b"ok\n")
            if self.path == "/metrics":
                page = f"# HELP looks_total Looks at this page\n# TYPE looks_total counter\nlooks_total {next(looks)}\n"
                body = page.encode()
            if self.path == "/allocate" and args.allocate:
                hoard.append(bytearray(os.urandom(1024) * (args.allocate * 1024)))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server((args.host, args.port), Handler)
    print(f"service.py: listening on {args.host}:{args.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
