"""What transformers makes of configs/*.json: writes config_truth.json, which config_reader_test reads.

    pip install transformers==4.57.6 torch==2.15.0
    python make_configs.py

The published configurations are typed in from the model cards; the made-up and the default ones
reach what those do not. Models are built on the meta device, so nothing is downloaded.
"""
import json
import pathlib

import torch
import transformers

assert transformers.__version__ == "4.57.6", transformers.__version__
here = pathlib.Path(__file__).parent


def fnv1a(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def windows(model, config):
    if config.model_type == "llama":
        return [0] * config.num_hidden_layers
    if config.model_type == "mistral":
        return [config.sliding_window or 0] * config.num_hidden_layers
    return [layer.self_attn.sliding_window or 0 for layer in model.model.layers]


def frequencies(rotary):
    return [float(x) for x in rotary.inv_freq]


truth = {}
for path in sorted((here / "configs").glob("*.json")):
    raw = json.loads(path.read_text())
    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    eos = config.eos_token_id
    if raw["model_type"] == "gemma3":
        config = config.text_config
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.device("cpu"):  # the buffers of a model on the meta device hold no numbers
        rotary = type(model.model.rotary_emb)(config)
    attention = model.model.layers[0].self_attn
    lines = sorted(f"{n} {list(p.shape)}\n" for n, p in model.named_parameters())
    entry = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors": len(lines),
        "names_and_shapes_fnv1a": f"{fnv1a(''.join(lines)):016x}",
        "first_tensors": [line.strip() for line in lines[:3]],
        "windows": windows(model, config),
        "query_scale": attention.scaling,
        "frequencies": frequencies(rotary),
        "norm_epsilon": config.rms_norm_eps,
        "activation": type(model.model.layers[0].mlp.act_fn).__name__,
        "max_positions": config.max_position_embeddings,
        "tied_head": config.tie_word_embeddings,
        "bos": config.bos_token_id,
        "eos": eos,
    }
    if config.model_type == "gemma3_text":
        entry["local_base"] = config.rope_local_base_freq
        entry["embedding_scale_float32"] = float(model.model.embed_tokens.embed_scale) \
            if model.model.embed_tokens.embed_scale.device.type != "meta" \
            else float(torch.tensor(config.hidden_size**0.5))
    truth[path.stem] = entry

text = "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in truth.items()) + "\n}\n"
(here / "config_truth.json").write_text(text)
print({k: v["parameters"] for k, v in truth.items()})
