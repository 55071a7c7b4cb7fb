"""Records PyTorch's legacy weight files, as torch.save writes them, and the tensors in them as safetensors."""

import collections
import io
import os
import pathlib
import sys
import tarfile
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch
from common import Draws, main, save_meta, save_tensors

SEED = 801
REASON = "bytes are exact"


def mixed(draws):
    """One tensor of each element type, a scalar and an empty one."""
    x = draws.normal("x", 3, 4)
    return {
        "block.f32": x,
        "block.f16": (2 * x).half(),
        "block.bf16": (3 * x).bfloat16(),
        "block.f64": x[0].double() / 3,
        "position_ids": torch.arange(7).unsqueeze(0),
        "i32": torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        "i16": torch.tensor([-300, 300], dtype=torch.int16),
        "i8": torch.tensor([-1, 1], dtype=torch.int8),
        "u8": torch.tensor([0, 255], dtype=torch.uint8),
        "mask": torch.tensor([True, False, True]),
        "scale": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
    }


def module(draws):
    """A module's own state dict: an OrderedDict with version numbers in an attribute."""
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.GroupNorm(1, 3))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(draws.normal(name, *parameter.shape))
    return network.state_dict()


def shared(draws):
    """Two names for one tensor, and views that begin inside another's storage."""
    whole = draws.normal("whole", 6, 4)
    return {"whole": whole, "same": whole, "rows": whole[2:5], "row": whole[5], "flat": whole.view(3, 8)}


class Callback:
    """Stands in for a class of a package that the reader does not have."""


def foreign(name, value):
    """Puts `value` into a module of this name, so that a pickle finds it there."""
    *packages, last = name.split(".")
    for i in range(1, len(packages) + 1):
        sys.modules.setdefault(".".join(packages[:i]), types.ModuleType(".".join(packages[:i])))
    value.__module__, value.__qualname__, value.__name__ = ".".join(packages), last, last
    setattr(sys.modules[".".join(packages)], last, value)
    return value


def lightning(draws):
    """A trainer's checkpoint: weights under `state_dict`, and classes named but never made."""
    callback = foreign("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", Callback)
    weights = collections.OrderedDict(weight=draws.normal("weight", 2, 3), bias=draws.normal("bias", 2))
    return {
        "epoch": 3,
        "global_step": 2**40,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": weights,
        "callbacks": {callback: {"monitor": "val/loss", "best": 0.25, "dirpath": None}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(2, 3)}}, "betas": (0.9, 0.999)}],
        "lr_schedulers": [],
        "dtype": torch.float32,
        "seed": 2**64 + 1,
    }


class Hostile:
    """Loading this with pickle runs a command."""

    def __reduce__(self):
        return os.system, ("touch was-executed",)


def old_tar():
    """What a reader sees of the oldest format: a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ["storages", "tensors", "pickle"]:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return out.getvalue()


def record(folder):
    folder.mkdir(parents=True, exist_ok=True)
    draws = Draws(SEED)

    def save(name, value, **options):
        torch.save(value, folder / f"{name}.bin", **options)

    def expect(name, tensors):
        save_tensors(folder / f"{name}.safetensors", {k: v.clone() for k, v in tensors.items()}, wide=tensors)

    plain = mixed(draws)
    expect("mixed", plain)
    save("mixed", plain)
    for protocol in [3, 4, 5]:
        save(f"mixed-protocol{protocol}", plain, pickle_protocol=protocol)

    weights = module(draws)
    expect("module", weights)
    save("module", weights)
    save("module-nested", {"state_dict": weights, "epoch": 3})
    parameters = {k: torch.nn.Parameter(v, requires_grad=k.endswith("weight")) for k, v in weights.items()}
    save("module-parameters", parameters)

    views = shared(draws)
    expect("shared", views)
    save("shared", views)

    checkpoint = lightning(draws)
    expect("lightning", checkpoint["state_dict"])
    save("lightning", checkpoint)

    save("hostile", {"weight": draws.normal("kept", 2), "more": Hostile()})
    save("strided", {"across": draws.normal("across", 3, 4).t()})
    # Without tensors: their keys would be addresses, which differ from run to run.
    save("before-1.6", {"epoch": 3}, _use_new_zipfile_serialization=False)
    (folder / "before-0.2.bin").write_bytes(old_tar())
    what = (
        "legacy files as torch.save writes them, and the tensors in them as safetensors under the first word of the "
        "name; hostile, strided and before-* are to be refused"
    )
    save_meta(folder, what, SEED, ["torch"], {"output": 0.0}, REASON, precision=None)


if __name__ == "__main__":
    main("pickle", record)
