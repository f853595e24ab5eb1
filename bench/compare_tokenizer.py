#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encoding by the `tokenizers` package, one thread, in turns with tokenizer_bench on the same files.

    pip install tokenizers==0.22.1
    python bench/compare_tokenizer.py build/bench/bench/tokenizer_bench [DATA_FOLDER [ROUNDS]]

DATA_FOLDER (default ../shared/data) holds tokenizer/gpt2 and text/wikitext2_test.txt. Two forms of
the same data: the vocabulary of GPT-2 with its pre-tokenizer, and a SentencePiece-style file
(tests/llm/data/tokenizers/llama2.json). Prints megabytes per second of both and the median of the
rounds' ratios (ours / theirs), for the whole text and for its lines.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

program = sys.argv[1]
data = sys.argv[2] if len(sys.argv) > 2 else "../shared/data"
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
path = os.path.join(data, "text/wikitext2_test.txt")
with open(path, encoding="utf-8", newline="") as f:
    text = f.read()
lines = text.split("\n")
size = len(text.encode())


def gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(folder + "/encoder.json", folder + "/vocab.bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def theirs(action):
    times = []
    for _ in range(3):
        start = time.perf_counter()
        count = action()
        times.append(time.perf_counter() - start)
    return size / min(times) / 1e6, count


def ours(file, name):
    environment = dict(os.environ, DUALSFT_BENCH_TOKENIZER=file, DUALSFT_BENCH_TEXT=path)
    out = subprocess.run([program, f"--benchmark_filter={name}$", "--benchmark_format=json"],
                         capture_output=True, check=True, text=True, env=environment).stdout
    row = json.loads(out)["benchmarks"][0]
    return row["bytes_per_second"] / 1e6, int(row["tokens"])


here = os.path.dirname(os.path.abspath(__file__))
with tempfile.TemporaryDirectory() as folder:
    published = folder + "/gpt2.json"
    gpt2(os.path.join(data, "tokenizer/gpt2")).save(published)
    small = os.path.join(here, "../tests/llm/data/tokenizers/llama2.json")
    for title, file in (("gpt2", published), ("llama2-like", small)):
        tokenizer = Tokenizer.from_file(file)
        ways = {
            "encode_text": lambda: len(tokenizer.encode(text).ids),
            # Without offsets, which we do not give either: the faster of their two ways.
            "encode_lines": lambda: sum(len(e.ids) for e in tokenizer.encode_batch_fast(lines)),
        }
        for name, action in ways.items():
            ratios = []
            for _ in range(rounds):
                speed, count = theirs(action)
                mine, tokens = ours(file, name)
                # Their split has an empty line more at the end.
                assert abs(count - tokens) <= 1, (count, tokens)
                ratios.append(mine / speed)
                print(f"{title} {name}: ours {mine:.1f} MB/s, tokenizers {speed:.2f} MB/s, "
                      f"ratio {ratios[-1]:.1f}", flush=True)
            print(f"{title} {name}: median ratio {statistics.median(ratios):.1f}")
