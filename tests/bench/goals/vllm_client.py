"""vLLM's request function under a semaphore, as vLLM's `bench serve` runs it:
vllm_client.py FOLDER URL STREAMS REQUESTS TOKENS"""

import asyncio
import importlib.util
import json
import pathlib
import sys
import time

import aiohttp


def module(folder):
    path = pathlib.Path(folder, "endpoint_request_func.py")
    spec = importlib.util.spec_from_file_location("endpoint_request_func", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["endpoint_request_func"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def percentile(values, share):
    """As numpy's default: linear between the closest ranks."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


async def main(folder, url, streams, requests, tokens):
    vllm = module(folder)
    # The connector and session of vllm/benchmarks/serve.py.
    connector = aiohttp.TCPConnector(
        limit=streams, limit_per_host=streams, ttl_dns_cache=300, use_dns_cache=True, keepalive_timeout=60,
        enable_cleanup_closed=True, force_close=False, ssl=False,
    )
    places = asyncio.Semaphore(streams)
    async with aiohttp.ClientSession(
        connector=connector, trust_env=True, timeout=vllm.AIOHTTP_TIMEOUT
    ) as session:

        async def one():
            wanted = vllm.RequestFuncInput(
                prompt="one two three four five six seven eight", api_url=f"{url}/v1/completions", prompt_len=8,
                output_len=tokens, model="m", ignore_eos=True,
            )
            async with places:
                return await vllm.async_request_openai_completions(wanted, session)

        begun = time.perf_counter()
        answers = await asyncio.gather(*(one() for _ in range(requests)))
        wall = time.perf_counter() - begun
    good = [answer for answer in answers if answer.success]
    ttft, itl = [answer.ttft for answer in good], [gap for answer in good for gap in answer.itl]
    count = sum(answer.output_tokens for answer in good)
    result = {
        "ok": len(good), "tokens": count, "tokens_per_second": count / wall,
        "ttft": [percentile(ttft, 0.5), percentile(ttft, 0.99)],
        "itl": [percentile(itl, 0.5), percentile(itl, 0.99)],
        "error": next((answer.error.strip().splitlines()[-1] for answer in answers if answer.error), ""),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
