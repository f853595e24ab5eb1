"""Tiny checkpoints as transformers writes them, and what is in them, for checkpoint_test.

    pip install transformers==4.57.6 torch==2.15.0 safetensors==0.8.0
    python make_checkpoints.py
"""
import json
import pathlib
import shutil

import safetensors.torch
import torch
import transformers

assert transformers.__version__ == "4.57.6", transformers.__version__
here = pathlib.Path(__file__).parent / "checkpoints"
shutil.rmtree(here, ignore_errors=True)
sizes = dict(vocab_size=19, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
             num_attention_heads=2, num_key_value_heads=1)


def truth(tensors):
    return {
        name: {"shape": list(t.shape), "sum": float(t.double().sum()),
               "first": float(t.flatten()[0]), "last": float(t.flatten()[-1])}
        for name, t in sorted(tensors.items())
    }


def save(name, config, dtype, **options):
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for p in model.parameters():  # norms begin at one and biases at zero: nothing to tell apart
        torch.nn.init.normal_(p)
    model = model.to(dtype)
    model.save_pretrained(here / name, **options)
    tensors = {n: p.detach() for n, p in model.named_parameters()}
    (here / name / "truth.json").write_text(json.dumps(truth(tensors), indent=0))
    (here / name / "generation_config.json").unlink(missing_ok=True)
    return model


save("llama-f32", transformers.LlamaConfig(**sizes), torch.float32)
save("qwen2-bf16-sharded", transformers.Qwen2Config(**sizes, tie_word_embeddings=True),
     torch.bfloat16, max_shard_size="1KB")
save("qwen3-f16", transformers.Qwen3Config(**sizes, head_dim=6), torch.float16)

# Multimodal Gemma-3 under the names of the Hub; the vision tower is one small tensor here, as only
# its name matters.
text = transformers.Gemma3TextConfig(**sizes, head_dim=4)
model = save("gemma3-multimodal", text, torch.bfloat16)
folder = here / "gemma3-multimodal"
tensors = {"language_model." + n: p.detach() for n, p in model.named_parameters()}
tensors["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(3, dtype=torch.bfloat16)
tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = torch.ones(3, dtype=torch.bfloat16)
safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
config = json.loads((folder / "config.json").read_text())
outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
         "eos_token_id": [1, 6], "dtype": "bfloat16",
         "text_config": {k: v for k, v in config.items()
                         if k not in ("architectures", "dtype", "eos_token_id", "transformers_version")}}
(folder / "config.json").write_text(json.dumps(outer, indent=2))
