#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Forward + backward of transformer_bench's model by PyTorch, in turns with transformer_bench itself.

    pip install torch==2.9.1 transformers==4.57.1
    python bench/compare_transformer.py build/bench/bench/transformer_bench [ROUNDS]

Prints tokens per second of both and the median of the rounds' ratios (ours / PyTorch's).
"""

import json
import statistics
import subprocess
import sys
import time

import torch
import transformers

torch.set_num_threads(2)
config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=4,
    num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512,
    tie_word_embeddings=False, attn_implementation="sdpa", use_cache=False)
model = transformers.LlamaForCausalLM(config).float()
ids = torch.randint(0, 32000, (8, 257))


def training_pass():
    model.zero_grad(set_to_none=False)
    logits = model(input_ids=ids[:, :-1]).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(),
                                               reduction="none").view(8, 256).mean(1)
    losses.sum().backward()


def ours(program):
    out = subprocess.run([program, "--benchmark_filter=forward_backward", "--benchmark_format=json"],
                         capture_output=True, check=True, text=True).stdout
    return json.loads(out)["benchmarks"][0]["tokens_per_second"]


program, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
training_pass()
ratios = []
for _ in range(rounds):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        training_pass()
        times.append(time.perf_counter() - start)
    theirs = 8 * 256 / statistics.median(times)
    mine = ours(program)
    ratios.append(mine / theirs)
    print(f"ours {mine:.0f} tokens/s, PyTorch {theirs:.0f} tokens/s, ratio {ratios[-1]:.2f}", flush=True)
print(f"median ratio {statistics.median(ratios):.2f}")
