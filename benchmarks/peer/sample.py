"""Generates with diffusers for `cargo xtask bench sample`, one image after another, each written as a PNG file.

The same flags and names of samplers as `tastemaker sample`. Images are timed by the times of their files. Prints a JSON line
`end` with versions.
"""

import argparse
import importlib.metadata
import json
import pathlib

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

SAMPLERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--sampler", choices=SAMPLERS, default="ddim")
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--num_inference_steps", type=int, default=50)
    parser.add_argument("--guidance_scale", type=float, default=7.5)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipeline = load(args)
    for seed in range(args.images):
        image = pipeline(
            args.prompt,
            height=args.height,
            width=args.width,
            num_inference_steps=args.num_inference_steps,
            guidance_scale=args.guidance_scale,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        image.save(args.out / f"0000-{seed}.png")
    names = ["torch", "diffusers", "transformers"]
    print(json.dumps({"event": "end", "versions": {name: importlib.metadata.version(name) for name in names}}))


def load(args):
    dtype = torch.float32 if args.precision == "no" else torch.bfloat16
    kind, own = SAMPLERS[args.sampler]
    config = json.loads((args.model / "scheduler" / "scheduler_config.json").read_text())
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(args.model, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(args.model, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(args.model, subfolder="tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(args.model, subfolder="unet"),
        scheduler=kind.from_config(config, **own),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


main()
