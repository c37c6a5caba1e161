"""The clients that stream completions, each behind one function: so many streams, so many requests,
one core, and the figures that the client itself reports."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
from dataclasses import dataclass

from . import machine

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"
TOKENS = 100


@dataclass
class Load:
    """What a client is asked for."""

    url: str
    streams: int
    requests: int
    tokens: int = TOKENS


@dataclass
class Report:
    """What a client said, and what it cost. Seconds; absent where the client does not say."""

    ran: machine.Ran
    ok: int = 0
    failed: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0
    ttft: tuple = ()  # p50, p99
    itl: tuple = ()
    lag: tuple = ()
    # From the first byte written, as the peers count it; ours alone, whose `ttft` is from the planned instant.
    service_ttft: tuple = ()
    verdicts: tuple = ()


class Failed(Exception):
    """A client that gave no figures."""


def installed(*names):
    """Where each peer is and its version, or why it is not to be had."""
    text = subprocess.run([PEERS, *names], check=True, capture_output=True, text=True).stdout
    rows = (line.split("\t") for line in text.splitlines())
    return {name: (version, place) for name, version, place in rows}


def said(ran, client):
    """The last JSON object that a client printed."""
    lines = [line for line in ran.out.splitlines() if line.startswith("{")]
    if not lines:
        last = (ran.err.strip() or ran.out.strip() or f"exit code {ran.code}").splitlines()[-1]
        raise Failed(f"{client} gave no result: {last[:160]}")
    return json.loads(lines[-1])


def pair(distribution, unit=1.0):
    return (distribution["p50"] * unit, distribution["p99"] * unit) if distribution else ()


class Ours:
    """aifb-loadgen, with one of its engines."""

    def __init__(self, engine):
        self.engine, self.version = engine, ""
        self.name = f"aifb-loadgen {engine or ''}".strip()
        self.words = ["--engine", engine] if engine else []

    def run(self, load, driver="openai-completions", more=()):
        ran = machine.run(
            [machine.LOADGEN, "run", "--driver", driver, "--url", load.url, "--concurrency", load.streams,
             "--requests", load.requests, "--output-tokens", load.tokens, "--input-tokens", 8, "--json",
             *self.words, *more]
        )
        if not ran.out.startswith("{"):
            raise Failed(f"{self.name} gave no result: {(ran.err.strip() or str(ran.code)).splitlines()[-1][:160]}")
        result = json.loads(ran.out)
        counts, metrics = result["counts"], result["metrics"]
        return Report(
            ran,
            counts["ok"],
            counts["failed"] + counts["cancelled"],
            metrics.get("output_tokens", 0),
            metrics.get("output_tokens_per_second", 0.0),
            pair(metrics.get("ttft_seconds")),
            pair(metrics.get("inter_token_seconds")),
            pair(metrics.get("receive_lag_seconds")),
            pair(result.get("comparable", {}).get("ttft_service_seconds")),
            tuple(verdict["kind"] for verdict in result["verdicts"]),
        )


class Sglang:
    """The Rust client inside sglang's wheel, with one worker thread."""

    name = "sglang-bench"

    def __init__(self, version, place):
        self.version, self.place = version, pathlib.Path(place)

    def run(self, load):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder, "out.jsonl")
            ran = machine.run(
                [self.place / "python", HERE / "sglang_client.py", self.place,
                 "--backend", "vllm", "--base-url", load.url, "--dataset-name", "random-ids",
                 "--num-prompts", load.requests, "--random-input-len", 8, "--random-output-len", load.tokens,
                 "--random-range-ratio", "1.0", "--max-concurrency", load.streams, "--tokenizer", tokenizer(),
                 "--model", "m", "--disable-retokenize", "--disable-tqdm", "--worker-threads", 1,
                 "--warmup-requests", 0, "--output-file", out]
            )
            if not out.exists():
                raise Failed(f"sglang-bench gave no result: {(ran.err or ran.out).strip()[-160:]}")
            result = json.loads(out.read_text().splitlines()[-1])
        return Report(
            ran,
            result["completed"],
            load.requests - result["completed"],
            result["total_output_tokens"],
            result["output_throughput"],
            (result["median_ttft_ms"] / 1e3, result["p99_ttft_ms"] / 1e3),
            (result["median_itl_ms"] / 1e3, result["p99_itl_ms"] / 1e3),
        )


class Vllm:
    """vLLM's own request function, unmodified, as its `bench serve` calls it."""

    name = "vLLM bench serve"

    def __init__(self, version, place):
        self.version, self.place = version, pathlib.Path(place)

    def run(self, load):
        ran = machine.run(
            [self.place / "venv/bin/python", HERE / "vllm_client.py", self.place, load.url, load.streams,
             load.requests, load.tokens]
        )
        result = said(ran, self.name)
        return Report(
            ran, result["ok"], load.requests - result["ok"], result["tokens"], result["tokens_per_second"],
            tuple(result["ttft"]), tuple(result["itl"]),
        )


class Aiperf:
    """AIPerf with one worker and one record processor."""

    name = "AIPerf"

    def __init__(self, version, place):
        self.version, self.place = version, pathlib.Path(place)

    def run(self, load):
        with tempfile.TemporaryDirectory() as folder:
            ran = machine.run(
                [self.place / "aiperf", "profile", "--model", "m", "--url", load.url,
                 "--endpoint-type", "completions", "--streaming", "--concurrency", load.streams,
                 "--request-count", load.requests, "--prompt-input-tokens-mean", 8,
                 "--prompt-output-tokens-mean", load.tokens, "--use-legacy-max-tokens",
                 "--extra-inputs", "ignore_eos:true", "--tokenizer", tokenizer(), "--workers-max", 1,
                 "--record-processor-service-count", 1, "--use-server-token-count", "--ui", "none",
                 "--no-gpu-telemetry", "--no-server-metrics", "--output-artifact-dir", folder],
                env={"NO_COLOR": "1"},
                cwd=folder,
            )
            found = list(pathlib.Path(folder).rglob("profile_export_aiperf.json"))
            if not found:
                raise Failed(f"AIPerf gave no result: {plain(ran.out + ran.err)[-160:]}")
            result = json.loads(found[0].read_text())
        value = lambda name, what="avg": (result.get(name) or {}).get(what) or 0
        ok = int(value("request_count"))
        return Report(
            ran,
            ok,
            load.requests - ok,
            int(value("total_output_tokens") or value("total_osl")),
            value("output_token_throughput"),
            (value("time_to_first_token", "p50") / 1e3, value("time_to_first_token", "p99") / 1e3),
            (value("inter_token_latency", "p50") / 1e3, value("inter_token_latency", "p99") / 1e3),
        )


class InferencePerf:
    """inference-perf with one worker process."""

    name = "inference-perf"

    def __init__(self, version, place):
        self.version, self.place = version, pathlib.Path(place)

    def run(self, load):
        with tempfile.TemporaryDirectory() as folder:
            length = lambda n: {"min": n, "max": n, "mean": n, "std_dev": 0, "total_count": load.requests}
            config = {
                "api": {"type": "completion", "streaming": True},
                "data": {"type": "random", "input_distribution": length(8), "output_distribution": length(load.tokens)},
                "load": {
                    "type": "concurrent",
                    "stages": [{"num_requests": load.requests, "concurrency_level": load.streams}],
                    "num_workers": 1,
                    "worker_max_concurrency": load.streams,
                },
                "server": {"type": "vllm", "model_name": "m", "base_url": load.url, "ignore_eos": True},
                "tokenizer": {"pretrained_model_name_or_path": str(tokenizer())},
                "storage": {"local_storage": {"path": f"{folder}/out"}},
                "report": {"request_lifecycle": {"summary": True, "per_stage": False, "per_request": False}},
            }
            file = pathlib.Path(folder, "config.yml")
            # JSON is YAML.
            file.write_text(json.dumps(config))
            ran = machine.run([self.place / "inference-perf", "-c", file], cwd=folder)
            found = list(pathlib.Path(folder).rglob("summary_lifecycle_metrics.json"))
            if not found:
                raise Failed(f"inference-perf gave no result: {plain(ran.err + ran.out)[-160:]}")
            result = json.loads(found[0].read_text())
        good = result["successes"]
        latency = good.get("latency") or {}
        pick = lambda name: tuple((latency.get(name) or {}).get(p) or 0.0 for p in ("median", "p99"))
        return Report(
            ran,
            good["count"],
            result["failures"]["count"],
            # It counts with a tokenizer of its own, of one token for each byte.
            good["count"] * load.tokens,
            good["count"] * load.tokens / ran.wall,
            pick("time_to_first_token"),
            pick("inter_token_latency"),
        )


def plain(text):
    """Text without colours and line ends."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).strip()


def tokenizer():
    """A folder with a tokenizer of one token for each byte: peers load one even where they count
    the server's tokens."""
    cache = pathlib.Path(os.environ.get("AIFB_CACHE", machine.ROOT / ".cache"))
    folder = cache / "peers/tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        # The 256 printable stand-ins of a byte-level vocabulary, as GPT-2 made them.
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
        letters = [chr(byte) for byte in shown] + [chr(256 + n) for n in range(256 - len(shown))]
        vocabulary = {letter: number for number, letter in enumerate(letters)}
        end = {"id": 256, "content": "</s>", "special": True, "single_word": False, "lstrip": False,
               "rstrip": False, "normalized": False}
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        whole = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {**vocabulary, "</s>": 256}, "merges": []},
        }
        (folder / "tokenizer.json").write_text(json.dumps(whole))
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 257}))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "</s>"})
        )
    return folder


def peers():
    """The peers that can be run, by name, and why others cannot."""
    kinds = {"sglang": Sglang, "vllm": Vllm, "aiperf": Aiperf, "inference-perf": InferencePerf}
    found = installed(*kinds)
    ready = {name: kind(*found[name]) for name, kind in kinds.items() if found[name][0] != "-"}
    missing = {kinds[name].name: why for name, (version, why) in found.items() if version == "-"}
    return ready, missing
