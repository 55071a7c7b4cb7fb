"""Records tiny UNets, VAEs and CLIP encoders of diffusers and transformers: outputs and gradients in f64."""

import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch
from common import Draws, gradients, load_unet, main, measure, penalty, redraw, save_case, save_meta, save_network
from common import save_tensors, seed_of, stages, twice
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
SD = dict(
    sample_size=8,
    norm_num_groups=4,
    block_out_channels=(8, 16, 16),
    cross_attention_dim=12,
    down_block_types=(CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN),
    up_block_types=(PLAIN_UP, CROSS_UP, CROSS_UP),
    layers_per_block=2,
)
PLAIN_FIRST = dict(
    SD, down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP)
)
TEXT_TIME = dict(
    addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8
)

# name: (configuration, latent height and width, what it pins down)
UNETS = {
    "unet-sd1": (
        dict(SD, attention_head_dim=2),
        (8, 12),
        "SD1 layout: convolutions around the transformers, an integer attention_head_dim that counts heads, "
        "an image that is not square",
    ),
    "unet-sd2v": (
        dict(SD, attention_head_dim=(2, 4, 4), use_linear_projection=True, upcast_attention=True),
        (8, 8),
        "SD2 layout: linear projections, heads per level, upcast_attention (without effect on the fused attention)",
    ),
    "unet-sdxl": (
        dict(
            PLAIN_FIRST,
            **TEXT_TIME,
            block_out_channels=(8, 8, 16),
            attention_head_dim=(1, 2, 4),
            transformer_layers_per_block=(1, 1, 2),
            use_linear_projection=True,
        ),
        (8, 8),
        "SDXL layout: plain first level, transformer depth per level, pooled text and sizes in the time embedding",
    ),
    "unet-demo": (
        dict(PLAIN_FIRST, layers_per_block=1, attention_head_dim=2),
        (8, 8),
        "the embedded demo's layout: plain first level, one layer per block",
    ),
}

LORAS = {
    "unet-sd1-lora": (
        LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]),
        "LoRA on the attention projections",
    ),
    "unet-sd1-lora-conv": (
        LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "ff.net.2", "proj_in", "conv1", "conv_shortcut", "conv"]),
        "LoRA on linear layers and on 1x1, 3x3 and strided convolutions",
    ),
    "unet-sd1-lora-ranks": (
        LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["to_q", "to_v", "conv1", "conv_shortcut"],
            # Several keys fit one layer; the first counts, and diffusers stores them sorted.
            rank_pattern={"^mid_block.resnets.0.conv1": 5, "attn2.to_q": 3, "conv1": 2},
            alpha_pattern={"conv1": 1, "conv_shortcut": 0.5},
        ),
        "LoRA of several ranks and alphas",
    ),
    "unet-sd1-dora": (
        LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "ff.net.2", "proj_in", "conv1", "conv"], use_dora=True),
        "DoRA on linear layers and on 1x1, 3x3 and strided convolutions",
    ),
}

VAE = dict(norm_num_groups=4, latent_channels=4, sample_size=16)
VAES = {
    "vae": dict(VAE, block_out_channels=(8, 16, 16), layers_per_block=2),
    "vae-demo": dict(VAE, block_out_channels=(8, 8, 16), layers_per_block=1),
}

CLIP = dict(
    vocab_size=99,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=16,
    projection_dim=24,
    bos_token_id=97,
)


def unet_inputs(config, size, seed):
    draws = Draws(seed)
    draws.normal("sample", 2, 4, *size)
    draws.normal("target", 2, 4, *size)
    draws.normal("encoder_hidden_states", 2, 7, config.cross_attention_dim)
    draws.keep("timestep", torch.tensor([981, 17]))
    if config.addition_embed_type == "text_time":
        draws.normal("text_embeds", 2, 16)
        draws.keep("time_ids", torch.tensor([[64.0, 48, 0, 8, 64, 64], [96, 96, 16, 0, 64, 80]]))
    return draws.kept


def unet_run(unet, given, dtype):
    """One forward and backward, with every image of the batch at its own timestep."""
    sample, text = (given[k].to(dtype).requires_grad_() for k in ("sample", "encoder_hidden_states"))
    added = {k: given[k].to(dtype) for k in ("text_embeds", "time_ids") if k in given}
    levels = range(len(unet.config.block_out_channels))
    names = [f"{side}_blocks.{i}" for side in ("down", "up") for i in levels]
    with stages(unet, ["time_embedding", "conv_in", "mid_block", *names]) as seen:
        output = unet(sample, given["timestep"], text, added_cond_kwargs=added).sample
    loss = penalty([(output, given["target"].to(dtype))])
    slopes = gradients(loss, {"sample": sample, "encoder_hidden_states": text}, unet)
    return {"output": output.detach(), "loss": loss.detach(), **seen, **slopes}


def record_unets(root):
    for seed, (case, (config, size, what)) in enumerate(UNETS.items(), start=111):
        unet = redraw(UNet2DConditionModel(**config), seed)
        given = unet_inputs(unet.config, size, seed + 1000)
        exact, rounded = twice(unet, lambda model, dtype: unet_run(model, given, dtype))
        save_network(root / case, unet)
        save_case(root / case, what, seed, ["diffusers"], given, exact, rounded)


def save_lora(folder, unet):
    """The adapter's file as the training scripts write it, and once more with PEFT's own keys and no metadata."""
    state = get_peft_model_state_dict(unet)
    metadata = unet.peft_config["default"].to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])
    layouts = {
        # Turns the attention projections into `.lora.down`/`.lora.up` and leaves every other layer as it is.
        "pytorch_lora_weights.safetensors": (convert_state_dict_to_diffusers(state), metadata),
        "without_metadata.safetensors": (state, None),
    }
    for name, (layers, header) in layouts.items():
        with tempfile.TemporaryDirectory() as scratch:
            StableDiffusionPipeline.save_lora_weights(
                scratch, unet_lora_layers=layers, unet_lora_adapter_metadata=header
            )
            (folder / name).write_bytes((pathlib.Path(scratch) / "pytorch_lora_weights.safetensors").read_bytes())


def save_legacy(folder, unet):
    """As diffusers saved attention processors before PEFT: pickled, without a prefix, without metadata."""
    names = {"to_out.0.": "to_out_lora.", **{f"to_{x}.": f"to_{x}_lora." for x in "qkv"}}
    legacy = {}
    for key, value in get_peft_model_state_dict(unet).items():
        block, layer = key.replace("lora_A", "down").replace("lora_B", "up").rsplit(".to_", 1)
        layer = f"to_{layer}"
        new = next(layer.replace(old, new) for old, new in names.items() if layer.startswith(old))
        legacy[f"{block}.processor.{new}"] = value.detach().clone()
    torch.save(legacy, folder / "legacy.bin")


def stored_name(parameter):
    """The name of a factor in files: without the adapter's name, and without the end that DoRA's vector has in memory."""
    return parameter.replace(".default.", ".").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def record_loras(root):
    """LoRA on the weights of `unet-sd1`; only the factors are stored and only they get gradients."""
    for seed, (case, (config, what)) in enumerate(LORAS.items(), start=201):
        folder = root / case
        folder.mkdir(parents=True, exist_ok=True)
        unet = load_unet("unet-sd1")
        unet.requires_grad_(False)
        unet.add_adapter(config)
        generator = torch.Generator().manual_seed(seed)
        for name, factor in sorted((n, p) for n, p in unet.named_parameters() if p.requires_grad):
            if "lora_magnitude_vector" in name:
                factor.data.mul_(1 + 0.2 * torch.randn(factor.shape, generator=generator))
            else:
                factor.data.copy_(0.5 * torch.randn(factor.shape, generator=generator) / factor[0].numel() ** 0.5)
        given = unet_inputs(unet.config, UNETS["unet-sd1"][1], seed + 1000)
        exact, rounded = twice(unet, lambda model, dtype: unet_run(model, given, dtype))
        # PEFT's parameter names carry the adapter's name, files do not.
        exact, rounded = ({stored_name(k): v for k, v in run.items()} for run in (exact, rounded))

        save_lora(folder, unet)
        if case == "unet-sd1-lora":
            save_legacy(folder, unet)
        save_case(
            folder, what, seed, ["diffusers", "peft"], given, exact, rounded,
            weights="unet-sd1", rank=str(config.r), alpha=str(config.lora_alpha),
        )  # fmt: skip


def record_text_lora(root):
    """A file with adapters of a UNet and of a text encoder, and what the adapted text encoder gives."""
    case, base, seed = "clip-text-lora", "clip-text-legacy", 205
    folder = root / case
    folder.mkdir(parents=True, exist_ok=True)
    stored = pathlib.Path(__file__).parent / base
    text = redraw(CLIPTextModel(CLIPTextConfig(**json.loads((stored / "config.json").read_text()))), seed_of(base))
    unet = load_unet("unet-sd1")
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1"]
    text.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=targets, rank_pattern={"fc1": 2}, alpha_pattern={"fc1": 1}))
    unet.add_adapter(LoraConfig(r=2, lora_alpha=1, target_modules=["conv_in"]))
    generator = torch.Generator().manual_seed(seed)
    parts, metadata = {}, {}
    for model, name in [(text, "text_encoder"), (unet, "unet")]:
        for _, factor in sorted((n, p) for n, p in model.named_parameters() if "lora_" in n):
            factor.data.copy_(torch.randn(factor.shape, generator=generator) / factor[0].numel() ** 0.5)
        parts[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
        config = model.peft_config["default"].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        metadata[f"{name}_lora_adapter_metadata"] = config
    for file, header in [("pytorch_lora_weights.safetensors", metadata), ("without_metadata.safetensors", {})]:
        with tempfile.TemporaryDirectory() as scratch:
            StableDiffusionPipeline.save_lora_weights(scratch, **parts, **header)
            (folder / file).write_bytes((pathlib.Path(scratch) / "pytorch_lora_weights.safetensors").read_bytes())
    draws = Draws(seed + 1000)
    fed = draws.keep("input_ids", torch.tensor([[97, 5, 2, 40, 98] + [98] * 11, [97, 2, 11, 7, 93, 64, 33, 20, 98] + [0] * 7]))
    with torch.no_grad():
        exact, rounded = twice(text, lambda model, dtype: {"last_hidden_state": model(fed).last_hidden_state})
    what = "LoRA of several ranks on a text encoder, in one file with one of a UNet"
    save_case(folder, what, seed, ["diffusers", "peft", "transformers"], draws.kept, exact, rounded, weights=base)


def vae_run(vae, given, dtype):
    """Encoder and decoder side by side on inputs of their own, so that neither hides the other's error."""
    image, latent = (given[k].to(dtype).requires_grad_() for k in ("image", "latent"))
    names = [f"{side}.{part}" for side in ("encoder", "decoder") for part in ("conv_in", "mid_block", "conv_norm_out")]
    with stages(vae, names) as seen:
        posterior = vae.encode(image).latent_dist
        decoded = vae.decode(latent).sample
    outputs = {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
    loss = penalty([(v, given[f"target_{k}"].to(dtype)) for k, v in outputs.items()])
    slopes = gradients(loss, {"image": image, "latent": latent}, vae)
    outputs["std"] = posterior.std
    return {**{k: v.detach() for k, v in outputs.items()}, "loss": loss.detach(), **seen, **slopes}


# Brightness of the whole image, and how far its values are spread around it.
FLAT = {"gray": (0.0, 0.0), "white": (1.0, 0.0), "nearly": (0.3, 1e-3), "softly": (-0.4, 0.05)}


def record_flat(root):
    """Images in which next to nothing happens: group normalization divides by next to nothing."""
    case, seed = "vae-flat", 331
    blocks = dict(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)
    vae = redraw(AutoencoderKL(**VAES["vae"], **blocks), 301)
    draws = Draws(seed)
    for name, (brightness, spread) in FLAT.items():
        image = brightness + spread * torch.randn(1, 3, 32, 24, generator=draws.generator, dtype=torch.float64)
        draws.keep(f"image.{name}", image.float())

    @torch.no_grad()
    def run(model, dtype):
        kept = {name.removeprefix("image."): image.to(dtype) for name, image in draws.kept.items()}
        return {f"mean.{name}": model.encode(image).latent_dist.mean for name, image in kept.items()}

    exact, rounded = twice(vae, run)
    (root / case).mkdir(parents=True, exist_ok=True)
    save_tensors(root / case / "io.safetensors", draws.kept | exact)
    measured, _ = measure(exact, rounded)
    save_meta(
        root / case, "KL autoencoder on flat and nearly flat images", seed, ("torch", "diffusers"), {"output": 1e-4},
        "f32 sums in another order, enlarged where variances are small; [measured] shows what PyTorch loses in f32", measured, {"weights": "vae"},
    )  # fmt: skip


def record_vaes(root):
    for seed, (case, config) in enumerate(VAES.items(), start=301):
        levels = len(config["block_out_channels"])
        blocks = dict(
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels
        )
        vae = redraw(AutoencoderKL(**config, **blocks), seed)
        draws = Draws(seed + 1000)
        draws.normal("image", 2, 3, 16, 24)
        draws.normal("target_decoded", 2, 3, 16, 24)
        for name in ("latent", "target_mean", "target_logvar"):
            draws.normal(name, 2, 4, 4, 6)
        exact, rounded = twice(vae, lambda model, dtype: vae_run(model, draws.kept, dtype))
        save_network(root / case, vae)
        what = f"KL autoencoder, {levels} levels, {config['layers_per_block']} layers per block, mid attention"
        save_case(root / case, what, seed, ["diffusers"], draws.kept, exact, rounded)


def clip_run(model, given, fed, names, dtype):
    """Every hidden state is an output; the loss reaches the named outputs and the penultimate hidden state."""
    result = model(fed.to(dtype) if fed.is_floating_point() else fed, output_hidden_states=True)
    outputs = {k: getattr(result, k) for k in names} | {"penultimate": result.hidden_states[-2]}
    loss = penalty([(v, given[f"target_{k}"].to(dtype)) for k, v in outputs.items()])
    slopes = gradients(loss, {}, model)
    hidden = {f"hidden_states.{i}": v for i, v in enumerate(result.hidden_states)}
    return {**{k: v.detach() for k, v in (outputs | hidden).items()}, "loss": loss.detach(), **slopes}


def record_clip(root, case, seed, model, name, fed, shapes, what, renamed=lambda key: key):
    model = redraw(model, seed)
    draws = Draws(seed + 1000)
    fed = draws.keep(name, fed) if torch.is_tensor(fed) else draws.normal(name, *fed)
    for output, shape in shapes.items():
        draws.normal(f"target_{output}", *shape)
    names = [k for k in shapes if k != "penultimate"]
    runs = twice(model, lambda m, dtype: clip_run(m, draws.kept, fed, names, dtype))
    exact, rounded = (
        {"grad." + renamed(k.removeprefix("grad.")) if k.startswith("grad.") else k: v for k, v in run.items()}
        for run in runs
    )
    save_network(root / case, model)
    save_case(root / case, what, seed, ["transformers"], draws.kept, exact, rounded)


def record_clips(root):
    states, pooled, projected = (2, 16, 32), (2, 32), (2, 24)
    text = {"last_hidden_state": states, "pooler_output": pooled, "penultimate": states}

    # Token 2 stands early in both prompts and 98, the highest id, ends them: only the position of 98 is right.
    legacy = torch.tensor([[97, 5, 2, 40, 98] + [98] * 11, [97, 2, 11, 7, 93, 64, 33, 20, 98] + [0] * 7])
    record_clip(
        root, "clip-text-legacy", 401, CLIPTextModel(CLIPTextConfig(**CLIP, hidden_act="quick_gelu", eos_token_id=2)),
        "input_ids", legacy, text,
        "SD1 text encoder: quick_gelu, eos_token_id 2 pools at the highest id; keys under text_model., as published "
        "checkpoints have them (transformers 5 writes them without that prefix)",
        renamed=lambda key: f"text_model.{key}",
    )  # fmt: skip

    # 50 ends both prompts although higher ids occur: only the first 50 is right.
    modern = torch.tensor([[97, 5, 60, 40, 50] + [50] * 11, [97, 2, 11, 7, 93, 64, 33, 20, 50] + [0] * 7])
    record_clip(
        root, "clip-text", 402, CLIPTextModel(CLIPTextConfig(**CLIP, hidden_act="quick_gelu", eos_token_id=50)),
        "input_ids", modern, text,
        "text encoder: eos_token_id pools at its first place; keys without text_model., as transformers 5 writes them",
    )  # fmt: skip

    config = CLIPTextConfig(**CLIP, hidden_act="gelu", eos_token_id=98)
    record_clip(
        root, "clip-text-projection", 403, CLIPTextModelWithProjection(config), "input_ids", legacy,
        {"last_hidden_state": states, "text_embeds": projected, "penultimate": states},
        "SDXL's second text encoder: exact gelu, projected pooled state",
    )  # fmt: skip

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=16, patch_size=4,
        projection_dim=24, hidden_act="quick_gelu",
    )  # fmt: skip
    states = (2, 17, 32)
    record_clip(
        root, "clip-vision", 404, CLIPVisionModelWithProjection(config), "pixel_values", (2, 3, 16, 16),
        {"last_hidden_state": states, "image_embeds": projected, "penultimate": states},
        "CLIP image encoder with projection",
    )  # fmt: skip


def record(root):
    record_unets(root)
    record_loras(root)
    record_text_lora(root)
    record_vaes(root)
    record_flat(root)
    record_clips(root)


if __name__ == "__main__":
    main("models", record)
