"""Records trajectories and inversions of diffusers' schedulers on the recorded networks: DDIM here, others in `solvers.py`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import solvers
import torch
from common import Draws, load_unet, main, relative_error, save_meta, save_tensors, twice
from diffusers import DDIMInverseScheduler, DDIMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

GUIDANCE = 5.0
SD = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)
ZERO_SNR = dict(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)

# name: (UNet case, scheduler, steps, guided, what)
CASES = {
    "ddim-sd1": ("unet-sd1", DDIMScheduler(**SD), 20, True, "SD1's scheduler: epsilon, leading grid with offset 1"),
    "ddim-sd2v": (
        "unet-sd2v", DDIMScheduler(**SD, prediction_type="v_prediction"), 20, True, "v-prediction, leading grid",
    ),
    "ddim-sd2v-zero-snr": (
        "unet-sd2v", DDIMScheduler(**SD, **ZERO_SNR), 20, True,
        "v-prediction, trailing grid, zero terminal signal-to-noise ratio",
    ),
    "ddim-sdxl": ("unet-sdxl", DDIMScheduler(**SD), 20, True, "SDXL conditioning on both sides of the guidance"),
    "ddim-eta": ("unet-sd1", DDIMScheduler(**SD), 20, True, "stochastic DDIM, eta 0.5, fresh noise recorded per step"),
    "inverse-sd1": (
        "unet-sd1", DDIMInverseScheduler(**SD), 10, False,
        "inversion without guidance; the network is asked at the level it moves to",
    ),
    "inverse-sd2v": (
        "unet-sd2v", DDIMInverseScheduler(**SD, **ZERO_SNR), 10, False, "inversion of v-prediction, trailing grid",
    ),
}  # fmt: skip
ETA = {"ddim-eta": 0.5}


def inputs(config, steps, eta, seed, shape=(2, 4, 8, 8), image=False):
    draws = Draws(seed)
    draws.normal("initial", *shape)
    draws.normal("encoder_hidden_states", 2, 7, config.cross_attention_dim)
    draws.normal("negative_encoder_hidden_states", 2, 7, config.cross_attention_dim)
    if config.addition_embed_type == "text_time":
        draws.normal("text_embeds", 2, 16)
        draws.normal("negative_text_embeds", 2, 16)
        draws.keep("time_ids", torch.tensor([[64.0, 48, 0, 8, 64, 64], [96, 96, 16, 0, 64, 80]]))
        draws.keep("negative_time_ids", torch.tensor([[32.0, 32, 0, 0, 64, 64], [64, 64, 0, 0, 64, 80]]))
    if eta:
        draws.normal("variance_noise", steps, *shape)
    if image:
        draws.normal("image", *shape)
    return draws.kept


@torch.no_grad()
def trajectory(unet, scheduler, steps, guided, eta, given, dtype):
    """Latents after a quarter, half, three quarters and all of the steps."""
    given = {k: v.to(dtype) for k, v in given.items()}
    scheduler.set_timesteps(steps)

    def predict(latents, t, side):
        added = {k: given[side + k] for k in ("text_embeds", "time_ids") if k in given}
        return unet(latents, t, given[side + "encoder_hidden_states"], added_cond_kwargs=added).sample

    latents, kept = given["initial"], {}
    for done, t in enumerate(scheduler.timesteps, start=1):
        prediction = predict(latents, t, "")
        if guided:
            negative = predict(latents, t, "negative_")
            prediction = negative + GUIDANCE * (prediction - negative)
        chance = dict(eta=eta, variance_noise=given["variance_noise"][done - 1]) if eta else {}
        latents = scheduler.step(prediction, t, latents, **chance).prev_sample
        if done in (steps // 4, steps // 2, 3 * steps // 4, steps):
            kept[f"latents.{done}"] = latents
    return kept


def exact_table(config):
    """The cumulative alphas in f64, where the schedulers build them in f32."""
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000, dtype=torch.float64) ** 2
    if config.rescale_betas_zero_snr:
        betas = rescale_zero_terminal_snr(betas)
    return torch.cumprod(1 - betas, 0)


def record_case(folder, seed, unet_case, scheduler, steps, guided, what):
    folder.mkdir(parents=True, exist_ok=True)
    scheduler.save_config(folder)
    unet, eta = load_unet(unet_case), ETA.get(folder.name, 0.0)
    given = inputs(unet.config, steps, eta, seed)

    def run(model, dtype):
        return trajectory(model, scheduler, steps, guided, eta, given, dtype)

    published, rounded = twice(unet, run)
    scheduler.alphas_cumprod = exact_table(scheduler.config)
    edge = "final_alpha_cumprod" if hasattr(scheduler, "final_alpha_cumprod") else "initial_alpha_cumprod"
    setattr(scheduler, edge, scheduler.alphas_cumprod[0])
    exact = run(unet.double(), torch.float64)

    def worst(other):
        return max(relative_error(other[k], v) for k, v in published.items())

    save_tensors(folder / "io.safetensors", given | published | {"timesteps": scheduler.timesteps})
    save_meta(
        folder, what, seed, ("torch", "diffusers"), {"output": 1e-4},
        "the steps compound the f32 error of the network, and the scheduler's noise table is itself built in f32; "
        "[measured] has the distance of an f32 run and of an f64 table from the recorded latents",
        {"f32_output": worst(rounded), "f64_table": worst(exact)},
        {"weights": unet_case, "steps": str(steps), "guidance": str(GUIDANCE if guided else 1.0), "eta": str(eta)},
    )  # fmt: skip


def record(root):
    for seed, (name, case) in enumerate(CASES.items(), start=501):
        record_case(root / name, seed, *case)
    solvers.record(root, inputs)


if __name__ == "__main__":
    main("sampler", record)
