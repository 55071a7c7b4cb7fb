"""Records noise schedules, sampling timesteps and DDIM step coefficients of diffusers.

Step coefficients are read off by feeding unit samples, unit model outputs and unit noise through the scheduler. Its
table is widened to float64 first, so that they test the formula and not the table.
"""

import json
import pathlib
import sys

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common import main, save_meta  # noqa: E402

SCHEDULES = [
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000},
    {"beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000},
    {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.05, "num_train_timesteps": 97},
]


def scheduler(kind=DDIMScheduler, **config):
    return kind.from_config({"clip_sample": False, **config})


def short(values):
    """float32 values as the shortest decimals that still name them."""
    return [float(str(value)) for value in values.numpy()]


def alpha_bars():
    for config in SCHEDULES:
        for zero_snr in (False, True):
            table = scheduler(**config, rescale_betas_zero_snr=zero_snr).alphas_cumprod
            yield {**config, "rescale_betas_zero_snr": zero_snr, "alpha_bars": short(table)}


def sampling_timesteps():
    for n_train, counts in [(1000, [1, 2, 3, 4, 7, 10, 20, 25, 28, 30, 50, 61, 97, 333, 499, 1000]), (97, [1, 5, 32, 97])]:
        for spacing in ("leading", "trailing", "linspace"):
            for n_steps in counts:
                offset = 1 if spacing == "leading" and n_steps < 500 else 0
                ddim = scheduler(num_train_timesteps=n_train, timestep_spacing=spacing, steps_offset=offset)
                ddim.set_timesteps(n_steps)
                # Rounding inside numpy.arange can append a timestep of -1: not a level of any schedule
                timesteps = [t for t in ddim.timesteps.tolist() if t >= 0]
                assert len(timesteps) == n_steps
                yield {"n_train": n_train, "spacing": spacing, "steps_offset": offset, "timesteps": timesteps}


def coefficients(take):
    """Weights of sample, model output and noise in a function linear in the three."""
    units = torch.eye(3, dtype=torch.float64)
    return [take(*units[:, index].reshape(3, 1)).item() for index in range(3)]


def sampling_steps():
    for prediction in ("epsilon", "v_prediction"):
        for zero_snr in (False, True):
            for set_alpha_to_one in (False, True):
                ddim = scheduler(
                    **SCHEDULES[0],
                    prediction_type=prediction,
                    rescale_betas_zero_snr=zero_snr,
                    set_alpha_to_one=set_alpha_to_one,
                    timestep_spacing="trailing",
                )
                ddim.alphas_cumprod = ddim.alphas_cumprod.double()
                ddim.final_alpha_cumprod = ddim.final_alpha_cumprod.double()
                if not set_alpha_to_one:
                    ddim.final_alpha_cumprod = ddim.alphas_cumprod[0]
                ddim.set_timesteps(7)
                for timestep in ddim.timesteps.tolist():
                    if prediction == "epsilon" and ddim.alphas_cumprod[timestep] == 0:
                        continue
                    previous = timestep - 1000 // 7
                    to = ddim.alphas_cumprod[previous] if previous >= 0 else ddim.final_alpha_cumprod
                    for eta in (0.0, 0.3, 1.0):
                        def take(sample, output, noise):
                            return ddim.step(output, timestep, sample, eta=eta, variance_noise=noise).prev_sample
                        weights = coefficients(take)
                        if eta == 0:
                            weights[2] = 0.0
                        yield {
                            "prediction": prediction,
                            "eta": eta,
                            "set_alpha_to_one": set_alpha_to_one,
                            "zero_snr": zero_snr,
                            "timestep": timestep,
                            "n_steps": 7,
                            "alpha_bar_from": ddim.alphas_cumprod[timestep].item(),
                            "alpha_bar_to": to.item(),
                            "coefficients": weights,
                        }


def inversion_steps():
    for prediction in ("epsilon", "v_prediction"):
        inverse = scheduler(DDIMInverseScheduler, **SCHEDULES[0], prediction_type=prediction, steps_offset=1)
        inverse.alphas_cumprod = inverse.alphas_cumprod.double()
        inverse.set_timesteps(10)
        for timestep in inverse.timesteps.tolist()[1:]:
            def take(sample, output, _):
                return inverse.step(output, timestep, sample).prev_sample
            yield {
                "prediction": prediction,
                "eta": 0.0,
                "alpha_bar_from": inverse.alphas_cumprod[timestep - 100].item(),
                "alpha_bar_to": inverse.alphas_cumprod[timestep].item(),
                "coefficients": coefficients(take),
            }


def write(path, entries):
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def record(root):
    write(root / "alpha_bars.json", alpha_bars())
    write(root / "timesteps.json", sampling_timesteps())
    write(root / "sampling_steps.json", sampling_steps())
    write(root / "inversion_steps.json", inversion_steps())
    save_meta(
        root,
        "noise tables, sampling timesteps of every spacing, and the coefficients of DDIM steps in both directions",
        0,
        ("torch", "diffusers", "numpy"),
        {"table_relative": 3e-6, "table_absolute": 1e-6, "step_relative": 1e-12, "step_absolute": 1e-12},
        "diffusers accumulates its table in f32 over a thousand products, ours is f64; step coefficients are f64 on both "
        "sides, from the same signal powers. Nothing is random",
        precision=None,
    )


if __name__ == "__main__":
    main("schedules", record)
