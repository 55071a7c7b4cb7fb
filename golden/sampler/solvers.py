"""Trajectories and linear responses of diffusers' solvers, from configurations as they are published."""

import json

import numpy as np
import torch
from common import load_unet, relative_error, save_meta, save_tensors, twice
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm, scheduling_tcd

GUIDANCE, RESCALE, STRENGTH, STEPS = 5.0, 0.7, 0.6, 20
SOLVERS = {
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpmpp-2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp-2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "lcm": (LCMScheduler, {}),
    "tcd": (TCDScheduler, {}),
}
REASON = (
    "the solvers take their steps in f32 whatever the type of the network; the steps compound its error. LCM and TCD step from the "
    "estimate of the clean image, which this guidance makes large: diffusers in f32 is 4.4e-3 off its own f64"
)
# Solvers whose levels are their own, whatever a configuration says of spacing.
OWN_SPACING = ("dpmpp-2m-karras", "lcm", "tcd")
# Modules whose solvers draw noise.
STOCHASTIC = (scheduling_euler_ancestral_discrete, scheduling_lcm, scheduling_tcd)
# Solvers as a configuration sets them up: our name, and what it says.
SET_UP = [
    ("euler", {"use_karras_sigmas": True}),
    ("heun", {"use_karras_sigmas": True}),
    ("dpmpp-2m", {"solver_order": 1}),
    ("dpmpp-2m", {"solver_order": 3}),
    ("dpmpp-2m-karras", {"solver_order": 3}),
]
LEVELS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
SD1 = dict(_class_name="PNDMScheduler", **LEVELS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, clip_sample=False)
SD2V = dict(SD1, _class_name="DDIMScheduler", prediction_type="v_prediction")
SDXL = dict(SD1, _class_name="EulerDiscreteScheduler", interpolation_type="linear", timestep_spacing="leading")
TURBO = dict(SDXL, _class_name="EulerAncestralDiscreteScheduler", timestep_spacing="trailing")

# name: (UNet case, scheduler_config.json, height and width of latents, what)
CASES = {
    "solvers-sd1": ("unet-sd1", SD1, (8, 8), "SD1's configuration, which is silent about timesteps; images to start from"),
    "solvers-sd2v": ("unet-sd2v", SD2V, (6, 10), "v-prediction; sides that the network cannot halve evenly; rescaled guidance"),
    "solvers-sdxl": ("unet-sdxl", SDXL, (8, 8), "SDXL's configuration: leading timesteps whatever the solver"),
    "solvers-turbo": ("unet-sdxl", TURBO, (8, 8), "SDXL-Turbo's configuration: one to four trailing steps without guidance"),
}  # fmt: skip


def solver(name, config, **extra):
    kind, own = SOLVERS[name]
    return kind.from_config(config, **{**own, **extra})


class Noises:
    """Hands out recorded noise where solvers draw their own."""

    def __init__(self, noises):
        self.noises = iter(noises)

    def __enter__(self):
        self.published = [module.randn_tensor for module in STOCHASTIC]
        for module in STOCHASTIC:
            module.randn_tensor = lambda *_, **__: next(self.noises)

    def __exit__(self, *_):
        for module, published in zip(STOCHASTIC, self.published):
            module.randn_tensor = published


@torch.no_grad()
def trajectory(scheduler, predict, given, steps, strength=None):
    """The last latents, from noise or from an image."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if strength is None:
        latents = given["initial"] * scheduler.init_noise_sigma
    else:
        first = steps - min(int(steps * strength), steps)
        timesteps = timesteps[first * scheduler.order :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * scheduler.order)
        latents = scheduler.add_noise(given["image"], given["initial"], timesteps[:1])
    with Noises(given["variance_noise"]):
        for t in timesteps:
            prediction = predict(scheduler.scale_model_input(latents, t), t)
            latents = scheduler.step(prediction, t, latents).prev_sample
    return latents


def runs(name, config):
    """What is run: key, solver, steps, guidance, rescaling, strength."""
    if name == "solvers-turbo":
        return [(f"{solver}.{n}", solver, n, 0.0, 0.0, None) for solver in ("euler", "euler-ancestral") for n in (1, 2, 3, 4)]
    plain = [(f"{solver}.{STEPS}", solver, STEPS, GUIDANCE, 0.0, None) for solver in SOLVERS if solver != "ddim"]
    if name == "solvers-sd1":
        plain += [(f"{solver}.image", solver, STEPS, GUIDANCE, 0.0, STRENGTH) for solver in SOLVERS]
    if name == "solvers-sd2v":
        plain += [("euler.rescaled", "euler", STEPS, GUIDANCE, RESCALE, None)]
    return plain


def record_case(folder, seed, inputs, unet_case, config, size, what):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")
    unet = load_unet(unet_case)
    given = inputs(unet.config, STEPS, True, seed, (2, 4, *size), image=folder.name == "solvers-sd1")

    def run(model, dtype):
        wide = {k: v.to(dtype) for k, v in given.items()}

        def prediction(x, t, side):
            added = {k: wide[side + k] for k in ("text_embeds", "time_ids") if side + k in wide}
            return model(x, t, wide[side + "encoder_hidden_states"], added_cond_kwargs=added).sample

        def predict(scale, rescale):
            def guided(x, t):
                x = x.to(dtype)
                positive = prediction(x, t, "")
                if scale <= 1:
                    return positive
                negative = prediction(x, t, "negative_")
                both = negative + scale * (positive - negative)
                return rescale_noise_cfg(both, positive, rescale) if rescale else both

            return guided

        return {
            f"latents.{key}": trajectory(solver(name, config), predict(scale, rescale), wide, steps, strength).to(dtype)
            for key, name, steps, scale, rescale, strength in runs(folder.name, config)
        }

    published, rounded = twice(unet, run)
    worst = max(relative_error(rounded[k], v) for k, v in published.items())
    save_tensors(folder / "io.safetensors", given | published)
    notes = {"weights": unet_case, "steps": STEPS, "guidance": GUIDANCE, "rescale": RESCALE, "strength": STRENGTH}
    save_meta(
        folder, what, seed, ("torch", "diffusers"), {"output": 1e-4, "distilled": 3e-2}, REASON,
        {"f32_output": worst}, {k: str(v) for k, v in notes.items()},
    )  # fmt: skip


def responses():
    """What the last latents are made of: the weights of the starting noise, of every model output and of every fresh noise.

    The solvers are linear in these, so each gets an axis of its own.
    """
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    for name, extra in [(name, {}) for name in SOLVERS] + SET_UP:
        for prediction in ("epsilon", "v_prediction"):
            for spacing in ("leading", "linspace", "trailing"):
                if name in OWN_SPACING and spacing != "linspace":
                    continue
                for n in (1, 2, 7, 20):
                    config = dict(SD1, prediction_type=prediction, timestep_spacing=spacing)
                    scheduler = solver(name, config, **extra)
                    scheduler.alphas_cumprod = alphas
                    if name == "ddim":
                        scheduler.final_alpha_cumprod = alphas[0]
                    scheduler.set_timesteps(n)
                    n_calls = len(scheduler.timesteps)
                    axes = torch.eye(n_calls + n + 1, dtype=torch.float64)
                    outputs = iter(axes[1 : n_calls + 1])
                    latents = axes[0] * scheduler.init_noise_sigma
                    with Noises(axes[n_calls + 1 :]):
                        for t in scheduler.timesteps:
                            scheduler.scale_model_input(latents, t)
                            latents = scheduler.step(next(outputs), t, latents).prev_sample
                    sigmas = getattr(scheduler, "sigmas", None)
                    yield {
                        "sampler": name,
                        **extra,
                        "prediction": prediction,
                        "spacing": spacing,
                        "n_steps": n,
                        "timesteps": scheduler.timesteps.double().tolist(),
                        "sigmas": [] if sigmas is None else [float(np.format_float_positional(s, unique=True)) for s in sigmas.numpy()],
                        "weights": [float(f"{w:.9g}") for w in latents.tolist()],
                    }


def record(root, inputs):
    for seed, (name, case) in enumerate(CASES.items(), start=601):
        record_case(root / name, seed, inputs, *case)
    folder = root / "responses"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "responses.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in responses()) + "\n]\n")
    save_meta(
        folder, "linear responses of every solver: weights of noise and model outputs in the last latents", 0,
        ("torch", "diffusers", "numpy"), {"sigma": 1e-6, "weight": 1e-5},
        "diffusers keeps sigmas and takes steps in f32; its table of noise was given in f64. Nothing is random",
        precision=None,
    )  # fmt: skip
