"""Times training steps of the published PyTorch recipes and tells the memory they hold, for `cargo xtask bench train`.

Modes, each for Diffusion-DPO and MaPO, one pair a step:

    lora          a LoRA on the four attention projections; images are decoded and encoded, captions encoded in every step;
                  the reference is the same network with the adapter off
                  (huggingface/diffusers, examples/research_projects/diffusion_dpo/train_diffusion_dpo.py; mapo-t2i/mapo,
                  train_with_lora.py, on SD1.5)
    lora-no-vae   the same from latents and embeddings made before the first step, without the encoders in memory
    full          the whole UNet, f32 weights under accelerate's autocast, AdamW; the reference is a frozen copy in the weight
                  type; encoders in the loop (SalesforceAIResearch/DiffusionDPO, train.py; mapo-t2i/mapo, train.py)

Precision `bf16` is PyTorch's own. `bf16-via-f32` keeps everything in bfloat16 but computes convolutions and linear layers in
f32, which is many times faster on a processor without bfloat16 instructions; the published recipes have no such thing.

Prints JSON lines: `begin` behind all set-up, one `step` for each, warm-up included, `end` with memory and versions. Peak memory is
the kernel's VmHWM: before the steps, and in them after writing 5 to /proc/self/clear_refs.
"""

import argparse
import ctypes
import importlib.metadata
import json
import pathlib
import time

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torchvision import transforms
from transformers import CLIPTextModel, CLIPTokenizer

BETA_DPO = 5000
BETA_MAPO, SNR_VALUE = 0.1, 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=["lora", "lora-no-vae", "full"], required=True)
    parser.add_argument("--method", choices=["diffusion-dpo", "mapo"], required=True)
    parser.add_argument("--precision", choices=["no", "bf16", "bf16-via-f32"], default="bf16")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=1e-5)
    parser.add_argument("--steps", type=int, default=2, help="timed ones are all but the first")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.precision == "bf16-via-f32":
        compute_products_in_f32()

    accelerator = Accelerator(cpu=True, mixed_precision="no" if args.precision == "no" else "bf16")
    weight_dtype = torch.float32 if args.precision == "no" else torch.bfloat16
    recipe = Recipe(args, accelerator, weight_dtype)

    before = peak()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    say(event="begin")
    batches = recipe.batches()
    for _ in range(args.steps):
        began = time.perf_counter()
        loss = recipe.step(next(batches))
        say(event="step", seconds=time.perf_counter() - began, loss=loss)
    names = ["torch", "diffusers", "peft", "accelerate", "transformers"]
    say(
        event="end",
        peak_bytes_before_training=before,
        peak_bytes_in_training=peak(),
        threads=torch.get_num_threads(),
        versions={name: importlib.metadata.version(name) for name in names},
    )


class Recipe:
    """The networks, the optimizer, and one step of them."""

    def __init__(self, args, accelerator, weight_dtype):
        self.args, self.accelerator, self.weight_dtype = args, accelerator, weight_dtype
        self.schedule = DDPMScheduler.from_pretrained(args.model, subfolder="scheduler")
        tokenizer = CLIPTokenizer.from_pretrained(args.model, subfolder="tokenizer")
        self.vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae").requires_grad_(False)
        self.text_encoder = CLIPTextModel.from_pretrained(args.model, subfolder="text_encoder").requires_grad_(False)
        pairs = Pairs(args.pairs, args.resolution, tokenizer)
        if args.mode == "lora-no-vae":
            pairs = [self.encode(pixels[None], ids[None]) for pixels, ids in pairs]
            pairs = [(latents.to(weight_dtype), text.to(weight_dtype)) for latents, text in pairs]
            del self.vae, self.text_encoder
        else:
            # MaPO's script keeps the VAE in f32, those of Diffusion-DPO do not.
            self.vae.to(torch.float32 if args.method == "mapo" else weight_dtype)
            self.text_encoder.to(weight_dtype)
        self.loader = torch.utils.data.DataLoader(
            pairs, batch_size=1 if args.mode != "lora-no-vae" else None, shuffle=True
        )

        unet = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet")
        self.frozen = None
        if args.mode == "full":
            unet.requires_grad_(True)
            if args.method == "diffusion-dpo":
                frozen = UNet2DConditionModel.from_pretrained(args.model, subfolder="unet")
                self.frozen = frozen.requires_grad_(False).to(weight_dtype)
        else:
            unet.requires_grad_(False).to(weight_dtype)
            layers = ["to_k", "to_q", "to_v", "to_out.0"]
            unet.add_adapter(
                LoraConfig(r=args.rank, lora_alpha=args.rank, init_lora_weights="gaussian", target_modules=layers)
            )
        if args.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        self.learning = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self.learning, lr=args.learning_rate, weight_decay=1e-2)
        self.unet, self.optimizer = accelerator.prepare(unet.train(), optimizer)

    def batches(self):
        while True:
            yield from self.loader

    @torch.no_grad()
    def encode(self, pixels, ids):
        """Latents `[2, 4, h, w]`, winner first, and embeddings `[1, 77, width]`."""
        pixels = torch.cat(pixels.chunk(2, dim=1)).to(self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
        return latents.to(self.weight_dtype), self.text_encoder(ids)[0]

    def step(self, batch):
        latents, text = batch if self.args.mode == "lora-no-vae" else self.encode(*batch)
        text = text.repeat(2, 1, 1)
        noise = torch.randn_like(latents[:1]).repeat(2, 1, 1, 1)
        t = torch.randint(self.schedule.config.num_train_timesteps, (1,)).repeat(2)
        noisy = self.schedule.add_noise(latents, noise, t)

        errors = squared_errors(self.unet(noisy, t, text).sample, noise)
        if self.args.method == "mapo":
            loss = mapo(errors)
        else:
            with torch.no_grad():
                reference = squared_errors(self.reference(noisy, t, text), noise)
            loss = diffusion_dpo(errors, reference)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def reference(self, noisy, t, text):
        if self.frozen is not None:
            return self.frozen(noisy, t, text).sample
        network = self.accelerator.unwrap_model(self.unet)
        network.disable_adapters()
        prediction = self.unet(noisy, t, text).sample
        network.enable_adapters()
        return prediction


def squared_errors(prediction, target):
    """Mean squared error of each image, in f32."""
    return F.mse_loss(prediction.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))


def diffusion_dpo(errors, reference):
    """`-log sigmoid(-beta/2 * (difference of the policy's errors - that of the reference's))`."""
    (winner, loser), (reference_winner, reference_loser) = errors, reference
    return -F.logsigmoid(-0.5 * BETA_DPO * ((winner - loser) - (reference_winner - reference_loser)))


def mapo(errors):
    """The released form: the winner's error, and the margin of `a*L / (exp(a*L) - 1)` at 1000 timesteps."""
    winner, loser = SNR_VALUE * errors / torch.expm1(SNR_VALUE * errors)
    return errors[0] - BETA_MAPO * F.logsigmoid(1000 * (winner - loser))


class Pairs(torch.utils.data.Dataset):
    """Images `[6, side, side]`, winner first, from -1 to 1, and token ids `[77]`."""

    def __init__(self, folder, side, tokenizer):
        self.folder = folder
        self.rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        captions = [row["caption"] for row in self.rows]
        self.ids = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
        bilinear = transforms.InterpolationMode.BILINEAR
        self.transform = transforms.Compose(
            [
                transforms.Resize(side, interpolation=bilinear),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if index >= len(self.rows):
            raise IndexError(index)
        row = self.rows[index]
        columns = ("image_0", "image_1") if row["label_0"] else ("image_1", "image_0")
        images = [self.transform(Image.open(self.folder / row[column]).convert("RGB")) for column in columns]
        return torch.cat(images), self.ids[index]


def compute_products_in_f32():
    """Has bfloat16 convolutions and linear layers compute in f32; what is kept for the backward pass stays bfloat16."""
    conv2d, linear = F.conv2d, F.linear

    class Via(torch.autograd.Function):
        @staticmethod
        def forward(ctx, product, x, weight, bias):
            ctx.product = product
            ctx.save_for_backward(x, weight, bias)
            return product(x.float(), weight.float(), None if bias is None else bias.float()).to(torch.bfloat16)

        @staticmethod
        def backward(ctx, grad):
            needed = ctx.needs_input_grad[1:]
            inputs = [
                None if value is None else value.float().requires_grad_(need)
                for value, need in zip(ctx.saved_tensors, needed, strict=True)
            ]
            with torch.enable_grad(), torch.autocast("cpu", enabled=False):
                result = ctx.product(*inputs)
            wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(result, wanted, grad.float()))
            return None, *(next(found).to(torch.bfloat16) if need else None for need in needed)

    def via(product, x, weight, bias):
        if torch.is_autocast_enabled("cpu"):
            x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
            bias = None if bias is None else bias.to(torch.bfloat16)
        if x.dtype != torch.bfloat16:
            return product(x, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return Via.apply(product, x, weight, bias)

    def conv2d_via(x, weight, bias=None, *geometry, **named):
        return via(lambda *inputs: conv2d(*inputs, *geometry, **named), x, weight, bias)

    def linear_via(x, weight, bias=None):
        return via(linear, x, weight, bias)

    F.conv2d, F.linear = conv2d_via, linear_via


def peak():
    """Largest number of bytes resident since the start or the last reset."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def say(**fields):
    print(json.dumps(fields), flush=True)


main()
