#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What PyTorch takes on this device for the work that the device's benchmarks measure.

    python3 bench/compare_gpu.py [docs/results/gpu_pytorch.json]

Each baseline is timed by events with a cold second-level cache, and beside it, round by round, a copy
and a bf16 product of the same process, so that ratios are of one moment. One that fails leaves its error
instead of a time; the file is whole after each. `beside` in a result names the benchmark of ours that does
the same work; bench/gpu_table.py puts the two side by side. Needs nothing but PyTorch.

Where liger_kernel can be imported (the calls are 0.8.5's), its distillation losses are timed too, gradients
included, each as KL(teacher || student), which is ours with equal weights; where it cannot, they are left out
and the results say so:

    liger_kernel.transformers.LigerKLDIVLoss(reduction="batchmean")(log_p, q)
    liger_kernel.transformers.LigerFusedLinearJSD(jsd_beta=0.0, temperature=2.0)(
        student_input, student_weight, teacher_input, teacher_weight, None)
    liger_kernel.chunked_loss.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, temperature=2.0)(
        student_input, student_weight, teacher_input, teacher_weight, true_labels)

Environment: COMPARE_SECONDS (default 130): what is not begun by then is left out, and says so.
DUALSFT_BENCH_SMALL: small sizes, on the processor where there is no device: a test of this script.
"""

import gc
import importlib
import importlib.metadata
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


def in_pieces(gradient_of, rows):
    """Calls gradient_of(begin, end) for as many rows at once as memory allows, halved until it does.

    :returns: work that does so, the first rows' gradient, how many rows
    """
    at_once = rows
    while True:
        try:
            first = gradient_of(0, at_once)
            break
        except torch.OutOfMemoryError:
            at_once //= 2
            torch.cuda.empty_cache()
            if at_once < 256:
                raise

    def work():
        return [gradient_of(begin, begin + at_once) for begin in range(0, rows, at_once)]

    return work, first, at_once


def distillation(compiled):
    temperature = 2.0
    student = torch.randn(TOKENS, VOCABULARY, device=device).bfloat16()
    teacher = torch.randn(TOKENS, VOCABULARY, device=device).bfloat16()
    loss = torch.compile(distillation_loss) if compiled else distillation_loss

    def gradient_of(begin, end):
        part = student[begin:end].detach().requires_grad_()
        return torch.autograd.grad(loss(part, teacher[begin:end], temperature), part)[0]

    work, gradient, rows = in_pieces(gradient_of, TOKENS)
    x, y = student[0].float() / temperature, teacher[0].float() / temperature
    p, q = x.softmax(0), y.softmax(0)
    weight = 1 + (q * q.log()).sum() / math.log(VOCABULARY)
    right = (weight * temperature / TOKENS * (p - q)).float()
    assert float((gradient[0].float() - right).abs().max()) <= 0.02 * float(right.abs().max())
    del gradient
    out = measure(work, bytes=6 * TOKENS * VOCABULARY, rounds=5)  # both read once, one written
    out["rows_at_once"] = rows
    return out


# ---- Liger-Kernel ---------------------------------------------------------------------------------


class LeftOut(Exception):
    pass


def liger(module, name):
    try:
        return getattr(importlib.import_module("liger_kernel." + module), name)
    except Exception as error:  # whatever its import says
        raise LeftOut(f"no liger_kernel here ({type(error).__name__}: {error})") from error


def liger_divergence():
    """From logits, as ours: the soft-maxima that it wants are part of the work."""
    loss = liger("transformers", "LigerKLDIVLoss")(reduction="batchmean")
    rows, classes = pick(16384, 24), pick(131_072, 300)
    student, teacher = (torch.randn(rows, classes, device=device) for _ in range(2))

    def gradient_of(begin, end):
        part = student[begin:end].detach().requires_grad_()
        return torch.autograd.grad(loss(part.log_softmax(-1), teacher[begin:end].softmax(-1)), part)[0]

    work, gradient, at_once = in_pieces(gradient_of, rows)
    right = (student[0].softmax(0) - teacher[0].softmax(0)) / at_once
    assert float((gradient[0] - right).abs().max()) <= 1e-3 * float(right.abs().max())
    del gradient
    out = measure(work, bytes=12 * rows * classes, rounds=5)
    out["rows_at_once"] = at_once
    return out


def liger_through_head(module, name, options, width, teacher_width, labels):
    """Both gradients, of the hidden states and of the head; the latter is summed in bf16, its default."""
    loss = liger(module, name)(temperature=2.0, **options)

    def pair(columns):
        return (torch.randn(TOKENS, columns, device=device).bfloat16(),
                (torch.randn(VOCABULARY, columns, device=device) / math.sqrt(columns)).bfloat16())

    (x, w), (y, u) = pair(width), pair(teacher_width)
    for each in (x, w):
        each.requires_grad_()

    def work():
        return torch.autograd.grad(loss(x, w, y, u, labels), (x, w))

    row = work()[0][0].float()
    p = (x[0] @ w.T).float().div(2).softmax(0)
    q = (y[0] @ u.T).float().div(2).softmax(0)
    right = ((p - q) / (2 * TOKENS) @ w.float()).detach()
    assert float((row - right).abs().max()) <= 0.1 * float(right.abs().max())
    return measure(work, operations=2 * TOKENS * VOCABULARY * (teacher_width + 3 * width), rounds=3)


def liger_fused_linear_jsd():
    width = pick(4096, 32)
    return liger_through_head("transformers", "LigerFusedLinearJSD", {"jsd_beta": 0.0}, width, width,
                              None)


def liger_chunked_jsd():
    labels = torch.zeros(TOKENS, dtype=torch.long, device=device)  # hard labels weigh nothing
    return liger_through_head(
        "chunked_loss", "LigerFusedLinearJSDLoss",
        {"weight_hard_loss": 0.0, "weight_soft_loss": 1.0, "beta": 0.0},
        pick(2048, 16), pick(4096, 32), labels)


# ---- attention and other tangents -----------------------------------------------------------------


def attention(backend, tangents=False):
    """Ours has 8 heads of keys and values for 24 of queries. Where a PyTorch or a backend does not take
    that (enable_gqa), keys and values are repeated before the clock starts."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    batch, heads, kv, length, size = pick((8, 24, 8, 1024, 128), (2, 4, 2, 16, 8))
    make = lambda h: torch.randn(batch, h, length, size, device=device).bfloat16()
    values, rates = ((make(heads), make(kv), make(kv)) for _ in range(2))
    operations = 4 * size * heads * batch * (length * (length + 1) // 2)
    grouped = {"enable_gqa": True}
    taken = f"{kv}, enable_gqa"

    def call(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, **grouped)

    def work():
        return torch.func.jvp(call, values, rates) if tangents else (call(*values),)

    with sdpa_kernel(getattr(SDPBackend, backend)):
        try:
            out = work()[0]
        except (RuntimeError, TypeError) as error:
            grouped = {}
            taken = f"{heads}, repeated: {str(error).splitlines()[0][:80]}"
            values, rates = (tuple(x.repeat_interleave(heads // x.shape[1], 1) for x in each)
                             for each in (values, rates))
            out = work()[0]
        q, k, v = (x[0, -1].float() for x in values)
        right = (q[-1] @ k.T / math.sqrt(size)).softmax(0) @ v
        assert float((out[0, -1, -1].float() - right).abs().max()) <= 0.02
        found = measure(work, operations=(3 if tangents else 1) * operations,
                        rounds=5 if tangents else 10)
    return found | {"kv_heads": taken}


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
    """Name, the benchmark of ours that does the same work, and what measures it."""
    yield "copy", None, lambda: measure(limits.copy, bytes=limits.bytes)
    yield "bf16 product 8192^3", None, lambda: measure(limits.product, operations=limits.operations)
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
        yield (f"PyTorch add_ of {name} to f32", f"accumulate/{name}/n:3212749824",
               lambda t=dtype: accumulate(t))
    for n, ours in ((1 << 20, "topk/normal/value/n:1048576"), (1 << 24, "topk/normal/value/n:16777216"),
                    (1 << 28, "topk/normal/value/n:268435456"),
                    (D, "topk/normal/value/beside_sorts/n:3212749824")):
        yield "torch.topk, 5 %", ours, lambda n=n: topk(pick(n, 1000))
    yield ("PyTorch sum(0), then matvec", "dense_scores/diagonal/sgd/f32/n:4096/d:1000000", dense_scores)
    yield ("PyTorch fused AdamW, dense, bf16 state, 547e6 parameters", None,
           lambda: adamw(pick(547_000_000, 1000), torch.bfloat16, 8))
    yield ("PyTorch fused AdamW, dense, bf16 weights and state", "masked_adamw/bf16/d:3212749824",
           lambda: adamw(D, torch.bfloat16, 28))
    yield ("PyTorch fused AdamW, dense, f32 weights and state",
           "masked_adamw/bf16/masters/d:3212749824", lambda: adamw(D, torch.float32, 28))
    yield ("PyTorch masked AdamW by indexing", "masked_adamw/bf16/d:3212749824",
           masked_adamw_by_indexing)
    for model, shapes in (
            ("llama3b", (("q_o", 3072, 3072), ("kv", 3072, 1024), ("gate_up", 3072, 8192),
                         ("down", 8192, 3072), ("head", 3072, 128256))),
            ("qwen7b", (("q", 3584, 3584), ("kv", 3584, 512), ("gate_up", 3584, 18944),
                        ("down", 18944, 3584), ("head", 3584, 152064)))):
        for layer, *shape in shapes:
            yield ("PyTorch bf16 product alone, a part of the work",
                   f"ghost_scores/{model}/{layer}/bf16/tokens:8192",
                   lambda s=shape: product(*pick(s, (16, 24))))
    for backend, name in (("FLASH_ATTENTION", "flash"), ("CUDNN_ATTENTION", "cuDNN"), ("MATH", "math")):
        yield (f"PyTorch attention, {name}", "attention/forward/bf16/llama_3.2_3b/8x1024",
               lambda b=backend: attention(b))
    yield ("PyTorch attention with tangents (torch.func.jvp, math)",
           "attention/tangent/bf16/llama_3.2_3b/8x1024", lambda: attention("MATH", tangents=True))
    yield ("PyTorch RMSNorm with tangents (torch.func.jvp)", "tangents/norm/llama_3b",
           rms_norm_with_tangents)
    yield ("PyTorch SwiGLU with tangents (torch.func.jvp)", "tangents/silu_gate/llama_3b",
           swiglu_with_tangents)
    for compiled, name in ((False, "eager"), (True, "torch.compile")):
        yield (f"PyTorch distillation KL and gradient, {name}", "cwsd/bf16_applied/rows:8192/V:128256",
               lambda c=compiled: distillation(c))
    yield ("Liger-Kernel kl_div and gradient, from logits", "cwsd/f32_divergence/rows:16384/V:131072",
           liger_divergence)
    head = "cwsd_through_head/bf16/rows:8192/H:"
    yield ("Liger-Kernel fused_linear_jsd, KL", head + "4096/workspace_MB:512", liger_fused_linear_jsd)
    yield ("Liger-Kernel chunked distill_jsd, KL", head + "2048/H_teacher:4096/workspace_MB:512",
           liger_chunked_jsd)


# ---- the run --------------------------------------------------------------------------------------


def context():
    try:
        liger_version = importlib.metadata.version("liger-kernel")
    except importlib.metadata.PackageNotFoundError:
        liger_version = "none"
    out = {"torch": torch.__version__, "cuda": torch.version.cuda, "liger_kernel": liger_version,
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
    for name, beside, body in baselines():
        row = {"name": name} | ({"beside": beside} if beside else {})
        if time.monotonic() - began > seconds:
            row["error"] = f"not run: {seconds:.0f} s were over"
        else:
            try:
                row |= body()
            except LeftOut as error:
                row["error"] = f"left out: {error}"
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
