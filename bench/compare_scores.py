#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`dualsft run` on tiny checkpoints made by transformers, against per-example autograd in PyTorch.

    pip install torch==2.9.1 transformers==4.57.1 safetensors numpy
    python bench/compare_scores.py build/release/bin/dualsft TOKENIZER_FOLDER RECORDS.jsonl [FAMILY...]

For each family: makes a random model with the tokenizer, runs the program on the first 200 records
(question and answer), and forms, from the definitions, v with CWSD, D, G, p and all scores at the
program's theta_w in double. Then reads every file with safetensors, NumPy and json alone, loads the
fine-tuned checkpoint with transformers, and compares unselected coordinates bit for bit.
Prints one line per family; exits 1 if an error exceeds its bound.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers import Tokenizer

ETA, LAMBDA, TAU, RECORDS, LENGTH = 0.01, 0.2, 2.0, 200, 96
common = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, max_position_embeddings=512)
families = {
    "llama": lambda v: transformers.LlamaConfig(vocab_size=v, **common),
    "mistral": lambda v: transformers.MistralConfig(vocab_size=v, sliding_window=64, **common),
    "qwen2": lambda v: transformers.Qwen2Config(vocab_size=v, tie_word_embeddings=True, **common),
    "qwen3": lambda v: transformers.Qwen3Config(vocab_size=v, head_dim=8, **common),
    "gemma3": lambda v: transformers.Gemma3TextConfig(
        vocab_size=v, head_dim=8, query_pre_attn_scalar=8, sliding_window=64, **common),
}


def checkpoint(name, make, vocabulary, tokenizer_file, folder):
    torch.manual_seed(1)
    config = make(vocabulary)
    config.bos_token_id, config.eos_token_id = None, vocabulary - 1
    config.pad_token_id = None
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    shutil.copy(tokenizer_file, folder / "tokenizer.json")


def double_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager")


def logits(model, ids, labels):
    """Rows that predict a labelled token, and what they should say."""
    out = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    target = torch.tensor(labels[1:])
    return out[target != -100], target[target != -100]


def gradient(model, scalar):
    model.zero_grad(set_to_none=False)
    scalar.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def loss(model, record):
    return torch.nn.functional.cross_entropy(*logits(model, *record))


def cwsd(student, teacher, record):
    z, _ = logits(student, *record)
    with torch.no_grad():
        q = torch.softmax(logits(teacher, *record)[0] / TAU, -1)
        entropy = -(q * q.log()).sum(-1).mean()
        weight = 1 - entropy / np.log(q.shape[-1])
    divergence = (q * (q.log() - torch.log_softmax(z / TAU, -1))).sum(-1).mean()
    return weight * TAU**2 * divergence


def records_of(path, tokenizer, eos):
    template = "Question: {}\nAnswer:\n"
    out = []
    for line in open(path, encoding="utf-8"):
        record = json.loads(line)
        prompt = tokenizer.encode(template.format(record["question"]), add_special_tokens=False).ids
        answer = tokenizer.encode(record["answer"], add_special_tokens=False).ids + [eos]
        assert len(prompt) < LENGTH, "the response must begin within LENGTH tokens"
        out.append(((prompt + answer)[:LENGTH], ([-100] * len(prompt) + answer)[:LENGTH]))
    return out


def compare(name, make, program, tokenizer_file, source, work):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    vocabulary = tokenizer.get_vocab_size()
    model_folder, out = work / "model", work / "out"
    checkpoint(name, make, vocabulary, tokenizer_file, model_folder)
    lines = open(source, encoding="utf-8").read().splitlines()
    # Short ones: the response must begin within LENGTH tokens.
    lines = sorted(lines, key=len)[:RECORDS + 24]
    for part, piece in (("train", lines[:RECORDS]), ("validation", lines[RECORDS:RECORDS + 12]),
                        ("anchors", lines[RECORDS + 12:])):
        (work / f"{part}.jsonl").write_text("\n".join(piece) + "\n", encoding="utf-8")
    subprocess.run(
        [program, "run", "--model", model_folder, "--train", work / "train.jsonl",
         "--validation", work / "validation.jsonl", "--anchors", work / "anchors.jsonl",
         "--max-length", str(LENGTH), "--learning-rate", "0.003", "--eta", str(ETA),
         "--precision", "float64", "--save-parameter-scores", "--out", out],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # ---- the definitions, in PyTorch
    teacher, student = double_model(model_folder), double_model(out / "warmup")
    eos = vocabulary - 1
    read = lambda part: records_of(work / f"{part}.jsonl", tokenizer, eos)
    train, validation, anchors = read("train"), read("validation"), read("anchors")
    names = [n for n, _ in student.named_parameters()]
    v = {n: torch.zeros_like(p) for n, p in student.named_parameters()}
    for r in validation:
        for n, g in gradient(student, loss(student, r)).items():
            v[n] += g / len(validation)
    for r in anchors:
        for n, g in gradient(student, cwsd(student, teacher, r)).items():
            v[n] += LAMBDA * g / len(anchors)
    with safe_open(out / "warmup/second_moment.safetensors", "np") as f:
        steps = int(f.metadata()["steps"])
        curvature = {n: torch.tensor(np.sqrt(f.get_tensor(n) / (1 - 0.999**steps)) + 1e-8)
                     for n in f.keys()}
    pool = np.load(out / "pool_indices.npy")
    total = {n: torch.zeros_like(p) for n, p in student.named_parameters()}
    for i in pool:
        for n, g in gradient(student, loss(student, train[i])).items():
            total[n] += g
    p = {n: v[n] - ETA / 2 * curvature[n] * total[n] for n in names}
    rows = np.array([sum(float((g * p[n]).sum()) for n, g in
                         gradient(student, loss(student, train[i])).items()) * ETA for i in pool])
    columns = {n: (ETA * total[n] * p[n]).numpy() for n in names}

    # ---- the program's files, by safetensors, NumPy and json alone
    scores = np.load(out / "data_scores.npy")
    data_error = np.abs(scores - rows).max() / np.abs(rows).max()
    stored = load_file(out / "parameter_scores.safetensors")
    assert sorted(stored) == sorted(names), "the score file's tensors are the model's"
    largest = max(np.abs(c).max() for c in columns.values())
    parameter_error = max(np.abs(stored[n] - columns[n]).max() for n in names) / largest
    selected = np.load(out / "selected_examples.npy")
    ranked = pool[np.argsort(-rows, kind="stable")][:len(selected)]
    kept = (out / "selected.jsonl").read_text(encoding="utf-8").splitlines()
    source_lines = (work / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert kept == [source_lines[i] for i in selected], "selected.jsonl holds the records unchanged"
    with safe_open(out / "parameter_mask.safetensors", "np") as f:
        shapes = {k: json.loads(s) for k, s in f.metadata().items()}
        mask = {n: np.unpackbits(f.get_tensor(n), count=int(np.prod(shapes[n])),
                                 bitorder="little").reshape(shapes[n]).astype(bool)
                for n in f.keys()}
    summary = json.loads((out / "summary.json").read_text())
    assert sum(m.sum() for m in mask.values()) == summary["parameter_budget"]
    tuned = transformers.AutoModelForCausalLM.from_pretrained(out / "model", dtype="auto")
    tuned(input_ids=torch.tensor([train[0][0]]))
    before, after = load_file(model_folder / "model.safetensors"), load_file(
        out / "model/model.safetensors")
    assert sorted(before) == sorted(after) == sorted(mask)
    strayed = sum(int((before[n].view(np.uint32) != after[n].view(np.uint32))[~mask[n]].sum())
                  for n in mask)
    moved = sum(int((before[n] != after[n])[mask[n]].sum()) for n in mask)
    cut = np.sort(np.concatenate([c.ravel() for c in columns.values()]))[::-1]
    threshold = cut[summary["parameter_budget"] - 1]
    wrong = sum(int(((columns[n] >= threshold) != mask[n]).sum()) for n in names)
    print(f"{name}: {len(pool)} examples x {sum(c.size for c in columns.values())} parameters; "
          f"data scores {data_error:.1e}, parameter scores {parameter_error:.1e} (of the largest), "
          f"order of the selected {'equal' if (ranked == selected).all() else 'DIFFERS'}, "
          f"mask differs in {wrong}, unselected changed {strayed}, selected changed {moved}",
          flush=True)
    # transformers keeps rotations and the insides of norms in float32, whatever the dtype.
    return (data_error <= 1e-6 and parameter_error <= 1e-6 and (ranked == selected).all()
            and wrong == 0 and strayed == 0 and moved > 0)


def main():
    program, tokenizer_folder, source = sys.argv[1:4]
    tokenizer_file = pathlib.Path(tokenizer_folder)
    if tokenizer_file.is_dir():
        tokenizer_file /= "tokenizer.json"
    good = True
    for name in sys.argv[4:] or families:
        with tempfile.TemporaryDirectory() as work:
            good &= compare(name, families[name], program, tokenizer_file, source,
                            pathlib.Path(work))
    sys.exit(0 if good else 1)


main()
