#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch takes on this device for the work that the device's benchmarks measure.

    python3 bench/compare_gpu.py [docs/results/gpu_pytorch.json]

Each baseline is timed by events with a cold second-level cache, and beside it, round by round, a copy
and a bf16 product of the same process, so that ratios are of one moment. One that fails leaves its error
instead of a time; the file is whole after each. Needs nothing but PyTorch.

Environment: COMPARE_SECONDS (default 130): what is not begun by then is left out, and says so.
DUALSFT_BENCH_SMALL: small sizes, on the processor where there is no device: a test of this script.
"""

import gc
import json
import math
import os
import pathlib
import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

small = "DUALSFT_BENCH_SMALL" in os.environ
if not torch.cuda.is_available() and not small:
    print("skipped: PyTorch sees no CUDA device")
    sys.exit(77)
on_device = torch.cuda.is_available()
device = "cuda" if on_device else "cpu"
began = time.monotonic()
seconds = float(os.environ.get("COMPARE_SECONDS", "130"))


def pick(size, small_size):
    return small_size if small else size


D = pick(3_212_749_824, 200_003)  # Llama-3.2-3B
TOKENS, VOCABULARY = pick(8192, 24), pick(128_256, 300)

# ---- timing ---------------------------------------------------------------------------------------

flush = torch.empty(
    3 * torch.cuda.get_device_properties(0).L2_cache_size if on_device else 1024,
    dtype=torch.uint8, device=device)


def once(work, cold=True):
    """Milliseconds of one call."""
    if cold:
        flush.fill_(1)
    if not on_device:
        start = time.perf_counter()
        work()
        return max(1e-6, 1e3 * (time.perf_counter() - start))
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


class Limits:
    """The device's copy and bf16 product, as they are now."""

    def __init__(self):
        n = pick(1 << 31, 1 << 12)
        self.source = torch.full((n,), 0x5a, dtype=torch.uint8, device=device)
        self.target = torch.zeros_like(self.source)
        self.bytes = 2 * n
        m = pick(8192, 32)
        self.a = torch.randn(m, m, device=device).bfloat16()
        self.b = torch.randn(m, m, device=device).bfloat16()
        self.operations = 2 * m ** 3

    def copy(self):
        self.target.copy_(self.source)

    def product(self):
        return self.a @ self.b.T


limits = Limits()


def measure(work, bytes=0, operations=0, rounds=10, prepare=None):
    """The median of `rounds` calls, after two that do not count.

    :param bytes: read and written at least; adds GB_per_s and ratio_to_copy
    :param operations: adds TFLOP_per_s and ratio_to_product
    """
    rounds = pick(rounds, 1)
    times, copies, products = [], [], []
    for k in range(rounds + 2):
        if prepare:
            prepare()
        t = once(work)
        if k < 2:
            continue
        times.append(t)
        copies.append(once(limits.copy))
        products.append(once(limits.product))
    ms = statistics.median(times)
    out = {"ms": ms}
    if bytes:
        out["GB_per_s"] = bytes / ms / 1e6
        out["copy_GB_per_s"] = limits.bytes / statistics.median(copies) / 1e6
        out["ratio_to_copy"] = out["GB_per_s"] / out["copy_GB_per_s"]
    if operations:
        out["TFLOP_per_s"] = operations / ms / 1e9
        out["product_TFLOP_per_s"] = limits.operations / statistics.median(products) / 1e9
        out["ratio_to_product"] = out["TFLOP_per_s"] / out["product_TFLOP_per_s"]
    return out


# ---- baselines ------------------------------------------------------------------------------------


def accumulate(dtype):
    n = D
    total = torch.zeros(n, device=device)
    gradient = torch.ones(n, device=device, dtype=dtype)
    out = measure(lambda: total.add_(gradient), bytes=n * (8 + gradient.element_size()))
    assert float(total[-1]) == float(total[0]) == pick(10, 1) + 2
    return out


def topk_is_right(x, k, values, indices):
    """By counting, as an index list of this size cannot be compared cheaply."""
    kth = values.min()
    above, reached = int((x > kth).sum()), int((x >= kth).sum())
    same = bool((x.gather(0, indices) == values).all())
    distinct = int(torch.zeros_like(x, dtype=torch.bool).index_fill_(0, indices, True).sum())
    return above < k <= reached and same and distinct == k


def topk(n):
    x = torch.empty(n, device=device)
    for begin in range(0, n, 1 << 28):  # one call for all of it would need int64 offsets in normal_
        x[begin:begin + (1 << 28)].normal_()
    k = n // 20
    values, indices = torch.topk(x, k, sorted=False)
    right = topk_is_right(x, k, values, indices)
    del values, indices
    out = measure(lambda: torch.topk(x, k, sorted=False), bytes=4 * n, rounds=3)
    out["result"] = "right" if right else "WRONG: not the K largest"
    return out


def dense_scores():
    n, d, eta = pick(4096, 9), pick(1_000_000, 100), 2.0 ** -10
    g = torch.randn(n, d, device=device)
    v, c = torch.randn(d, device=device), torch.rand(d, device=device)

    def work():
        column = g.sum(0)
        p = v - eta / 2 * c * column
        return eta * column * p, eta * (g @ p)

    by_parameter, by_example = work()
    scale = float(by_parameter.double().abs().sum())
    assert abs(float(by_parameter.double().sum() - by_example.double().sum())) <= 1e-4 * scale
    return measure(work, bytes=4 * n * d)  # as if read once


def adamw(count, dtype, pieces):
    sizes = [count // pieces + (1 if i < count % pieces else 0) for i in range(pieces)]
    parameters = [torch.zeros(n, device=device, dtype=dtype, requires_grad=True) for n in sizes]
    for p in parameters:
        p.grad = torch.full_like(p, 1e-3)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=on_device)
    optimizer.step()
    assert float(parameters[-1].detach()[-1]) < 0
    width = parameters[0].element_size()
    out = measure(optimizer.step, bytes=count * 7 * width)  # theta, m, s read and written, g read
    state = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values()
                if torch.is_tensor(t))
    out["state_bytes"] = state
    return out


def masked_adamw_by_indexing():
    """The compact state in plain statements."""
    k = D // 20
    selected = torch.randint(0, D, (k,), device=device).sort().values.unique()
    k = selected.numel()
    theta = torch.zeros(D, device=device, dtype=torch.bfloat16)
    gradient = torch.full_like(theta, 1e-3)
    m, s = torch.zeros(k, device=device), torch.zeros(k, device=device)

    def work():
        g = gradient[selected].float()
        m.lerp_(g, 0.1)
        s.mul_(0.999).addcmul_(g, g, value=0.001)
        w = theta[selected].float()
        theta[selected] = (w * (1 - 1e-5) - 1e-3 * m / (s.sqrt() + 1e-8)).bfloat16()

    work()
    assert float(theta[selected[-1]]) < 0
    return measure(work)


def distillation_loss(student, teacher, temperature):
    """Weighted KL(teacher || student) at a temperature; the weight is the teacher's confidence."""
    log_q = F.log_softmax(teacher.float() / temperature, -1)
    log_p = F.log_softmax(student.float() / temperature, -1)
    q = log_q.exp()
    divergence = (q * (log_q - log_p)).sum(-1)
    weight = 1 + (q * log_q).sum(-1) / math.log(teacher.shape[-1])
    return (weight.detach() * divergence).sum() * temperature ** 2 / TOKENS


def distillation(compiled):
    temperature = 2.0
    student = torch.randn(TOKENS, VOCABULARY, device=device).bfloat16().requires_grad_()
    teacher = torch.randn(TOKENS, VOCABULARY, device=device).bfloat16()
    loss = torch.compile(distillation_loss) if compiled else distillation_loss
    rows = TOKENS

    def work():
        grads = []
        for begin in range(0, TOKENS, rows):
            part = student[begin:begin + rows].detach().requires_grad_()
            grads += torch.autograd.grad(loss(part, teacher[begin:begin + rows], temperature), part)
        return grads

    while True:
        try:
            gradient = work()[0]
            break
        except torch.OutOfMemoryError:
            rows //= 2
            torch.cuda.empty_cache()
            if rows < 256:
                raise
    x, y = student[0].detach().float() / temperature, teacher[0].float() / temperature
    p, q = x.softmax(0), y.softmax(0)
    weight = 1 + (q * q.log()).sum() / math.log(VOCABULARY)
    right = (weight * temperature / TOKENS * (p - q)).float()
    assert float((gradient[0].float() - right).abs().max()) <= 0.02 * float(right.abs().max())
    out = measure(work, bytes=6 * TOKENS * VOCABULARY, rounds=5)  # both read once, one written
    out["rows_at_once"] = rows
    return out


def attention_inputs(tangents):
    batch, heads, kv, length, size = pick((8, 24, 8, 1024, 128), (2, 4, 2, 16, 8))
    shapes = [(batch, heads, length, size)] + [(batch, heads, length, size)] * 2
    make = lambda: tuple(torch.randn(s, device=device).bfloat16() for s in shapes)
    operations = 4 * size * heads * batch * (length * (length + 1) // 2)
    return make(), make() if tangents else None, operations


def sdpa(backend):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    (q, k, v), _, operations = attention_inputs(False)
    with sdpa_kernel(getattr(SDPBackend, backend)):
        return measure(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                       operations=operations)


def sdpa_with_tangents():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    values, rates, operations = attention_inputs(True)

    def work():
        return torch.func.jvp(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                              values, rates)

    with sdpa_kernel(SDPBackend.MATH):
        return measure(work, operations=3 * operations, rounds=5)


def rms_norm_with_tangents():
    x, dx = (torch.randn(TOKENS, pick(3072, 32), device=device).bfloat16() for _ in range(2))
    gain, rate = (torch.randn(x.shape[1], device=device).bfloat16() for _ in range(2))
    return measure(
        lambda: torch.func.jvp(lambda a, w: F.rms_norm(a, (a.shape[1],), w), (x, gain), (dx, rate)),
        bytes=8 * x.numel())


def swiglu_with_tangents():
    width = pick(8192, 32)
    a, b, da, db = (torch.randn(TOKENS, width, device=device).bfloat16() for _ in range(4))
    return measure(lambda: torch.func.jvp(lambda x, y: F.silu(x) * y, (a, b), (da, db)),
                   bytes=12 * a.numel())


def product(inputs, outputs):
    x = torch.randn(TOKENS, inputs, device=device).bfloat16()
    w = torch.randn(outputs, inputs, device=device).bfloat16()
    return measure(lambda: x @ w.T, operations=2 * TOKENS * inputs * outputs)


def baselines():
    yield "copy", lambda: measure(limits.copy, bytes=limits.bytes)
    yield "bf16 product 8192^3", lambda: measure(limits.product, operations=limits.operations)
    yield "accumulate bf16 into f32 (add_), d", lambda: accumulate(torch.bfloat16)
    yield "accumulate f32 into f32 (add_), d", lambda: accumulate(torch.float32)
    for n in (1 << 20, 1 << 24, 1 << 28, D):
        yield f"topk 5 % of f32, n = {n}", lambda n=n: topk(pick(n, 1000))
    yield "dense scores 4096 x 1e6 f32, sum(0) and matvec", dense_scores
    yield ("fused AdamW, dense, bf16 state, 547e6 parameters",
           lambda: adamw(pick(547_000_000, 1000), torch.bfloat16, 8))
    yield "fused AdamW, dense, bf16 state, d", lambda: adamw(D, torch.bfloat16, 28)
    yield "fused AdamW, dense, f32 state, d", lambda: adamw(D, torch.float32, 28)
    yield "masked AdamW 5 % of d by indexing, bf16 weights", masked_adamw_by_indexing
    for model, shapes in (
            ("Llama-3.2-3B", ((3072, 3072), (3072, 1024), (3072, 8192), (8192, 3072),
                              (3072, 128256))),
            ("Qwen2.5-7B", ((3584, 3584), (3584, 512), (3584, 18944), (18944, 3584),
                            (3584, 152064)))):
        for shape in shapes:
            yield (f"bf16 product {model} {TOKENS} tokens {shape[0]} -> {shape[1]}",
                   lambda s=shape: product(*pick(s, (16, 24))))
    yield "attention 8 x 1024, 24 heads of 128, flash", lambda: sdpa("FLASH_ATTENTION")
    yield "attention 8 x 1024, 24 heads of 128, cuDNN", lambda: sdpa("CUDNN_ATTENTION")
    yield "attention 8 x 1024, 24 heads of 128, math", lambda: sdpa("MATH")
    yield "attention with tangents (torch.func.jvp, math)", sdpa_with_tangents
    yield "RMSNorm with tangents (torch.func.jvp), 8192 x 3072", rms_norm_with_tangents
    yield "SwiGLU with tangents (torch.func.jvp), 8192 x 8192", swiglu_with_tangents
    yield "distillation KL and gradient 8192 x 128256 bf16, eager", lambda: distillation(False)
    yield "the same, torch.compile", lambda: distillation(True)


# ---- the run --------------------------------------------------------------------------------------


def context():
    out = {"torch": torch.__version__, "cuda": torch.version.cuda,
           "driver": os.environ.get("DUALSFT_DRIVER", ""),
           "commit": os.environ.get("DUALSFT_COMMIT", ""),
           "clocks": os.environ.get("DUALSFT_CLOCKS", "")}
    if on_device:
        it = torch.cuda.get_device_properties(0)
        out |= {"device": it.name, "multiprocessors": it.multi_processor_count,
                "memory_GB": round(it.total_memory / 1e9, 1), "l2_MB": it.L2_cache_size / 1e6,
                "cudnn": torch.backends.cudnn.version()}
    else:
        out["device"] = "the processor: no time means anything"
    return out


def main():
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/gpu_pytorch.json")
    results = {"context": context(), "baselines": []}
    for name, body in baselines():
        row = {"name": name}
        if time.monotonic() - began > seconds:
            row["error"] = f"not run: {seconds:.0f} s were over"
        else:
            try:
                row |= body()
            except Exception as error:  # whatever PyTorch says is the result
                row["error"] = f"{type(error).__name__}: {error}"
                if not isinstance(error, torch.OutOfMemoryError):
                    traceback.print_exc()
            gc.collect()
            if on_device:
                torch.cuda.empty_cache()
        results["baselines"].append(row)
        print(json.dumps(row), flush=True)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps(results, indent=1) + "\n")
        fresh.replace(path)


main()
