"""Records what diffusers computes with a model folder, for `tastemaker model verify`.

    python golden/verify/record.py MODEL reference.safetensors [--lora FILE [--gradients]] [--side 16]
    tastemaker model verify MODEL --reference reference.safetensors [--lora FILE]

A LoRA is loaded as the pipeline's own `load_lora_weights` does, kohya's files included. Everything runs in f32.
"""

import argparse
import json
import pathlib
import re

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

PROMPTS = ["a fox in the snow", "a red house", ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--lora", type=pathlib.Path)
    parser.add_argument("--side", type=int, default=16, help="of the latents")
    parser.add_argument("--network-only", "--unet-only", action="store_true")
    parser.add_argument("--gradients", action="store_true", help="of the LoRA, for a weighted sum of noise_pred")
    args = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    pipe = DiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    if args.lora:
        pipe.load_lora_weights(args.lora.parent, weight_name=args.lora.name)
    is_sd3 = hasattr(pipe, "transformer")
    network = pipe.transformer if is_sd3 else pipe.unet
    config = network.config
    n = len(PROMPTS)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    kept = {
        "sample": normal(n, config.in_channels, args.side, args.side),
        "timestep": torch.tensor([3.0, 421.5, 987.0] if is_sd3 else [3, 421, 987])[:n],
        "encoder_hidden_states": normal(n, 5, config.joint_attention_dim if is_sd3 else config.cross_attention_dim),
    }
    added = None
    if is_sd3:
        kept["pooled_projections"] = normal(n, config.pooled_projection_dim)
    elif config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": normal(n, width), "time_ids": torch.tensor([[1024.0, 768, 0, 16, 1024, 1024]] * n)}
        kept |= added

    def predict():
        given = {"timestep": kept["timestep"], "encoder_hidden_states": kept["encoder_hidden_states"]}
        more = {"pooled_projections": kept["pooled_projections"]} if is_sd3 else {"added_cond_kwargs": added}
        return network(kept["sample"], **given, **more).sample

    if args.gradients:
        kept["noise_pred_weights"] = normal(*kept["sample"].shape)
        adapted = {re.sub(r"\.(lora_[AB])\.[^.]+\.", r".\1.", name): p for name, p in network.named_parameters() if ".lora_" in name}
        network.requires_grad_(False)
        for parameter in adapted.values():
            parameter.requires_grad_(True)
        (predict() * kept["noise_pred_weights"]).sum().backward()
        kept |= {f"gradient.{name}": parameter.grad for name, parameter in adapted.items()}
    with torch.no_grad():
        kept["noise_pred"] = predict()
        if not args.network_only:
            with_ids = ["tokenizer", "tokenizer_2"] if added or is_sd3 else ["tokenizer"]
            for name in with_ids:
                tokenizer = getattr(pipe, name)
                ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
                kept["input_ids" + name[len("tokenizer"):]] = torch.tensor(ids.input_ids)
            which = {"prompt_2": None, "prompt_3": None} if is_sd3 else {}
            encoded = pipe.encode_prompt(PROMPTS, **which, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
            kept["prompt_embeds"] = encoded[0]
            if added or is_sd3:
                kept["pooled_prompt_embeds"] = encoded[2]
            side = args.side * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
            factor, shift = pipe.vae.config.scaling_factor, pipe.vae.config.shift_factor or 0
            kept["image"] = normal(1, 3, side, side).clamp(-1, 1)
            kept["latent_mean"] = (pipe.vae.encode(kept["image"]).latent_dist.mean - shift) * factor
            kept["latents"] = normal(1, pipe.vae.config.latent_channels, args.side, args.side)
            kept["decoded"] = pipe.vae.decode(kept["latents"] / factor + shift).sample
    save_file({k: v.contiguous() for k, v in kept.items()}, args.out, metadata={"prompts": json.dumps(PROMPTS)})


main()
