#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes parity/<family>.safetensors: what transformers and PyTorch say of tiny random models.

    pip install torch==2.9.1 transformers==4.57.1 safetensors==0.8.0 numpy==1.26.4
    python tests/llm/data/make_parity.py

The models run in double. transformers casts norms, softmax and rotary angles to float32 whatever the
model's type; here the modelling modules see a torch whose float32 is float64, so that the function is
the same and only rounding goes. Each file holds the config.json (metadata), the weights under their
checkpoint names, and for a batch of four sequences of different lengths:

    ids, labels        [4, longest]    -1 behind the end; labels -100 where nothing is predicted
    losses             [4]             mean over predicted tokens
    logits             [rows, V]       at predicted tokens, sequence after sequence
    grad.<name>                        of the sum of the losses
    direction          [d]             a vector p over all parameters, in the file's order of names
    dots               [4]             <g_i, p>
    cwsd.teacher       [rows of 0, V]  logits of another model for sequence 0
    cwsd.loss          [1]             entropy confidence, tau 2
    cwsd.grad.<name>                   its gradient
"""

import importlib
import json
import os

import numpy as np
import safetensors.numpy
import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


class DoubleTorch:
    """torch, but what asks for float32 gets float64."""

    float32 = torch.float64
    float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def in_double(*modules):
    for name in modules:
        importlib.import_module(name).torch = DoubleTorch()
    torch.Tensor.float = torch.Tensor.double
    # Nothing here asks for mixed precision, and a double autocast does not exist.


COMMON = dict(
    vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    attn_implementation="eager", dtype="float64",
)

FAMILIES = {
    "llama": ("llama", transformers.LlamaConfig, transformers.LlamaForCausalLM, dict(
        head_dim=4, tie_word_embeddings=False)),
    "llama3": ("llama", transformers.LlamaConfig, transformers.LlamaForCausalLM, dict(
        head_dim=8, tie_word_embeddings=True, rope_theta=500000.0, rms_norm_eps=1e-5,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=16))),
    "mistral": ("mistral", transformers.MistralConfig, transformers.MistralForCausalLM, dict(
        head_dim=4, sliding_window=5, tie_word_embeddings=False)),
    "qwen2": ("qwen2", transformers.Qwen2Config, transformers.Qwen2ForCausalLM, dict(
        tie_word_embeddings=True, rope_theta=1000000.0)),
    "qwen3": ("qwen3", transformers.Qwen3Config, transformers.Qwen3ForCausalLM, dict(
        head_dim=8, tie_word_embeddings=False)),
    "gemma3": ("gemma3", transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM, dict(
        head_dim=8, num_key_value_heads=1, num_hidden_layers=3, sliding_window=4,
        sliding_window_pattern=3, layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        query_pre_attn_scalar=12, rope_theta=1000000.0, rope_local_base_freq=10000.0,
        rope_scaling=dict(rope_type="linear", factor=8.0), hidden_activation="gelu_pytorch_tanh")),
}


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, w in model.named_parameters():
            scale = 0.3 if w.dim() == 2 else 0.1
            start = torch.zeros_like(w) if w.dim() == 2 or "bias" in name else w
            w.copy_(start + scale * torch.randn(w.shape, generator=generator))


def batch(vocabulary, seed):
    rng = np.random.default_rng(seed)
    ids, labels = [], []
    for length in (17, 5, 2, 11):
        row = rng.integers(3, vocabulary, size=length)
        label = row.copy()
        label[: 1 + length // 4] = -100
        if length > 10:
            label[length // 2] = -100
            label[-1] = -100
        ids.append(row)
        labels.append(label)
    return ids, labels


def predicted(model, ids, labels):
    """Logits at the tokens that predict, and what they should say."""
    logits = model(input_ids=torch.tensor(ids)[None]).logits[0]
    labels = torch.tensor(labels)
    at = torch.nonzero(labels[1:] != -100)[:, 0]
    return logits[at], labels[at + 1]


def cwsd(student, teacher, tau=2.0):
    log_q = torch.log_softmax(teacher / tau, -1)
    log_p = torch.log_softmax(student / tau, -1)
    q = log_q.exp()
    entropy = -(q * log_q).sum(-1).mean()
    weight = 1 - entropy / np.log(student.shape[-1])
    return weight * tau * tau * (q * (log_q - log_p)).sum(-1).mean()


def make(name):
    module, config_class, model_class, options = FAMILIES[name]
    in_double(f"transformers.models.{module}.modeling_{module}", "transformers.modeling_rope_utils")
    config = config_class(**{**COMMON, **options})
    model = model_class(config).double().eval()
    teacher = model_class(config).double().eval()
    randomise(model, 1)
    randomise(teacher, 2)
    parameters = dict(model.named_parameters())
    names = sorted(parameters)

    out = {n: parameters[n].detach().numpy() for n in names}
    ids, labels = batch(config.vocab_size, 3)
    longest = max(map(len, ids))
    out["ids"] = np.stack([np.pad(r, (0, longest - len(r)), constant_values=-1) for r in ids])
    out["labels"] = np.stack([np.pad(r, (0, longest - len(r)), constant_values=-1) for r in labels])

    direction = {n: torch.randn(parameters[n].shape, generator=torch.Generator().manual_seed(100 + k))
                 for k, n in enumerate(names)}
    losses, logits, dots = [], [], []
    total = {n: torch.zeros_like(parameters[n]) for n in names}
    for row, label in zip(ids, labels):
        z, target = predicted(model, row, label)
        loss = torch.nn.functional.cross_entropy(z, target)
        gradient = dict(zip(names, torch.autograd.grad(loss, [parameters[n] for n in names])))
        losses.append(loss.item())
        logits.append(z.detach().numpy())
        dots.append(sum((gradient[n] * direction[n]).sum().item() for n in names))
        for n in names:
            total[n] += gradient[n]
    out["losses"] = np.array(losses)
    out["logits"] = np.concatenate(logits)
    out["dots"] = np.array(dots)
    out["direction"] = np.concatenate([direction[n].numpy().ravel() for n in names])
    for n in names:
        out["grad." + n] = total[n].numpy()

    student, _ = predicted(model, ids[0], labels[0])
    with torch.no_grad():
        frozen, _ = predicted(teacher, ids[0], labels[0])
    loss = cwsd(student, frozen)
    gradient = torch.autograd.grad(loss, [parameters[n] for n in names])
    out["cwsd.teacher"] = frozen.numpy()
    out["cwsd.loss"] = np.array([loss.item()])
    for n, g in zip(names, gradient):
        out["cwsd.grad." + n] = g.numpy()

    text = json.loads(config.to_json_string(use_diff=False))
    text["architectures"] = [model_class.__name__]
    folder = os.path.join(HERE, "parity")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name + ".safetensors")
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, path,
                                {"config": json.dumps(text), "transformers": transformers.__version__,
                                 "torch": torch.__version__})
    print(name, os.path.getsize(path), "bytes; losses", losses)


if __name__ == "__main__":
    for family in FAMILIES:
        make(family)
