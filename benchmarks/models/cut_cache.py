"""Memory and time of text generation under a plan, beside the same model with its whole cache.

    python benchmarks/models/cut_cache.py [--tokens 2048 8192 32768]

A random model of 8 layers with 8 heads of keys and 16 of queries, 64 wide, float32, one thread and
one text. Under the plan one head in eight is full, the others hold 16 first and 240 last tokens.
The text is read in pieces of 256 tokens, each form in a process of its own. Columns: bytes of keys
and values by `PlanCache.bytes`, what the process grew by while the text was read, and the time of
one further token.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

PIECE, STEPS = 256, 10


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(tokens: int, cut: bool) -> dict[str, float]:
    """Read a text and go on by some tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from headwise.longcontext import ModelFacts, Plan, attach

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=128, num_hidden_layers=8,
        num_attention_heads=16, num_key_value_heads=8, head_dim=64, attn_implementation="sdpa",
        max_position_embeddings=tokens + STEPS + 1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    facts = ModelFacts.of(model)
    full = [[head == 0 or not cut for head in range(8)] for _ in range(8)]
    plan = Plan.of_heads(facts, full, sink=16, window=240)
    ids = torch.randint(1, 64, (1, tokens))
    with torch.inference_mode(), attach(model, plan) as attached:
        model(ids[:, : 2 * PIECE], cache=attached.cache())  # what is loaded at first use
        gc.collect()
        before, cache = resident(), attached.cache()
        for start in range(0, tokens, PIECE):
            model(ids[:, start : start + PIECE], cache=cache, logits_to_keep=1)
        gc.collect()
        grown = resident() - before
        started = time.perf_counter()
        for _ in range(STEPS):
            model(ids[:, :1], cache=cache)
        seconds = (time.perf_counter() - started) / STEPS
    return {"cache": cache.bytes(), "process": grown, "seconds": seconds}


def main() -> None:
    """Measure each length with and without a plan, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.one[0]), options.one[1] == "cut")))
        return
    print("| tokens | cache | MiB of keys and values | MiB of the process | ms a token |")
    print("|---|---|---|---|---|")
    # glibc gives freed memory back at once, so that the process shows what is held.
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    for tokens in options.tokens:
        for form in ("whole", "cut"):
            command = [sys.executable, __file__, "--one", str(tokens), form]
            output = subprocess.run(command, env=environment, check=True, capture_output=True)
            row = json.loads(output.stdout.splitlines()[-1])
            sizes = " | ".join(f"{row[name] / 2**20:.0f}" for name in ("cache", "process"))
            print(f"| {tokens} | {form} | {sizes} | {1000 * row['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
