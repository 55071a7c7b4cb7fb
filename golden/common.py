"""What every recorder shares: redrawn weights, the layout of a case, and comparing with what is committed."""

import argparse
import contextlib
import importlib.metadata
import json
import pathlib
import shutil
import tempfile
import tomllib

import torch
from safetensors.torch import load_file, save_file

GOLDEN = pathlib.Path(__file__).resolve().parent
TOLERANCE = {"output": 1e-5, "gradient": 1e-4}
REASON = "f32 sums in another order; [measured] shows what the same network loses in PyTorch f32"

PRECISION = (
    "The reference ran in f64 on f32 weights and inputs and was then rounded to f32 (the sinusoidal time embedding "
    "stays in f32, as published). A difference is therefore the error of the code under test alone; [measured] says "
    "what the published package itself loses when it runs in f32."
)


def redraw(model, seed):
    """Redraws every parameter, so that no bias, norm or zero-initialized layer can be skipped unnoticed.

    `crates/testkit/src/redraw.rs` draws the same numbers, so that weights need no files: change both or neither.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = {id(m.weight) for m in model.modules() if type(m).__name__.endswith("Norm") and hasattr(m, "weight")}
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if id(parameter) in norms:
                drawn = 1 + 0.2 * drawn
            elif parameter.dim() < 2:
                drawn = 0.2 * drawn
            else:
                drawn = drawn / parameter[0].numel() ** 0.5
            parameter.copy_(drawn.float())
    return model.eval()


class Draws:
    """Named inputs from one seed, kept so that they can be stored beside the outputs."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.kept = {}

    def normal(self, name, *shape):
        return self.keep(name, torch.randn(shape, generator=self.generator, dtype=torch.float64).float())

    def keep(self, name, tensor):
        self.kept[name] = tensor
        return tensor


def awkward_prompts():
    """What tokenizers stumble over: the prompts of CLIP's and those added for T5's."""
    groups = [g for area in ("tokenizer", "sd3") for g in json.loads((GOLDEN / area / "prompts.json").read_text()).values()]
    return [prompt for group in groups for prompt in group]


def seed_of(case):
    """The seed that the weights of `golden/models/<case>` are drawn from."""
    return tomllib.loads((GOLDEN / "models" / case / "meta.toml").read_text())["seed"]


def load_unet(case):
    """The UNet of `golden/models/<case>`."""
    from diffusers import UNet2DConditionModel

    config = json.loads((GOLDEN / "models" / case / "config.json").read_text())
    return redraw(UNet2DConditionModel.from_config(config), seed_of(case))


def twice(model, run):
    """Runs `run(model, dtype)` in f64 and in f32 and restores f32 weights."""
    exact = run(model.double(), torch.float64)
    rounded = run(model.float(), torch.float32)
    return exact, rounded


def relative_error(actual, expected):
    """Largest absolute difference over the largest absolute expected value."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-300)).item()


def vanishing(gradients):
    """Gradients that are zero in exact arithmetic, such as a key bias under a softmax: only rounding is left."""
    largest = max((g.abs().max().item() for g in gradients.values()), default=0.0)
    return sorted(name for name, g in gradients.items() if g.abs().max().item() < 1e-10 * largest)


def measure(exact, rounded):
    """Worst relative error of the f32 run, outputs and gradients apart, vanishing gradients aside."""
    gradients = {k: v for k, v in exact.items() if k.startswith(("grad.", "grad_input."))}
    skip = set(vanishing(gradients))
    outputs = [relative_error(rounded[k], v) for k, v in exact.items() if k not in gradients]
    worst = [relative_error(rounded[k], v) for k, v in gradients.items() if k not in skip]
    return {"f32_output": max(outputs), **({"f32_gradient": max(worst)} if worst else {})}, sorted(skip)


def save_tensors(path, tensors, wide=()):
    """Writes tensors in name order; f64 is rounded to f32 except under the names in `wide`."""
    plain = {k: v.float() if v.dtype == torch.float64 and k not in wide else v for k, v in tensors.items()}
    save_file({k: plain[k].detach().contiguous() for k in sorted(plain)}, path, metadata={"format": "pt"})


def save_meta(folder, what, seed, packages, tolerance, reason, measured=None, extra=None, precision=PRECISION):
    """Writes `meta.toml`: what this is, how to record it again, how close is close enough and why."""
    quote = json.dumps
    lines = [f"what = {quote(what)}", f"seed = {seed}"] + ([f"precision = {quote(precision)}"] if precision else [])
    lines += [f"{k} = {quote(v)}" for k, v in (extra or {}).items()]
    lines += ["", "[tolerance]", *(f"{k} = {v}" for k, v in tolerance.items()), f"reason = {quote(reason)}"]
    if measured:
        lines += ["", "[measured]", *(f"{k} = {v:.1e}" for k, v in measured.items())]
    lines += ["", "[versions]", *(f"{p} = {quote(importlib.metadata.version(p))}" for p in packages)]
    (folder / "meta.toml").write_text("\n".join(lines) + "\n")


def penalty(pairs):
    """Sum of mean squared distances to drawn targets: a loss that reaches every element of every output."""
    return sum(((output - target) ** 2).mean() for output, target in pairs)


def gradients(loss, inputs, model):
    """Gradients of the loss for the named inputs and for every trainable parameter."""
    named = {f"grad_input.{k}": v for k, v in inputs.items()}
    named |= {f"grad.{k}": p for k, p in model.named_parameters() if p.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()))))


@contextlib.contextmanager
def stages(model, names):
    """Collects what the named submodules return, so that a test can name the first one that differs."""
    seen, hooks = {}, []
    for name in names:

        def keep(_module, _inputs, output, name=name):
            seen[f"stage.{name}"] = (output[0] if isinstance(output, tuple) else output).detach()

        hooks.append(model.get_submodule(name).register_forward_hook(keep))
    yield seen
    for hook in hooks:
        hook.remove()


def save_network(folder, model):
    """`config.json` exactly as the package writes it. The weights follow from the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        text = (pathlib.Path(scratch) / "config.json").read_text()
    (folder / "config.json").write_text(text)


def save_case(folder, what, seed, packages, given, exact, rounded, **extra):
    measured, zero = measure(exact, rounded)
    save_tensors(folder / "io.safetensors", given | exact)
    extra |= {"vanishing_gradients": zero} if zero else {}
    save_meta(folder, what, seed, ("torch", *packages), TOLERANCE, REASON, measured, extra)


def differences(recorded, committed):
    """Files under `recorded` that are not what is committed; tensors may differ by f64 rounding."""
    wrong = []
    for path in sorted(p for p in recorded.rglob("*") if p.is_file()):
        twin = committed / path.relative_to(recorded)
        if path.name == "meta.toml" and twin.exists():
            continue
        if not twin.exists():
            wrong.append(f"{twin}: not committed")
        elif path.read_bytes() == twin.read_bytes():
            continue
        elif path.suffix == ".safetensors":
            new, old = load_file(path), load_file(twin)
            if new.keys() != old.keys():
                wrong.append(f"{twin}: other tensors")
                continue
            skip = set(vanishing({k: v for k, v in old.items() if k.startswith("grad.")}))
            wrong += [f"{twin}: {k}" for k in old if k not in skip and relative_error(new[k], old[k]) > 1e-6]
        else:
            wrong.append(f"{twin}: other bytes")
    return wrong


def main(area, record):
    """`make.py` records in place; `make.py --check` records elsewhere and compares."""
    parser = argparse.ArgumentParser(description=f"records golden/{area}")
    parser.add_argument("--check", action="store_true", help="record again elsewhere and compare with what is committed")
    torch.set_num_threads(1)
    if not parser.parse_args().check:
        return record(GOLDEN / area)
    scratch = pathlib.Path(tempfile.mkdtemp())
    try:
        record(scratch)
        wrong = differences(scratch, GOLDEN / area)
    finally:
        shutil.rmtree(scratch)
    raise SystemExit("\n".join(wrong) if wrong else None)
