"""Times a Diffusion-DPO step of PyTorch with diffusers and peft, for `benchmarks/gpu/run.sh`: weights drawn by a seed, latents and
embeddings in memory, as on our side.

LoRA: huggingface/diffusers, examples/research_projects/diffusion_dpo/train_diffusion_dpo.py; the weights in bf16, the reference by
adapter off. Full: SalesforceAIResearch/DiffusionDPO, train.py; f32 weights under autocast, a frozen copy in bf16.

Prints JSON lines as our side does. Without diffusers and peft, or with --smoke, it prints what is missing, or a tiny step.
"""

import argparse
import importlib.metadata
import json
import pathlib
import time

import torch
import torch.nn.functional as F

BETA_DPO = 5000
#       SDXL, LoRA, pairs, gradient checkpointing
CASES = {
    "sd15-lora-1": (False, True, 1, False),
    "sd15-lora-16": (False, True, 16, False),
    "sd15-full": (False, False, 1, False),
    "sd15-full-8bit": (False, False, 1, False),
    "sdxl-lora": (True, True, 1, False),
    "sdxl-full": (True, False, 1, True),
}
PRESETS = pathlib.Path("crates/models/presets")
SMALL = dict(
    sample_size=8, block_out_channels=(64, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=12,
    attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    is_sdxl, is_lora, n_pairs, checkpointing = CASES[args.case]
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig

    device = torch.device("cuda" if args.device == "auto" else args.device)
    torch.manual_seed(0)
    if args.smoke:
        config = SMALL
    else:
        config = json.loads((PRESETS / ("sdxl" if is_sdxl else "sd1") / "unet.json").read_text())
    with device:
        unet = UNet2DConditionModel.from_config(config)
        reference = None if is_lora else UNet2DConditionModel.from_config(config).requires_grad_(False).to(torch.bfloat16)
    if is_lora:
        unet.requires_grad_(False).to(torch.bfloat16)
        layers = ["to_k", "to_q", "to_v", "to_out.0"]
        unet.add_adapter(LoraConfig(r=8, lora_alpha=8, init_lora_weights="gaussian", target_modules=layers))
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet.train()
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    if args.case.endswith("-8bit"):
        # bitsandbytes does not fit into what can be carried; where the machine has it, it is measured.
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            return say(section="speed", name=args.case, side="peer", missing="bitsandbytes")
        optimizer = AdamW8bit(trained, lr=1e-4, weight_decay=1e-2)
    else:
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-2)
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
    run = torch.compile(unet) if args.compile else unet

    side, tokens, width = (16, 7, 12) if args.smoke else (128, 77, 2048) if is_sdxl else (64, 77, 768)
    latents = torch.randn(2 * n_pairs, 4, side, side, device=device, dtype=torch.bfloat16)
    text = torch.randn(2 * n_pairs, tokens, width, device=device, dtype=torch.bfloat16)
    added = None
    if is_sdxl and not args.smoke:
        added = {
            "text_embeds": torch.randn(2 * n_pairs, 1280, device=device, dtype=torch.bfloat16),
            "time_ids": torch.tensor([1024.0, 1024, 0, 0, 1024, 1024], device=device).repeat(2 * n_pairs, 1),
        }

    def errors(network, noisy, t, noise):
        prediction = network(noisy, t, text, added_cond_kwargs=added).sample
        return F.mse_loss(prediction.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))

    def step():
        noise = torch.randn_like(latents[:n_pairs]).repeat(2, 1, 1, 1)
        t = torch.randint(1000, (n_pairs,), device=device).repeat(2)
        noisy = schedule.add_noise(latents, noise, t)
        with torch.autocast(device.type, torch.bfloat16):
            policy = errors(run, noisy, t, noise)
            with torch.no_grad():
                if is_lora:
                    unet.disable_adapters()
                    frozen = errors(unet, noisy, t, noise)
                    unet.enable_adapters()
                else:
                    frozen = errors(reference, noisy, t, noise)
        winner, loser = policy.chunk(2)
        reference_winner, reference_loser = frozen.chunk(2)
        loss = -F.logsigmoid(-0.5 * BETA_DPO * ((winner - loser) - (reference_winner - reference_loser))).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def synchronize():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(1 if args.smoke else 3):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronize()
    began, n_steps = time.perf_counter(), 2 if args.smoke else 10
    losses = [step() for _ in range(n_steps)]
    synchronize()
    seconds = (time.perf_counter() - began) / n_steps
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    finite = all(loss == loss for loss in losses)
    say(section="speed", name=f"{args.case}, losses of the peer are numbers", found=float(not finite), limit=0.0, passed=finite)
    versions = {name: importlib.metadata.version(name) for name in ["torch", "diffusers", "peft"]}
    say(
        section="speed", name=args.case, side="peer-compiled" if args.compile else "peer", seconds=seconds,
        pairs_per_second=n_pairs / seconds, peak_bytes=peak, reserved_bytes=reserved, precision="bf16", versions=versions,
    )  # fmt: skip


def say(**fields):
    # No spaces: the script counts `"passed":true`.
    print(json.dumps(fields, separators=(",", ":")), flush=True)


main()
