"""Records the noise levels, training densities, weightings and solver steps of diffusers' flow models."""

import json
import pathlib
import sys

import numpy as np
import torch
from scipy.stats import norm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common import main, save_meta  # noqa: E402
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, training_utils  # noqa: E402
from diffusers.pipelines.flux.pipeline_flux import calculate_shift  # noqa: E402
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu  # noqa: E402
from diffusers.schedulers import scheduling_flow_match_euler_discrete  # noqa: E402

# As published, besides num_train_timesteps 1000: name, config, whether the pipeline passes linspace(1, 1 / n, n), mu.
LINE = dict(use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096, base_shift=0.5, max_shift=1.15, shift=3.0)
FAMILIES = [
    ("z-image-turbo", dict(shift=3.0), True, None),
    ("z-image", dict(shift=6.0), True, None),
    ("sd3", dict(shift=3.0), False, None),
    ("flux-1", LINE, True, lambda tokens, _: calculate_shift(tokens, 256, 4096, 0.5, 1.15)),
    ("flux-2-klein", LINE, True, compute_empirical_mu),
]
OPTIONS = [
    dict(use_karras_sigmas=True),
    dict(use_exponential_sigmas=True),
    dict(use_beta_sigmas=True),
    dict(shift_terminal=0.02),
    dict(shift_terminal=0.1, use_karras_sigmas=True),
    dict(invert_sigmas=True),
]
PROBABILITIES = [0.0015, 0.1, 0.25, 0.4321, 0.5, 0.75, 0.9, 0.9985]
DENSITIES = [
    ("none", {}),
    ("logit_normal", dict(logit_mean=0.0, logit_std=1.0)),
    ("logit_normal", dict(logit_mean=-0.5, logit_std=1.5)),
    ("mode", dict(mode_scale=1.29)),
    ("mode", dict(mode_scale=-0.8)),
]


def floats(values):
    """As short as they are in f32."""
    return [float(np.format_float_positional(np.float32(value), unique=True)) for value in values]


def raw(n, even):
    return dict(sigmas=np.linspace(1.0, 1 / n, n)) if even else dict(num_inference_steps=n)


def levels():
    for name, config, even, mu in FAMILIES:
        for n in (1, 2, 4, 8, 28, 50):
            for tokens in (None,) if mu is None else (256, 1024, 4096, 4301):
                scheduler = FlowMatchEulerDiscreteScheduler(**config)
                value = None if mu is None else mu(tokens, n)
                scheduler.set_timesteps(**raw(n, even), mu=value)
                yield dict(family=name, n_steps=n, image_tokens=tokens, mu=value, timesteps=floats(scheduler.timesteps), sigmas=floats(scheduler.sigmas))
    for option in OPTIONS:
        for even in (True, False):
            for n in (2, 8):
                scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **option)
                scheduler.set_timesteps(**raw(n, even))
                yield dict(family="z-image-turbo" if even else "sd3", **option, n_steps=n, timesteps=floats(scheduler.timesteps), sigmas=floats(scheduler.sigmas))
    for mu in (0.5, 3.0):
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
        scheduler.set_timesteps(**raw(8, True), mu=mu)
        yield dict(family="linear", n_steps=8, mu=mu, timesteps=floats(scheduler.timesteps), sigmas=floats(scheduler.sigmas))


def densities():
    """The level that each probability stands for, the least noise first: draws are replaced by quantiles."""
    p = torch.tensor(PROBABILITIES, dtype=torch.float64)
    z = -torch.from_numpy(norm.ppf(PROBABILITIES))
    uniform, normal = torch.rand, torch.normal
    torch.normal = lambda mean, std, **_: mean + std * z
    try:
        for family, config, *_ in FAMILIES:
            table = FlowMatchEulerDiscreteScheduler(**config).sigmas
            for scheme, settings in DENSITIES:
                # A uniform draw counts from pure noise; that of mode falls.
                torch.rand = lambda **_: p if scheme == "mode" else 1 - p  # noqa: B023
                u = training_utils.compute_density_for_timestep_sampling(scheme, len(p), **settings)
                indices = (u * 1000).long()
                yield dict(family=family, scheme=scheme, **settings, probabilities=PROBABILITIES, sigmas=floats(table[indices]))
    finally:
        torch.rand, torch.normal = uniform, normal


def weightings():
    sigmas = torch.tensor([0.001, 0.1, 0.3, 0.5, 0.9, 1.0], dtype=torch.float64)
    for scheme in ("none", "sigma_sqrt", "cosmap"):
        weights = training_utils.compute_loss_weighting_for_sd3(scheme, sigmas)
        yield dict(scheme=scheme, sigmas=sigmas.tolist(), weights=[float(f"{w:.7g}") for w in weights.tolist()])


def responses():
    """Weights of the starting noise, of every model output and of every fresh noise in the last latents: solvers are linear in them."""
    published = scheduling_flow_match_euler_discrete.randn_tensor
    solvers = [("euler", {}), ("euler-ancestral", dict(stochastic_sampling=True)), ("heun", {})] + [("dpmpp-2m", dict(solver_order=order)) for order in (1, 2, 3)]
    try:
        for sampler, extra in solvers:
            for n in (1, 2, 7, 20):
                if sampler == "dpmpp-2m":
                    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, **extra)
                    scheduler.set_timesteps(n)
                elif sampler == "heun":
                    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
                    scheduler.set_timesteps(n)
                else:
                    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **extra)
                    scheduler.set_timesteps(**raw(n, True))
                n_calls = len(scheduler.timesteps)
                axes = torch.eye(n_calls + n + 1, dtype=torch.float64)
                noises = iter(axes[n_calls + 1 :])
                scheduling_flow_match_euler_discrete.randn_tensor = lambda *_, **__: next(noises)  # noqa: B023
                latents, outputs = axes[0], iter(axes[1 : n_calls + 1])
                for t in scheduler.timesteps:
                    latents = scheduler.step(next(outputs), t, latents).prev_sample
                family = dict(family="sd3") if sampler == "heun" else {}
                yield dict(sampler=sampler, solver_order=extra.get("solver_order", 2), n_steps=n, **family, sigmas=floats(scheduler.sigmas), weights=[float(f"{w:.9g}") for w in latents.tolist()])
    finally:
        scheduling_flow_match_euler_discrete.randn_tensor = published


def write(path, entries):
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def record(root):
    write(root / "levels.json", levels())
    write(root / "densities.json", densities())
    write(root / "weightings.json", weightings())
    write(root / "responses.json", responses())
    save_meta(
        root,
        "noise levels of flow models by family, size and option, training densities by quantile, weightings, and linear responses of solvers",
        0,
        ("torch", "diffusers", "numpy", "scipy"),
        {"level": 1e-6, "weight": 1e-5},
        "diffusers mixes f32 and f64; ours is f64. Nothing is random",
        precision=None,
    )


if __name__ == "__main__":
    main("flow", record)
