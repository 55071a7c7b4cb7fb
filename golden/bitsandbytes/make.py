"""Records the 8-bit codes of bitsandbytes, blocks quantized with them, and steps of its AdamW with 8-bit state.

It runs on the CPU. There the package quantizes f32 by a coarse table, which misses the nearest code of small values, and other
types by comparing with all codes. Blocks are recorded the second way; steps go the first way and record the state after each.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import bitsandbytes  # registers the operations
import torch
from bitsandbytes import functional as F
from common import Draws, main, save_meta, save_tensors

SEED = 702
N = 700  # two whole blocks and a part
STEPS = 8
RATE, BETAS, EPSILON, DECAY, SCALE = 1e-2, (0.9, 0.999), 1e-8, 1e-2, 0.5
BLOCK = 256


def steps(draws, tensors):
    code = {"first": F.create_dynamic_map(True), "second": F.create_dynamic_map(False)}
    parameter = draws.normal("parameter", N)
    tensors["parameter"] = parameter.clone()
    codes = {name: torch.zeros(N, dtype=torch.uint8) for name in code}
    absmax = {name: torch.zeros(-(-N // BLOCK)) for name in code}
    for step in range(STEPS):
        # Gradients of different sizes within a block and between blocks.
        sizes = 10.0 ** -(torch.arange(N) % 3 + 2 * (torch.arange(N) // BLOCK))
        gradient = draws.normal(f"gradient.{step}", N) * sizes
        tensors[f"gradient.{step}"] = gradient.clone()
        F.optimizer_update_8bit_blockwise(
            "adam", gradient, parameter, codes["first"], codes["second"], *BETAS, 0.0, 0.0, EPSILON, step + 1, RATE,
            code["first"], code["second"], absmax["first"], absmax["second"], weight_decay=DECAY, gnorm_scale=SCALE,
        )  # fmt: skip
        tensors[f"parameter.{step}"] = parameter.clone()
        for name in code:
            tensors[f"{name}.codes.{step}"] = codes[name].clone()
            tensors[f"{name}.absmax.{step}"] = absmax[name].clone()


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    draws, tensors = Draws(SEED), {}
    for name, signed in (("signed", True), ("unsigned", False)):
        code = F.create_dynamic_map(signed)
        tensors[f"{name}.code"] = code.clone()
        values = draws.normal(f"{name}.values", N)
        values = values if signed else values.square()
        codes, absmax = torch.ops.bitsandbytes.quantize_blockwise(values.double(), code, BLOCK)
        tensors |= {f"{name}.values": values, f"{name}.codes": codes, f"{name}.absmax": absmax}
    steps(draws, tensors)
    save_tensors(root / "io.safetensors", tensors)
    save_meta(
        root, __doc__.splitlines()[0], SEED, ("bitsandbytes", "torch"), {"parameter": 1e-6},
        "from one recorded state to the next only the order of f32 operations may differ", precision=None,
        extra={k: str(v) for k, v in dict(rate=RATE, beta1=BETAS[0], beta2=BETAS[1], epsilon=EPSILON, decay=DECAY, scale=SCALE).items()},
    )  # fmt: skip


if __name__ == "__main__":
    main("bitsandbytes", record)
