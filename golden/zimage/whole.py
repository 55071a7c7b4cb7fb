"""Records whole runs of ZImagePipeline on tiny networks. Run by `make.py`."""

import json
import pathlib
import tempfile

import torch
from common import GOLDEN, Draws, gradients, measure, penalty, redraw, save_meta, save_tensors
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

PROMPTS = ["a red fox", "two boats, oil on canvas, late light over a harbor with nobody in it, 1893"]
NEGATIVE = "blurry"
SEEDS = dict(transformer=1801, vae=1802, text_encoder=1803)
N_STEPS, GUIDANCE = 4, 3.5
FILE, COMFYUI_FILE = "pytorch_lora_weights.safetensors", "pytorch_lora_weights_comfyui.safetensors"
LORA = LoraConfig(r=3, lora_alpha=2, target_modules=["to_k", "to_q", "to_v", "to_out.0", "feed_forward.w2"])

# What the published template makes of one message with a generation prompt.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def networks():
    made = dict(
        transformer=ZImageTransformer2DModel(
            in_channels=16, dim=24, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=10,
            axes_dims=[4, 4, 4], axes_lens=[256, 32, 32],
        ),
        vae=AutoencoderKL(
            norm_num_groups=4, latent_channels=16, sample_size=8, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159,
        ),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=610, hidden_size=10, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, head_dim=6, rope_theta=1000000.0, tie_word_embeddings=True,
            )
        ),
    )  # fmt: skip
    return {name: redraw(network, SEEDS[name]) for name, network in made.items()}


def tokenizer():
    made = Qwen2Tokenizer.from_pretrained(GOLDEN / "zimage" / "tokenizer")
    made.chat_template = TEMPLATE
    return made


def pipeline(parts, dtype):
    pipe = ZImagePipeline(**parts).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def images(pipe, given, **more):
    # The pipeline keeps latents in f32, whatever its networks run in.
    return pipe(
        prompt=list(PROMPTS), negative_prompt=[NEGATIVE] * len(PROMPTS), latents=given["noise"], height=8, width=8,
        num_inference_steps=N_STEPS, guidance_scale=GUIDANCE, output_type="latent", **more,
    ).images  # fmt: skip


@torch.no_grad()
def run(parts, given, dtype):
    pipe = pipeline(parts, dtype)
    prompted, negative = pipe.encode_prompt(list(PROMPTS), negative_prompt=[NEGATIVE] * len(PROMPTS))
    found = {f"prompt_embeds.{i}": caption for i, caption in enumerate(prompted)}
    found["negative_prompt_embeds"] = negative[0]
    latents = found["latents"] = images(pipe, given)
    config = pipe.vae.config
    found["decoded"] = pipe.vae.decode(latents.to(dtype) / config.scaling_factor + config.shift_factor).sample
    return found


def fresh(parts):
    """The same networks without adapters."""
    return networks() | {name: parts[name] for name in ("tokenizer", "scheduler")}


def lora(parts, given, dtype, scratch):
    """Images with an adapter, by the pipeline's own loader, and gradients of its factors."""
    pipe = pipeline(parts, dtype)
    pipe.load_lora_weights(scratch, weight_name=FILE)
    found = {"lora.latents": images(pipe, given)}
    model = pipe.transformer
    model.requires_grad_(False)
    for name, factor in model.named_parameters():
        factor.requires_grad_("lora_" in name)
    prompted, _ = pipe.encode_prompt(list(PROMPTS))
    sample = list(given["noise"].to(dtype).unsqueeze(2).unbind(0))
    time = (1000 - given["timestep"]) / 1000
    output = -torch.stack(model(sample, time.to(dtype), prompted).sample).squeeze(2)
    loss = penalty([(output, given["target"].to(dtype))])
    found |= {"lora.output": output.detach(), "lora.loss": loss.detach()}
    grads = gradients(loss, {}, model).items()
    # peft names an adapter of the pipeline's loader `default_0`.
    return found | {name.replace(".default_0.", "."): grad for name, grad in grads if "lora_" in name}


def factors(transformer, folder):
    """A file of factors as diffusers writes it; the network is as before."""
    transformer.add_adapter(LORA)
    generator = torch.Generator().manual_seed(1804)
    for _, factor in sorted((n, p) for n, p in transformer.named_parameters() if "lora_" in n):
        factor.data.copy_(0.5 * torch.randn(factor.shape, generator=generator) / factor[0].numel() ** 0.5)
    metadata = transformer.peft_config["default"].to_dict()
    metadata["target_modules"] = sorted(metadata["target_modules"])
    state = get_peft_model_state_dict(transformer)
    ZImagePipeline.save_lora_weights(folder, state, transformer_lora_adapter_metadata=metadata)
    transformer.delete_adapters("default")


def for_comfyui(stored):
    """The same factors under names that ComfyUI reads, with the numerator of their scale."""
    named = {name.replace("transformer.", "diffusion_model.", 1): factor for name, factor in stored.items()}
    layers = {name.removesuffix(".lora_A.weight") for name in named if name.endswith(".lora_A.weight")}
    return named | {f"{layer}.alpha": torch.tensor(float(LORA.lora_alpha)) for layer in layers}


def record(root):
    case = root / "pipeline"
    case.mkdir(parents=True, exist_ok=True)
    made = networks()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    draws = Draws(2800)
    draws.normal("noise", len(PROMPTS), 16, 4, 4)
    draws.normal("target", len(PROMPTS), 16, 4, 4)
    draws.keep("timestep", torch.tensor([818.1818, 109.0909]))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        factors(made["transformer"], scratch)
        save_file(for_comfyui(load_file(scratch / FILE)), scratch / COMFYUI_FILE)
        for file in (FILE, COMFYUI_FILE):
            (case / file).write_bytes((scratch / file).read_bytes())
        for name, network in made.items():
            network.save_pretrained(scratch / name)
            (case / f"{name}.json").write_text((scratch / name / "config.json").read_text())
        scheduler.save_pretrained(scratch / "scheduler")
        (case / "scheduler.json").write_text((scratch / "scheduler" / "scheduler_config.json").read_text())
        parts = made | {"tokenizer": tokenizer(), "scheduler": scheduler}
        ZImagePipeline(**parts).save_config(scratch)
        (case / "model_index.json").write_text((scratch / "model_index.json").read_text())
        exact, rounded = (
            run(parts, draws.kept, dtype) | lora(fresh(parts), draws.kept, dtype, scratch)
            for dtype in (torch.float64, torch.float32)
        )
        other = pipeline(fresh(parts), torch.float32)
        other.load_lora_weights(scratch, weight_name=COMFYUI_FILE)
        apart = (images(other, draws.kept) - exact["lora.latents"]).abs().max() / exact["lora.latents"].abs().max()
        assert apart < 1e-5, f"the file for ComfyUI gives images that are off by {apart}"
    save_tensors(case / "io.safetensors", draws.kept | exact)
    measured, _ = measure(exact, rounded)
    notes = {name: str(seed) for name, seed in SEEDS.items()}
    notes |= {"prompts": json.dumps(PROMPTS), "negative": NEGATIVE, "steps": str(N_STEPS), "guidance": str(GUIDANCE)}
    notes |= {"rank": str(LORA.r), "alpha": str(LORA.lora_alpha)}
    save_meta(
        case, "whole runs of ZImagePipeline from given noise, with an adapter and without", 2800,
        ("torch", "diffusers", "transformers", "peft"), {"output": 1e-5, "gradient": 1e-4},
        "f32 sums in another order; [measured] shows what the same networks lose in PyTorch f32", measured, notes,
    )  # fmt: skip
