"""Records noise schedules, sampling timesteps and DDIM step coefficients of diffusers.

Run from anywhere: python golden/schedules/make.py

Step coefficients are read off by feeding unit samples, unit model outputs and unit noise through the scheduler. Its
table is widened to float64 first, so that they test the formula and not the table.
"""

import json
import platform
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

HERE = Path(__file__).parent

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


def write(name, entries):
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def main():
    torch.set_num_threads(1)
    write("alpha_bars", alpha_bars())
    write("timesteps", sampling_timesteps())
    write("sampling_steps", sampling_steps())
    write("inversion_steps", inversion_steps())
    versions = {"python": platform.python_version(), "diffusers": diffusers.__version__}
    versions |= {"torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    (HERE / "meta.toml").write_text(
        f"""# Written by make.py. Nothing here is random.
recorded_with = {{ {", ".join(f'{name} = "{version}"' for name, version in versions.items())} }}

[tolerance.alpha_bars]
relative = 1e-4
absolute = 1e-6
reason = "diffusers accumulates its table in float32 over a thousand products, ours is float64"

[tolerance.steps]
relative = 1e-12
absolute = 1e-12
reason = "both sides are float64 from the same signal powers"
"""
    )


if __name__ == "__main__":
    main()
