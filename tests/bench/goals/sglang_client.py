"""sglang-bench from its extension module: sglang_client.py FOLDER OPTION..."""

import sys

sys.path.insert(0, sys.argv[1])
import _bench

_bench.run_argv(["sglang-bench", *sys.argv[2:]])
