"""Records tiny networks of SD3 and SD3.5: transformers with and without LoRA, VAE, T5 encoder, a whole run of the pipeline."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import tokenizer
import torch
import whole
from common import Draws, gradients, main, penalty, redraw, save_case, save_network, stages, twice
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import T5Config, T5EncoderModel

MMDIT = dict(
    sample_size=8,
    in_channels=4,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=8,
    caption_projection_dim=16,
    joint_attention_dim=12,
    pooled_projection_dim=10,
)

# name: (configuration, latent height and width, what it pins down)
TRANSFORMERS = {
    "transformer-sd3": (
        dict(MMDIT, num_layers=2, pos_embed_max_size=6),
        (8, 12),
        "SD3 layout: no normalization of queries and keys, an image that is not square",
    ),
    "transformer-sd35": (
        dict(MMDIT, num_layers=3, pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0, 1)),
        (10, 8),
        "SD3.5-medium layout: queries and keys normalized, blocks with a second attention, a larger table of positions",
    ),
}

FIELD = ["attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"]
FIELD += ["attn.to_k", "attn.to_out.0", "attn.to_q", "attn.to_v"]

LORAS = {
    "transformer-sd35-lora": (
        LoraConfig(r=4, lora_alpha=8, target_modules=FIELD),
        "LoRA on the layers that diffusers' script for SD3 adapts",
    ),
    "transformer-sd35-dora": (
        LoraConfig(r=2, lora_alpha=3, target_modules=["attn2.to_q", "ff.net.0.proj", "norm1.linear"], use_dora=True),
        "DoRA on the second attention, feed-forward layers and modulation",
    ),
}


def transformer(case):
    """The network of a case and its seed."""
    seed = 1101 + list(TRANSFORMERS).index(case)
    return redraw(SD3Transformer2DModel(**TRANSFORMERS[case][0]), seed), seed


def transformer_inputs(case, seed):
    config, size, _ = TRANSFORMERS[case]
    draws = Draws(seed)
    draws.normal("sample", 2, config["in_channels"], *size)
    draws.normal("target", 2, config["out_channels"], *size)
    draws.normal("encoder_hidden_states", 2, 7, config["joint_attention_dim"])
    draws.normal("pooled_projections", 2, config["pooled_projection_dim"])
    draws.keep("timestep", torch.tensor([954.5454, 17.25]))
    return draws.kept


def transformer_run(model, given, dtype):
    names = ("sample", "encoder_hidden_states", "pooled_projections")
    inputs = {k: given[k].to(dtype).requires_grad_() for k in names}
    sample, text, pooled = inputs.values()
    with stages(model, ["pos_embed", "time_text_embed", "context_embedder", "norm_out"]) as seen:
        output = model(sample, text, pooled, given["timestep"]).sample
    loss = penalty([(output, given["target"].to(dtype))])
    return {"output": output.detach(), "loss": loss.detach(), **seen, **gradients(loss, inputs, model)}


def record_transformers(root):
    for case, (_, _, what) in TRANSFORMERS.items():
        model, seed = transformer(case)
        given = transformer_inputs(case, seed + 1000)
        exact, rounded = twice(model, lambda model, dtype: transformer_run(model, given, dtype))
        given["pos_embed"] = model.pos_embed.pos_embed
        save_network(root / case, model)
        save_case(root / case, what, seed, ["diffusers"], given, exact, rounded)


def record_loras(root):
    for seed, (case, (config, what)) in enumerate(LORAS.items(), start=1201):
        base = case.rpartition("-")[0]
        model, _ = transformer(base)
        model.requires_grad_(False)
        model.add_adapter(config)
        generator = torch.Generator().manual_seed(seed)
        for name, factor in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
            if "lora_magnitude_vector" in name:
                factor.data.mul_(1 + 0.2 * torch.randn(factor.shape, generator=generator))
            else:
                factor.data.copy_(0.5 * torch.randn(factor.shape, generator=generator) / factor[0].numel() ** 0.5)
        given = transformer_inputs(base, seed + 1000)
        exact, rounded = twice(model, lambda model, dtype: transformer_run(model, given, dtype))
        plain = {".default.": ".", "lora_magnitude_vector.weight": "lora_magnitude_vector"}
        for old, new in plain.items():
            exact, rounded = ({k.replace(old, new): v for k, v in run.items()} for run in (exact, rounded))
        metadata = model.peft_config["default"].to_dict()
        metadata["target_modules"] = sorted(metadata["target_modules"])
        (root / case).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            StableDiffusion3Pipeline.save_lora_weights(
                scratch, get_peft_model_state_dict(model), transformer_lora_adapter_metadata=metadata
            )
            file = "pytorch_lora_weights.safetensors"
            (root / case / file).write_bytes((pathlib.Path(scratch) / file).read_bytes())
        save_case(
            root / case, what, seed, ["diffusers", "peft"], given, exact, rounded,
            weights=f"sd3/{base}", rank=str(config.r), alpha=str(config.lora_alpha),
        )  # fmt: skip


def vae_run(vae, given, dtype):
    image, latent = (given[k].to(dtype).requires_grad_() for k in ("image", "latent"))
    posterior = vae.encode(image).latent_dist
    decoded = vae.decode(latent).sample
    outputs = {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
    loss = penalty([(v, given[f"target_{k}"].to(dtype)) for k, v in outputs.items()])
    slopes = gradients(loss, {"image": image, "latent": latent}, vae)
    # What the pipelines feed the transformer, and make of what it gives.
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor
    outputs["scaled"] = (posterior.mean - shift) * scale
    outputs["of_scaled"] = vae.decode(latent / scale + shift).sample
    return {**{k: v.detach() for k, v in outputs.items()}, "loss": loss.detach(), **slopes}


def record_vae(root):
    case, seed = "vae", 1301
    vae = AutoencoderKL(
        norm_num_groups=4, latent_channels=16, sample_size=16, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip
    vae = redraw(vae, seed)
    draws = Draws(seed + 1000)
    draws.normal("image", 1, 3, 8, 12)
    draws.normal("target_decoded", 1, 3, 8, 12)
    for name in ("latent", "target_mean", "target_logvar"):
        draws.normal(name, 1, 16, 4, 6)
    exact, rounded = twice(vae, lambda model, dtype: vae_run(model, draws.kept, dtype))
    save_network(root / case, vae)
    what = "KL autoencoder of 16 channels without convolutions around the latents, with a shift"
    save_case(root / case, what, seed, ["diffusers"], draws.kept, exact, rounded)


def t5_run(model, given, dtype):
    result = model(given["input_ids"], output_hidden_states=True)
    output = result.last_hidden_state
    loss = penalty([(output, given["target"].to(dtype))])
    hidden = {f"hidden_states.{i}": v.detach() for i, v in enumerate(result.hidden_states)}
    return {"output": output.detach(), "loss": loss.detach(), **hidden, **gradients(loss, {}, model)}


def record_t5(root):
    case, seed = "t5", 1401
    config = T5Config(
        vocab_size=99, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8, relative_attention_max_distance=20, tie_word_embeddings=False,
    )  # fmt: skip
    model = redraw(T5EncoderModel(config), seed)
    draws = Draws(seed + 1000)
    # Longer than the distance from which on all positions are alike; padding is encoded as any token.
    ids = torch.randint(2, 99, (2, 26), generator=draws.generator)
    ids[0, 9:] = 0
    draws.keep("input_ids", ids)
    draws.normal("target", 2, 26, 16)
    exact, rounded = twice(model, lambda m, dtype: t5_run(m, draws.kept, dtype))
    save_network(root / case, model)
    what = "T5 encoder of version 1.1: gated GELU, relative positions near and far in both directions, padding without a mask"
    save_case(root / case, what, seed, ["transformers"], draws.kept, exact, rounded)


def record(root):
    record_transformers(root)
    record_loras(root)
    record_vae(root)
    record_t5(root)
    tokenizer.record(root)
    whole.record(root)


if __name__ == "__main__":
    main("sd3", record)
