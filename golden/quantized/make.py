"""Records weights packed by bitsandbytes (NF4, its scales in 8 bits, int8 rows) and torchao (int8 and float8 rows), and unpacked again."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import bitsandbytes  # noqa: F401  registers the operations
import torch
from bitsandbytes import functional as F
from common import Draws, main, save_meta, save_tensors
from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, PerRow, quantize_

SEED = 1801
BLOCK, NESTED = 64, 256
# The last block is not whole; more than one block of scales; one outlier. What is unpacked is recorded of the small one.
SHAPES = {"small": (10, 70), "large": (160, 136)}


def nf4(name, weight, tensors):
    codes, absmax = torch.ops.bitsandbytes.quantize_4bit(weight, BLOCK, "nf4", torch.uint8)
    tensors |= {f"{name}.nf4.codes": codes.flatten(), f"{name}.nf4.absmax": absmax}
    for kind in (torch.float32, torch.bfloat16):
        tensors[f"{name}.nf4.{str(kind)[6:]}"] = torch.ops.bitsandbytes.dequantize_4bit(
            codes, absmax, BLOCK, "nf4", weight.shape, kind
        )
    # As `quantize_4bit(compress_statistics=True)`; by comparing with all codes, as its CUDA side does (see golden/bitsandbytes).
    offset = absmax.mean()
    nested, scale = torch.ops.bitsandbytes.quantize_blockwise((absmax - offset).double(), F.create_dynamic_map(True), NESTED)
    tensors |= {f"{name}.nested.codes": nested, f"{name}.nested.absmax": scale.float(), f"{name}.nested.offset": offset}
    wide = torch.ops.bitsandbytes.dequantize_blockwise(nested, scale.float(), F.create_dynamic_map(True), NESTED, torch.float32)
    tensors[f"{name}.nested.float32"] = torch.ops.bitsandbytes.dequantize_4bit(
        codes, wide + offset, BLOCK, "nf4", weight.shape, torch.float32
    )


def rows(name, weight, tensors):
    codes, absmax, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(weight.clone())
    tensors |= {f"{name}.int8.codes": codes, f"{name}.int8.absmax": absmax}
    for label, config in (("torchao_int8", Int8WeightOnlyConfig(version=2)), ("float8", Float8WeightOnlyConfig(granularity=PerRow()))):
        layer = torch.nn.Linear(*reversed(weight.shape), bias=False)
        layer.weight.data.copy_(weight)
        quantize_(layer, config)
        packed = layer.weight
        tensors |= {f"{name}.{label}.codes": packed.qdata.view(torch.uint8), f"{name}.{label}.scale": packed.scale.float()}
        tensors[f"{name}.{label}.float32"] = packed.dequantize()


def record(root):
    root.mkdir(parents=True, exist_ok=True)
    draws, tensors = Draws(SEED), {}
    for name, shape in SHAPES.items():
        weight = draws.normal(name, *shape) * 0.02
        weight[5, 7] = 0.4
        tensors[name] = weight
        nf4(name, weight, tensors)
        rows(name, weight, tensors)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("large.") or not k.endswith("32")}
    save_tensors(root / "io.safetensors", tensors)
    save_meta(
        root, __doc__.splitlines()[0], SEED, ("bitsandbytes", "torchao", "torch"), {"offset": 1e-6},
        "codes and scales are equal bit for bit; a mean of scales depends on the order of its sum", precision=None,
    )  # fmt: skip


if __name__ == "__main__":
    main("quantized", record)
