"""One run of aifb-loadgen, as its user runs it."""

import json

from . import machine


class NoResult(Exception):
    """The run gave no result; its message says why."""


def measured(*options, **how):
    """Result and cost of a run."""
    ran = machine.run([machine.LOADGEN, "run", "--json", *options], **how)
    if not ran.out.startswith("{"):
        raise NoResult((ran.err.strip() or f"exit code {ran.code}").splitlines()[0][:200])
    return json.loads(ran.out), ran


def engines():
    """The engines that this build has, the accurate one last."""
    words = machine.run([machine.LOADGEN, "run", "--help"]).out
    return ["hyper", "raw"] if "--engine" in words else [None]
