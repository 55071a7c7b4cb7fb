"""Records steps of torch.optim.AdamW, with and without clipping, on a few small parameters.

The parameters and gradients are f32 numbers; the run is in f64.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch
from common import Draws, main, save_meta

SEED = 701
STEPS = 6
SHAPES = [(5,), (2, 3), (1,)]

# lr per step, settings under their diffusers names, longest gradient
CASES = [
    ([1e-2] * STEPS, dict(betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8), None),
    ([0.0, 5e-3, 1e-2, 1e-2, 5e-3, 1e-3], dict(betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6), 1.0),
    ([1e-1] * STEPS, dict(betas=(0.9, 0.999), weight_decay=0.0, eps=1e-2), 0.5),
]


def flat(tensors):
    return [tensor.detach().flatten().tolist() for tensor in tensors]


def run(case, rates, settings, max_grad_norm):
    draws = Draws(SEED + case)
    # Gradients of very different sizes, so that epsilon and clipping matter.
    start = [draws.normal(f"parameter.{i}", *shape) for i, shape in enumerate(SHAPES)]
    parameters = [torch.nn.Parameter(p.double()) for p in start]
    optimizer = torch.optim.AdamW(parameters, **settings)
    steps = []
    for step, rate in enumerate(rates):
        gradients = [draws.normal(f"{step}.{i}", *shape) * 10 ** -(i + step % 3) for i, shape in enumerate(SHAPES)]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.double()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or float("inf")).item()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        steps.append({"learning_rate": rate, "gradients": flat(gradients), "norm": norm, "parameters": flat(parameters)})
    (beta1, beta2) = settings["betas"]
    named = dict(adam_beta1=beta1, adam_beta2=beta2, adam_weight_decay=settings["weight_decay"], adam_epsilon=settings["eps"])
    return {"settings": named, "max_grad_norm": max_grad_norm, "start": flat(start), "steps": steps}


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    recorded = [run(i, *case) for i, case in enumerate(CASES)]
    (root / "adamw.json").write_text(json.dumps(recorded, indent=1) + "\n")
    save_meta(
        root, __doc__.splitlines()[0], SEED, ("torch",), {"parameter": 1e-6},
        "parameters near 1 keep seven digits in f32, of which six steps lose less than one", precision=None,
    )  # fmt: skip


if __name__ == "__main__":
    main("optimizer", record)
