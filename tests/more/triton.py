#!/usr/bin/env python3
"""triton.py HTTP_PORT GRPC_PORT METRICS_PORT: NVIDIA's Triton with three small models.

Run by the Python of an environment that has nvidia-pytriton (tests/more/pytriton). Models:
`ident` gives back what it got; `gen` is decoupled and gives `max_tokens` texts for one request, or
breaks off with an error after three where the text says so; `count` says what `gen` and `ident`
were asked and gave.
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

counts = {"ident": 0, "gen": 0, "responses": 0}


@batch
def ident(INPUT0):
    counts["ident"] += len(INPUT0)
    return {"OUTPUT0": INPUT0}


def gen(requests):
    counts["gen"] += len(requests)
    (request,) = requests
    fails = b"please fail" in request.data["text_input"].reshape(-1)[0]
    for number in range(int(request.data["max_tokens"].reshape(-1)[0])):
        if fails and number == 3:
            raise RuntimeError("as asked for")
        counts["responses"] += 1
        yield [{"text_output": np.array([b"tok "], dtype=np.bytes_)}]


def count(_requests):
    return [{name: np.array([value], dtype=np.int64) for name, value in counts.items()}]


def main():
    http, grpc, metrics = (int(word) for word in sys.argv[1:4])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=http, grpc_address="127.0.0.1", grpc_port=grpc,
        allow_metrics=True, metrics_address="127.0.0.1", metrics_port=metrics,
    )
    text = lambda name: Tensor(name=name, dtype=bytes, shape=(1,))
    number = lambda name, kind: Tensor(name=name, dtype=kind, shape=(1,))
    with Triton(config=config) as triton:
        triton.bind(
            "ident", ident,
            [Tensor(name="INPUT0", dtype=np.float32, shape=(16,))],
            [Tensor(name="OUTPUT0", dtype=np.float32, shape=(16,))],
            config=ModelConfig(max_batch_size=8),
        )
        triton.bind(
            "gen", gen,
            [text("text_input"), number("max_tokens", np.int32)],
            [text("text_output")],
            config=ModelConfig(batching=False, decoupled=True),
        )
        triton.bind(
            "count", count,
            [number("of", np.int64)],
            [number(name, np.int64) for name in counts],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    main()
