#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/results/gpu_*.json as Markdown: what was measured on a device, beside what it must reach.

    python3 bench/gpu_table.py docs/results                              # everything
    python3 bench/gpu_table.py docs/results --into docs/benchmarks.md    # the loops alone

--into replaces what stands between `<!-- device table -->` and `<!-- end -->`: what each loop must reach,
and what it takes beside each baseline, where the baseline wins too. A loop or a baseline without a result
is "not measured"; nothing is computed but the worst of several, passed or missed, and quotients of two
programs' times.
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
# What the programs themselves time in turns with a loop: work, file, benchmarks, counters and what they are.
# What PyTorch's file has says itself which benchmark it belongs to.
PART = ", a part of the work"
BESIDE = [
    ("exact Top-K 5 % of stored f32 scores", "topk", r"topk/.*/beside_sorts/",
     {"cub_sort": "`cub::DeviceRadixSort` of the keys", "thrust_sort": "`thrust::sort` of the keys",
      "cub_topk": "`cub::DeviceTopK`, which tells no boundary"}),
    ("p, its copy, Top-K 5 % and mask", "projection", r"projection/.*/beside_sort/",
     {"pass_and_cub_sort": "one plain pass, then `cub::DeviceRadixSort`"}),
    ("dense dual scores, orders that wait for columns' sums", "dense_scores",
     r"dense_scores/(diagonal|joint)/", {"two_reads": "our kernels with two reads of the matrix"}),
    ("ghost data scores of linear layers", "ghost_scores", r"ghost_scores/.*/bf16/tokens",
     {"cublaslt": "cuBLASLt's product alone" + PART,
      "cublaslt_then_dot": "cuBLASLt's product, then the dots"}),
    ("attention with tangents", "attention", r"attention/tangent/",
     {"forward": "our attention without tangents" + PART}),
    ("masked AdamW, all at once, no masters", "masked_adamw", r"masked_adamw/(bf16|f32)/d:",
     {"dense_adamw": "a plain kernel of dense AdamW"}),
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


def is_number(value):
    """NaN and infinity are; integers that no float holds are not."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10 ** 300)


def check(data, wants):
    """A file from elsewhere is told apart by its shape."""
    if not isinstance(data, dict) or wants not in data:
        raise ValueError("it has no results")
    rows = data[wants]
    if not isinstance(data.get("context"), dict) or not isinstance(rows, list):
        raise ValueError(f"its context is no object or its {wants} are no list")
    for key in ("device", "copy_GB_per_s") if wants == "benchmarks" else ("device",):
        if not isinstance(data["context"].get(key), str):
            raise ValueError(f"its context has no {key}")
    float(data["context"].get("copy_GB_per_s", "0"))
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ValueError(f"{wants[:-1]} {i} is no object with a name")
        for key, value in row.items():
            counter = (key.startswith(("ratio", "at_", "bytes", "milliseconds", "real_time")) or
                       key == "ms" or key.endswith(("_ms", "_bytes")))
            if counter and not is_number(value):
                raise ValueError(f"{wants[:-1]} {i}: {key} is no number")
        for key in ("beside", "error", "error_message"):
            if not isinstance(row.get(key, ""), str):
                raise ValueError(f"{wants[:-1]} {i}: {key} is no text")


def load(folder):
    """Name without gpu_ -> parsed file, or the reason why there is none."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("gpu_*.json")):
        name = path.stem[4:]
        try:
            data = parse(path.read_text(encoding="utf-8"))
            check(data, "baselines" if name == "pytorch" else "benchmarks")
            found[name] = data
        except OSError as error:
            found[name] = cell(f"{path.name} cannot be read: {error.strerror}")
        except (ValueError, RecursionError) as error:
            found[name] = cell(f"{path.name} is not whole: {error}")
    return found


def cell(text):
    """What a file says, as part of a table: one line, no column, no markup, not without end."""
    text = " ".join(str(text).encode("utf-8", "replace").decode().split())
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'")):
        text = text.replace(sign, written)
    return text if len(text) <= 300 else text[:300] + " ..."


def name_of(row):
    return cell(re.sub(r"/iterations:\d+|/manual_time", "", row["name"]))


def error_of(row):
    """The first line of what went wrong."""
    text = row.get("error_message", row.get("error", ""))
    return cell((text.strip().splitlines() or ["it failed"])[0])


def number(x):
    return f"{x:.3g}" if isinstance(x, float) and abs(x) < 1e5 else f"{x:.4g}"


def spread(values, unit=""):
    low, high = number(min(values)), number(max(values))
    return (low if low == high else f"{low} to {high}") + unit


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
    context = data["context"]
    if "benchmarks" in data:
        return not str(context.get("nvcc", "none")).startswith("none")
    return not context["device"].startswith("the processor")


PLAYED = "no device: a processor played it"


def measured(results, file):
    """A file's results, or the reason why there are none."""
    data = results.get(file)
    if data is None:
        return "not measured yet: no device was at hand"
    if isinstance(data, str) or not is_device(data):
        return data if isinstance(data, str) else PLAYED
    return data


def loop_rows(results):
    for loop, file, pattern, counter, wanted in LOOPS:
        data = measured(results, file)
        if isinstance(data, str):
            yield loop, wanted, data, f"`gpu {file}`"
            continue
        rows = [row for row in data["benchmarks"] if re.match(pattern, row["name"])]
        bad = [row for row in rows if row.get("error_occurred")]
        good = [(row[counter], bound_of(row, counter)) for row in rows
                if counter in row and bound_of(row, counter)]
        text = [f"{name_of(row)}: {error_of(row)}" for row in bad]
        if data.get("cut_short"):
            text.append("stopped before its end")
        if good:
            met = sum(reaches(*each) for each in good)
            verdict = "reached" if met == len(good) else "**missed**"
            text.insert(0, f"{verdict}: {spread([value for value, _ in good])} ({met} of {len(good)})")
        yield loop, wanted, "; ".join(text) or "no such benchmark in the file", f"`gpu {file}`"


def are_times(pair):
    return all(math.isfinite(x) and x > 0 for x in pair[1:])


def compared(what, pairs):
    """Cells of [(name, our ms, their ms, quotient)]: both times, and who is ahead, unless they do less."""
    behind = [(name, quotient) for name, _, _, quotient in pairs if quotient < 1]
    verdict = spread([quotient for _, _, _, quotient in pairs])
    if not what.endswith(PART):
        if len(pairs) > 1:
            verdict += f"; ahead in {len(pairs) - len(behind)} of {len(pairs)}"
        if len(behind) == len(pairs):
            verdict += ", **behind**"
        elif behind:
            verdict += ", **behind** in " + ", ".join(f"{n} ({number(q)})" for n, q in behind)
    return (spread([ours for _, ours, _, _ in pairs], " ms"),
            spread([theirs for _, _, theirs, _ in pairs], " ms"), verdict)


def beside_rows(results):
    """What a program timed in turns with its own work."""
    for work, file, pattern, baselines in BESIDE:
        data = measured(results, file)
        rows = [] if isinstance(data, str) else [
            row for row in data["benchmarks"] if re.match(pattern, row["name"])]
        good = [row for row in rows if not row.get("error_occurred") and "ms" in row]
        known = dict(baselines)
        for row in good:
            for key in row:
                if key.startswith("ratio_to_") and key[9:] + "_ms" in row:
                    known.setdefault(key[9:], cell(key[9:]))
        for counter, what in known.items():
            pairs = [(name_of(row), row["ms"], row[counter + "_ms"], row["ratio_to_" + counter])
                     for row in good if {counter + "_ms", "ratio_to_" + counter} <= row.keys()]
            notes = [f"{name_of(row)}: {error_of(row)}" for row in rows if row.get("error_occurred")]
            notes += [f"{pair[0]}: no time" for pair in pairs if not are_times(pair)]
            pairs = [pair for pair in pairs if are_times(pair)]
            if isinstance(data, str):
                notes = [data]
            elif not pairs and not notes:
                notes = ["not measured: the file has no such counter"]
            yield work, what, pairs, notes


def others_rows(results):
    """What bench/compare_gpu.py timed, beside the benchmarks that it names."""
    others = measured(results, "pytorch")
    if isinstance(others, str):
        yield "every loop", "PyTorch and Liger-Kernel", [], [others]
        return
    ours = {}
    for name, data in results.items():
        if not name.startswith("ladder_") and name != "pytorch" and not isinstance(data, str):
            for row in data["benchmarks"]:
                ours.setdefault(name_of(row), (data, row))
    groups = {}
    for row in others["baselines"]:
        if "beside" in row:
            groups.setdefault(cell(row["name"]), []).append(row)
    if not groups:
        yield "every loop", "PyTorch and Liger-Kernel", [], ["not measured: the file names no loop"]
    for what, rows in groups.items():
        pairs, notes, work = [], [], []
        for row in rows:
            name = cell(row["beside"])
            work.append(name)
            notes += [f"{cell(key)}: {cell(value)}" for key, value in row.items()
                      if isinstance(value, str) and key not in ("name", "beside", "error")
                      and value != "right"]
            why = None
            data, own = ours.get(name, (None, None))
            if "error" in row:
                why = error_of(row)
            elif own is None:
                why = "ours was not measured"
            elif not is_device(data):
                why = PLAYED
            elif own.get("error_occurred"):
                why = error_of(own)
            elif data["context"]["device"] != others["context"]["device"]:
                why = "ours was measured on another device"
            else:
                mine, theirs = own.get("ms", math.nan), row.get("ms", math.nan)
                pair = (name, mine, theirs, theirs / mine if mine else math.nan)
                if are_times(pair):
                    pairs.append(pair)
                else:
                    why = "no time"
            if why:
                notes.append(f"{name}: {why}" if len(rows) > 1 else why)
        more = f" and {len(work) - 1} more" if len(work) > 1 else ""
        yield work[0] + more, what, pairs, list(dict.fromkeys(notes))


def loops(results):
    lines = ["| loop | must reach | measured | `./build.sh` |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in loop_rows(results)]
    lines += ["", "Beside what else does the work, or a part of it (below 1: theirs takes less time). PyTorch and "
              "Liger-Kernel run in a process of their own.", "",
              "| work | beside | ours | theirs | theirs / ours |", "| --- | --- | --- | --- | --- |"]
    for work, what, pairs, notes in [*beside_rows(results), *others_rows(results)]:
        ours, theirs, verdict = compared(what, pairs) if pairs else ("", "", "")
        verdict = "; ".join(([verdict] if verdict else []) + notes)
        lines.append("| " + " | ".join((work, what, ours, theirs, verdict)) + " |")
    machines = {}
    for data in results.values():
        if isinstance(data, dict) and is_device(data):
            context = data["context"]
            copies = machines.setdefault(described(context), [])
            if "copy_GB_per_s" in context:
                copies.append(float(context["copy_GB_per_s"]))
    for machine, copies in sorted(machines.items()):
        rates = f"; copies of {min(copies):.0f} to {max(copies):.0f} GB/s" if copies else ""
        lines += ["", f"Measured on: {machine}{rates}."]
    return "\n".join(lines)


MACHINE = (("device", "{}"), ("DUALSFT_DRIVER", "driver {}"), ("driver", "driver {}"),
           ("nvcc", "nvcc {}"), ("torch", "PyTorch {}"), ("liger_kernel", "Liger-Kernel {}"),
           ("DUALSFT_COMMIT", "commit {}"), ("commit", "commit {}"))
RATES = (("copy_GB_per_s", "copy {} GB/s"), ("product_TFLOP_per_s", "bf16 product {} TFLOP/s"),
         ("DUALSFT_CLOCKS", "clocks and power {}"))


def described(context, parts=MACHINE):
    return ", ".join(text.format(cell(context[key])) for key, text in parts if context.get(key))


def everything(name, data):
    """All counters of one file of Google Benchmark."""
    if isinstance(data, str):
        return f"### {name}\n\n{data}\n"
    cut = ["Stopped before its end.", ""] if data.get("cut_short") else []
    lines = [f"### {name}", "", described(data["context"], MACHINE + RATES), "", *cut,
             "| benchmark | ms | limit | ratios | must reach |", "| --- | --- | --- | --- | --- |"]
    for row in data["benchmarks"]:
        if row.get("error_occurred"):
            lines.append(f"| {name_of(row)} | {error_of(row)} | | | |")
            continue
        counters = {k: v for k, v in row.items() if k not in KNOWN and is_number(v)}
        ratios = [f"{cell(k[9:])} {number(v)}" +
                  (f" ({number(counters[k[9:] + '_ms'])} ms)" if k[9:] + "_ms" in counters else "")
                  for k, v in counters.items() if k.startswith("ratio_to_")]
        wanted = []
        for key in counters:
            kind, _, counter = key.partition(":")
            if kind in ("at_least", "at_most") and counter in counters:
                met = reaches(counters[counter], bound_of(row, counter))
                sign = ">=" if kind == "at_least" else "<="
                wanted.append(f"{cell(counter)} {number(counters[counter])} {sign} {number(counters[key])}: "
                              + ("reached" if met else "**missed**"))
        limit = number(counters["limit_ms"]) if "limit_ms" in counters else ""
        lines.append(f"| {name_of(row)} | {number(counters.get('ms', math.nan))} | {limit} | "
                     f"{', '.join(ratios)} | {'; '.join(wanted)} |")
    return "\n".join(lines) + "\n"


def pytorch(data):
    if isinstance(data, str):
        return f"### PyTorch\n\n{data}\n"
    lines = ["### PyTorch", "", ", ".join(f"{cell(k)} {cell(v)}" for k, v in data["context"].items()),
             "", "| what | ms | others |", "| --- | --- | --- |"]
    for row in data["baselines"]:
        if "error" in row:
            lines.append(f"| {cell(row['name'])} | failed | {error_of(row)} |")
            continue
        rest = ", ".join(f"{cell(k)} {number(v) if is_number(v) else cell(v)}"
                         for k, v in row.items() if k not in ("name", "ms"))
        lines.append(f"| {cell(row['name'])} | {number(row['ms']) if 'ms' in row else ''} | {rest} |")
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
