#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/results/gpu_*.json as Markdown: what was measured on a device, beside what it must reach.

    python3 bench/gpu_table.py docs/results                              # everything
    python3 bench/gpu_table.py docs/results --into docs/benchmarks.md    # the table of the loops alone

--into replaces what stands between `<!-- device table -->` and `<!-- end -->`. A loop without a result
is "not measured yet"; nothing is computed but the worst of several and passed or missed.
"""

import json
import math
import pathlib
import re
import sys

# Loop, file, benchmarks, counter, what it means; its bound stands in the result (at_least, at_most) and
# here for the time when there is none.
LOOPS = [
    ("a batch's gradient into G, bf16 and f32, d = 3.2e9", "accumulate",
     r"accumulate/.*n:3212749824", "ratio_to_copy", ">= 0.90 of the copy"),
    ("AdamW's second moment, bf16 and f32, d = 3.2e9", "accumulate",
     r"second_moment/.*n:3212749824", "ratio_to_copy", ">= 0.90 of the copy"),
    ("p, its copy, Top-K 5 % and mask, d = 3.2e9, the diagonal order, four distributions", "projection",
     r"projection/diagonal/sgd/[^/]*/d:3212749824", "ms", "<= 30 ms"),
    ("the same, the other orders and steps", "projection",
     r"projection/(?!diagonal/sgd/)[^/]*/[^/]*/[^/]*/d:3212749824", "ms", "<= 30 ms"),
    ("dense dual scores, 4,096 x 1e6, f32, all orders", "dense_scores",
     r"dense_scores/.*f32/n:4096/d:1000000", "ratio_to_copy", ">= 0.85 of the copy"),
    ("ghost data scores, layers of Llama-3.2-3B and Qwen2.5-7B, 8,192 tokens, bf16", "ghost_scores",
     r"ghost_scores/.*bf16/tokens", "ratio_to_cublaslt", ">= 0.85 of cuBLASLt's product alone"),
    ("attention with tangents, heads of 128", "attention",
     r"attention/tangent/", "ratio_to_forward", ">= 0.455: at most 2.2 times its forward"),
    ("row-wise tangents (norms, gates, rotation, embedding, loss)", "tangents",
     r"tangents/(?!linear)", "ratio_to_copy", ">= 0.90 of the copy"),
    ("linear maps with tangents", "tangents",
     r"tangents/linear", "ratio_to_product", ">= 0.85 of cuBLASLt's bf16 product"),
    ("CWSD: losses, weights and gradients, 8,192 x 128,256, bf16", "cwsd",
     r"cwsd/", "ratio_to_copy", ">= 0.80 of the copy"),
    ("the same through the output head, no logit matrix in memory", "cwsd",
     r"cwsd_through_head/", "ratio_to_product", ">= 0.70 of cuBLASLt's bf16 product"),
    ("masked AdamW, 5 % of 3.2e9, bf16", "masked_adamw",
     r"masked_adamw/.*d:3212749824", "ms", "<= 5 ms"),
    ("its state, with masters at most", "masked_adamw",
     r"masked_adamw/.*d:3212749824", "state_bytes", "<= 2.6e9 bytes"),
]
KNOWN = {"name", "run_name", "run_type", "family_index", "per_family_instance_index", "repetitions",
         "repetition_index", "threads", "iterations", "real_time", "cpu_time", "time_unit",
         "error_occurred", "error_message", "label"}


def parse(text):
    """A file of Google Benchmark whose program was stopped has its whole benchmarks, and cut_short."""
    try:
        return json.loads(text)
    except ValueError as error:
        for end in reversed([found.end() for found in re.finditer(r"\n    \}|\[(?=\n)", text)]):
            try:
                return json.loads(text[:end] + "]}") | {"cut_short": True}
            except ValueError:
                pass
        raise error


def check(data):
    """A file from elsewhere is told apart by its shape."""
    if not isinstance(data, dict) or not ("benchmarks" in data or "baselines" in data):
        raise ValueError("it has no results")
    if not isinstance(data.get("context", {}), dict):
        raise ValueError("its context is no object")
    if "benchmarks" not in data:
        return
    rows = data["benchmarks"]
    if not isinstance(data.get("context"), dict) or not isinstance(rows, list):
        raise ValueError("its context is no object or its benchmarks are no list")
    for key in ("device", "copy_GB_per_s"):
        if not isinstance(data["context"].get(key), str):
            raise ValueError(f"its context has no {key}")
    float(data["context"]["copy_GB_per_s"])
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ValueError(f"benchmark {i} is no object with a name")
        for key, value in row.items():
            counter = key.startswith(("ratio", "at_", "bytes", "milliseconds", "real_time"))
            if counter and not isinstance(value, (int, float)):
                raise ValueError(f"benchmark {i}: {key} is no number")


def load(folder):
    """Name without gpu_ -> parsed file, or the reason why there is none."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("gpu_*.json")):
        try:
            data = parse(path.read_text())
            check(data)
            found[path.stem[4:]] = data
        except ValueError as error:
            found[path.stem[4:]] = f"{path.name} is not whole: {error}"
    return found


def name_of(row):
    return re.sub(r"/iterations:\d+|/manual_time", "", row["name"])


def number(x):
    return f"{x:.3g}" if isinstance(x, float) and abs(x) < 1e5 else f"{x:.4g}"


def bound_of(row, counter):
    """(bound, is a least value), or None."""
    for kind in ("at_least:", "at_most:"):
        if kind + counter in row:
            return row[kind + counter], kind == "at_least:"
    return None


def reaches(value, bound):
    limit, is_least = bound
    return math.isfinite(value) and (value >= limit if is_least else value <= limit)


def is_device(data):
    return not data["context"].get("nvcc", "none").startswith("none")


def loop_rows(results):
    for loop, file, pattern, counter, wanted in LOOPS:
        data = results.get(file)
        if data is None:
            yield loop, wanted, "not measured yet: no device was at hand", f"`gpu {file}`"
            continue
        if isinstance(data, str) or not is_device(data):
            why = data if isinstance(data, str) else "no device: a processor played it"
            yield loop, wanted, why, f"`gpu {file}`"
            continue
        rows = [row for row in data["benchmarks"] if re.match(pattern, row["name"])]
        bad = [row for row in rows if row.get("error_occurred")]
        good = [(row[counter], bound_of(row, counter)) for row in rows
                if counter in row and bound_of(row, counter)]
        text = [f"{name_of(row)}: {row['error_message']}" for row in bad]
        if data.get("cut_short"):
            text.append("stopped before its end")
        if good:
            values = sorted(value for value, _ in good)
            spread = number(values[0])
            if len(values) > 1:
                spread += f" to {number(values[-1])}"
            met = sum(reaches(*each) for each in good)
            verdict = "reached" if met == len(good) else "**missed**"
            text.insert(0, f"{verdict}: {spread} ({met} of {len(good)})")
        yield loop, wanted, "; ".join(text) or "no such benchmark in the file", f"`gpu {file}`"


def loops(results):
    lines = ["| loop | must reach | measured | `./build.sh` |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in loop_rows(results)]
    rates = {}
    for data in results.values():
        if isinstance(data, dict) and "benchmarks" in data and is_device(data):
            context = data["context"]
            rates.setdefault(described(context), []).append(float(context["copy_GB_per_s"]))
    for machine, copies in sorted(rates.items()):
        lines += ["", f"Measured on: {machine}; copies of {min(copies):.0f} to {max(copies):.0f} GB/s."]
    return "\n".join(lines)


MACHINE = (("device", "{}"), ("DUALSFT_DRIVER", "driver {}"), ("nvcc", "nvcc {}"),
           ("DUALSFT_COMMIT", "commit {}"))
RATES = (("copy_GB_per_s", "copy {} GB/s"), ("product_TFLOP_per_s", "bf16 product {} TFLOP/s"),
         ("DUALSFT_CLOCKS", "clocks and power {}"))


def described(context, parts=MACHINE):
    return ", ".join(text.format(context[key]) for key, text in parts if context.get(key))


def everything(name, data):
    """All counters of one file of Google Benchmark."""
    if isinstance(data, str):
        return f"### {name}\n\n{data}\n"
    cut = ["Stopped before its end.", ""] if data.get("cut_short") else []
    lines = [f"### {name}", "", described(data["context"], MACHINE + RATES), "", *cut,
             "| benchmark | ms | limit | ratios | must reach |", "| --- | --- | --- | --- | --- |"]
    for row in data["benchmarks"]:
        if row.get("error_occurred"):
            lines.append(f"| {name_of(row)} | {row['error_message']} | | | |")
            continue
        counters = {k: v for k, v in row.items() if k not in KNOWN and isinstance(v, (int, float))}
        ratios = [f"{k[9:]} {number(v)}" for k, v in counters.items() if k.startswith("ratio_to_")]
        wanted = []
        for key in counters:
            kind, _, counter = key.partition(":")
            if kind in ("at_least", "at_most") and counter in counters:
                met = reaches(counters[counter], bound_of(row, counter))
                sign = ">=" if kind == "at_least" else "<="
                wanted.append(f"{counter} {number(counters[counter])} {sign} {number(counters[key])}: "
                              + ("reached" if met else "**missed**"))
        limit = number(counters["limit_ms"]) if "limit_ms" in counters else ""
        lines.append(f"| {name_of(row)} | {number(counters.get('ms', math.nan))} | {limit} | "
                     f"{', '.join(ratios)} | {'; '.join(wanted)} |")
    return "\n".join(lines) + "\n"


def pytorch(data):
    if isinstance(data, str):
        return f"### PyTorch\n\n{data}\n"
    context = data["context"]
    lines = ["### PyTorch", "", ", ".join(f"{k} {v}" for k, v in context.items()), "",
             "| what | ms | others |", "| --- | --- | --- |"]
    for row in data["baselines"]:
        if "error" in row:
            lines.append(f"| {row['name']} | failed | {row['error'].splitlines()[0][:160]} |")
            continue
        rest = ", ".join(f"{k} {number(v) if isinstance(v, (int, float)) else v}"
                         for k, v in row.items() if k not in ("name", "ms"))
        lines.append(f"| {row['name']} | {number(row['ms']) if 'ms' in row else ''} | {rest} |")
    return "\n".join(lines) + "\n"


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--into"):
        sys.exit(__doc__)
    results = load(arguments[0])
    if len(arguments) == 3:
        page = pathlib.Path(arguments[2])
        begin, end = "<!-- device table -->\n", "<!-- end -->"
        head, found, rest = page.read_text().partition(begin)
        _, found_too, tail = rest.partition(end)
        if not (found and found_too):
            sys.exit(f"{page} has no place for the table")
        page.write_text(head + begin + "\n" + loops(results) + "\n\n" + end + tail)
        return
    print("## The loops\n\n" + loops(results) + "\n")
    for name, data in results.items():
        print(pytorch(data) if name == "pytorch" else everything(name, data))


main()
