"""Records whole runs of StableDiffusion3Pipeline on tiny networks, with and without T5. Run by `make.py`."""

import json
import pathlib
import sys
import tempfile

import tokenizer as t5_tokenizer
import torch
from common import GOLDEN, Draws, measure, redraw, save_meta, save_tensors
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel

sys.path.append(str(GOLDEN / "tokenizer"))
import folder as clip_folder

CLIP = dict(vocab_size=49408, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, eos_token_id=2)
PROMPTS = ["a red fox in the snow", "two boats, oil on canvas"]
NEGATIVE = "blurry"
SEEDS = dict(transformer=1501, vae=1502, text_encoder=1503, text_encoder_2=1504, text_encoder_3=1505)
N_STEPS, GUIDANCE = 4, 4.5


def networks():
    made = dict(
        transformer=SD3Transformer2DModel(
            sample_size=4, in_channels=16, out_channels=16, num_layers=2, num_attention_heads=2, attention_head_dim=8,
            caption_projection_dim=16, joint_attention_dim=24, pooled_projection_dim=14, pos_embed_max_size=4,
            dual_attention_layers=(0,), qk_norm="rms_norm",
        ),
        vae=AutoencoderKL(
            norm_num_groups=4, latent_channels=16, sample_size=8, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
        ),
        text_encoder=CLIPTextModelWithProjection(
            CLIPTextConfig(**CLIP, hidden_size=8, intermediate_size=12, projection_dim=6, hidden_act="quick_gelu")
        ),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(**CLIP, hidden_size=12, intermediate_size=16, projection_dim=8, hidden_act="gelu")
        ),
        text_encoder_3=T5EncoderModel(
            T5Config(
                vocab_size=720, d_model=24, d_kv=6, d_ff=32, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
        ),
    )  # fmt: skip
    return {name: redraw(network, SEEDS[name]) for name, network in made.items()}


def tokenizers(scratch):
    for name in ("tokenizer", "tokenizer_2"):
        clip_folder.write(GOLDEN / "tokenizer" / name, scratch / name)
    made = {name: CLIPTokenizer.from_pretrained(scratch / name) for name in ("tokenizer", "tokenizer_2")}
    return made | {"tokenizer_3": t5_tokenizer.T5Tokenizer.from_pretrained(GOLDEN / "sd3" / "tokenizer")}


@torch.no_grad()
def run(pipe, given, dtype, prefix, keeps_text):
    pipe.to(dtype)
    pipe.set_progress_bar_config(disable=True)
    asked = dict(prompt=PROMPTS, prompt_2=None, prompt_3=None, negative_prompt=[NEGATIVE] * len(PROMPTS))
    encoded = pipe.encode_prompt(**asked, do_classifier_free_guidance=True)
    names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
    found = {n: v for n, v in zip(names, encoded) if keeps_text or "pooled" in n}
    found |= {n: v[:1] for n, v in found.items() if n.startswith("negative")}
    latents = pipe(
        prompt=PROMPTS, negative_prompt=[NEGATIVE] * len(PROMPTS), latents=given["noise"].to(dtype), height=8, width=8,
        num_inference_steps=N_STEPS, guidance_scale=GUIDANCE, output_type="latent",
    ).images  # fmt: skip
    config = pipe.vae.config
    found["latents"] = latents
    found["decoded"] = pipe.vae.decode(latents.to(dtype) / config.scaling_factor + config.shift_factor).sample
    return {prefix + name: tensor.detach() for name, tensor in found.items()}


def record(root):
    case = root / "pipeline"
    case.mkdir(parents=True, exist_ok=True)
    made = networks()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    draws = Draws(2500)
    draws.normal("noise", len(PROMPTS), 16, 4, 4)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        parts = made | tokenizers(scratch) | {"scheduler": scheduler}
        whole = StableDiffusion3Pipeline(**parts)
        bare = StableDiffusion3Pipeline(**(parts | {"text_encoder_3": None, "tokenizer_3": None}))
        exact, rounded = (
            run(whole, draws.kept, dtype, "", True) | run(bare, draws.kept, dtype, "without_t5.", False)
            for dtype in (torch.float64, torch.float32)
        )
        for name, network in made.items():
            network.save_pretrained(scratch / name)
            (case / f"{name}.json").write_text((scratch / name / "config.json").read_text())
        scheduler.save_pretrained(scratch / "scheduler")
        (case / "scheduler.json").write_text((scratch / "scheduler" / "scheduler_config.json").read_text())
        for name, pipe in {"model_index": whole, "model_index_without_t5": bare}.items():
            pipe.save_config(scratch)
            (case / f"{name}.json").write_text((scratch / "model_index.json").read_text())
    save_tensors(case / "io.safetensors", draws.kept | exact)
    measured, _ = measure(exact, rounded)
    notes = {name: str(seed) for name, seed in SEEDS.items()}
    notes |= {"prompts": json.dumps(PROMPTS), "negative": NEGATIVE, "steps": str(N_STEPS), "guidance": str(GUIDANCE)}
    save_meta(
        case, "whole runs of StableDiffusion3Pipeline from given noise", 2500, ("torch", "diffusers", "transformers"),
        {"output": 1e-5}, "f32 sums in another order; [measured] shows what the same networks lose in PyTorch f32", measured, notes,
    )  # fmt: skip
