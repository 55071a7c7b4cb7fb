"""Writes a model folder of published size with random weights, for checks at real size without a download.

    python golden/verify/fresh.py sd1|sd2|sdxl FOLDER [--dtype float16]

Configurations are those in crates/models/presets, the tokenizer is that of golden/tokenizer.
"""

import argparse
import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZERS = ROOT / "golden" / "tokenizer"
sys.path.insert(0, str(TOKENIZERS))

from folder import write as write_tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layout", choices=["sd1", "sd2", "sdxl"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--lora", type=int, metavar="RANK", help="write a LoRA with random factors beside the folder instead")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, args.dtype))

    def config(name):
        path = ROOT / "crates" / "models" / "presets" / args.layout / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    if args.lora:
        return write_lora(config("unet"), args.lora, args.folder.with_name(args.folder.name + "-lora"))
    UNet2DConditionModel.from_config(config("unet")).save_pretrained(args.folder / "unet", max_shard_size="100GB")
    AutoencoderKL.from_config(config("vae")).save_pretrained(args.folder / "vae")
    for suffix in ("", "_2"):
        text = config(f"text_encoder{suffix}")
        if not text:
            continue
        kind = CLIPTextModelWithProjection if "WithProjection" in text["architectures"][0] else CLIPTextModel
        kind(CLIPTextConfig(**text)).save_pretrained(args.folder / f"text_encoder{suffix}")
        padded_with_first = suffix or args.layout == "sd2"
        settings = TOKENIZERS / ("tokenizer_2" if padded_with_first else "tokenizer")
        write_tokenizer(settings, args.folder / f"tokenizer{suffix}")
    (args.folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (args.folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config("scheduler"), indent=2))
    (args.folder / "model_index.json").write_text(json.dumps(config("model_index"), indent=2))


def write_lora(config, rank, folder):
    """On the attention layers, alpha half the rank, in the layout of diffusers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    lora = LoraConfig(r=rank, lora_alpha=rank / 2, target_modules=targets)
    unet.add_adapter(lora)
    state = get_peft_model_state_dict(unet)
    state = {name: 0.05 * torch.randn(factor.shape, dtype=torch.float32) for name, factor in state.items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, unet_lora_adapter_metadata=lora.to_dict())


main()
