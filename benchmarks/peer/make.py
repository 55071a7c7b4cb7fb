"""Makes what `cargo xtask bench train` trains on, where it is not there yet.

    python benchmarks/peer/make.py pairs FOLDER --resolution 512
    python benchmarks/peer/make.py tiny FOLDER

`pairs` are two pairs of square JPEG files with captions and a list of them. `tiny` is a model with the parts of SD1.5, each as
small as it can be, to see that every row of the benchmark runs; `golden/verify/fresh.py` makes the one of published size.
"""

import argparse
import json
import pathlib
import shutil
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRESETS = ROOT / "crates" / "models" / "presets" / "sd1"
TOKENIZER = ROOT / "golden" / "tokenizer"
sys.path.insert(0, str(TOKENIZER))

from folder import write as write_tokenizer

CAPTIONS = ["a red fox asleep under a birch, watercolor", "the harbour of a small town at dusk, seen from a hill, oil on canvas"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pairs", "tiny"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--resolution", type=int, default=512)
    args = parser.parse_args()
    torch.manual_seed(0)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.what == "pairs":
        pairs(args.folder, args.resolution)
    else:
        tiny(args.folder)


def pairs(folder, side):
    rows = []
    for index, caption in enumerate(CAPTIONS):
        row = {"caption": caption, "label_0": 1, "label_1": 0}
        for column in ("image_0", "image_1"):
            row[column] = f"{index}-{column}.jpg"
            # Noise at a coarse scale: JPEG files as large as those of images.
            small = Image.fromarray((torch.rand(side // 8, side // 8, 3) * 255).to(torch.uint8).numpy())
            small.resize((side, side), Image.Resampling.BICUBIC).save(folder / row[column], quality=90)
        rows.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(rows))


def tiny(folder):
    def preset(name, **small):
        return json.loads((PRESETS / f"{name}.json").read_text()) | small

    unet = preset("unet", block_out_channels=[32, 64, 64, 64], attention_head_dim=4, cross_attention_dim=32)
    vae = preset("vae", block_out_channels=[32, 32, 32, 32], layers_per_block=1)
    text = preset("text_encoder", hidden_size=32, intermediate_size=64, num_attention_heads=4, num_hidden_layers=2)
    UNet2DConditionModel.from_config(unet).save_pretrained(folder / "unet")
    AutoencoderKL.from_config(vae).save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")
    write_tokenizer(TOKENIZER / "tokenizer", folder / "tokenizer")
    (folder / "scheduler").mkdir(exist_ok=True)
    shutil.copy(PRESETS / "scheduler.json", folder / "scheduler" / "scheduler_config.json")
    shutil.copy(PRESETS / "model_index.json", folder / "model_index.json")


main()
