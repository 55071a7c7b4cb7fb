"""Records every objective's loss and gradient on random errors, in float64 with PyTorch's autograd.

The formulas below are written from the papers and the released trainers, independently of the Rust code. Rows
named `tiny` hold errors at which float64 loses digits in MaPO's score; those are computed with mpmath at 60 digits.
"""

import json
import math
import pathlib
import random
import sys

import mpmath
import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common import main, save_meta  # noqa: E402

SEED = 20240611
ROWS = 48
N_TRAIN = 1000

mpmath.mp.dps = 60


def dpo(w, l, rw, rl, beta):
    """arXiv 2311.12908 eq. 14 in the released convention: means and a factor of one half."""
    return -F.logsigmoid(-0.5 * beta * ((w - l) - (rw - rl)))


def mapo_release(w, l, beta, snr_value):
    """mapo-t2i/mapo: score differences scaled by the number of training timesteps."""

    def score(error):
        return snr_value * error / torch.expm1(snr_value * error)

    return w - beta * F.logsigmoid(N_TRAIN * (score(w) - score(l)))


def mapo_paper(w, l, beta):
    """arXiv 2406.06424: bounded scores, weight one over beta."""

    def score(error):
        return (error / torch.expm1(error)) ** beta

    return w - F.logsigmoid(score(w) - score(l)) / beta


def mapo_exact(w, l, form, beta, snr_value):
    """Loss and both derivatives of either form at 60 digits."""

    def loss(w, l):
        if form == "release":
            def score(error):
                return N_TRAIN * snr_value * error / mpmath.expm1(snr_value * error)
            weight = mpmath.mpf(beta)
        else:
            def score(error):
                return (error / mpmath.expm1(error)) ** beta
            weight = 1 / mpmath.mpf(beta)
        return w + weight * mpmath.log1p(mpmath.exp(-(score(w) - score(l))))

    w, l = mpmath.mpf(w), mpmath.mpf(l)
    slopes = [mpmath.diff(loss, (w, l), order, h=mpmath.mpf(10) ** -25) for order in ((1, 0), (0, 1))]
    return [float(loss(w, l))] + [float(slope) for slope in slopes]


def errors(draw):
    """Winner, loser and both reference errors: mostly near each other, as in training; some far apart."""
    base = 10 ** draw.uniform(-3, 0.3)
    spread = 10 ** draw.uniform(-5, -0.5)
    return [base * math.exp(spread * draw.gauss(0, 1)) for _ in range(4)]


def differentiated(function, row, n_references):
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=index < 2) for index, value in enumerate(row)]
    loss = function(*leaves[: 2 + n_references])
    slopes = torch.autograd.grad(loss, leaves[:2], allow_unused=True)
    return [loss.item()] + [0.0 if slope is None else slope.item() for slope in slopes]


def case(draw, settings, function, n_references):
    rows = []
    for _ in range(ROWS):
        row = errors(draw)
        rows.append(row[: 2 + n_references] + differentiated(function, row, n_references))
    return {"settings": settings, "rows": rows}


def tiny_mapo(draw, settings):
    rows = []
    for _ in range(8):
        w, l = (10 ** draw.uniform(-8, -3) for _ in range(2))
        rows.append([w, l] + mapo_exact(w, l, settings["form"], settings["beta"], settings.get("snr_value")))
    return {"settings": settings, "tiny": True, "rows": rows}


def write(root, name, cases, columns):
    golden = {"objective": name, "n_train_timesteps": N_TRAIN, "columns": columns, "cases": cases}
    text = json.dumps(golden).replace('"rows": [[', '"rows": [\n[').replace("], [", "],\n[").replace("]]}", "]\n]}")
    (root / f"{name}.json").write_text(text + "\n")


def record(root):
    draw = random.Random(SEED)
    policy = ["winner", "loser"]
    relative = policy + ["reference_winner", "reference_loser"]
    outputs = ["loss", "d_winner", "d_loser"]

    write(root, "sft", [case(draw, {}, lambda w, l: w.clone(), 0)], policy + outputs)
    for name, betas in [("diffusion-dpo", [5000.0, 2000.0, 250.0]), ("ddim-inpo", [2000.0, 5000.0])]:
        cases = [
            case(draw, {"beta": beta}, lambda w, l, rw, rl, beta=beta: dpo(w, l, rw, rl, beta), 2) for beta in betas
        ]
        write(root, name, cases, relative + outputs)

    cases = []
    for beta, snr_value in [(0.1, 0.5), (1.0, 0.25)]:
        settings = {"form": "release", "beta": beta, "snr_value": snr_value}
        cases.append(case(draw, settings, lambda w, l, b=beta, a=snr_value: mapo_release(w, l, b, a), 0))
        cases.append(tiny_mapo(draw, settings))
    for beta in [8.0, 64.0, 1024.0]:
        settings = {"form": "paper", "beta": beta}
        cases.append(case(draw, settings, lambda w, l, b=beta: mapo_paper(w, l, b), 0))
        cases.append(tiny_mapo(draw, settings))
    write(root, "mapo", cases, policy + outputs)

    save_meta(
        root,
        "loss and gradient of every objective at random errors, from policy and reference errors near each other and far apart",
        SEED,
        ("torch", "mpmath"),
        {"relative": 1e-9, "absolute": 1e-12, "tiny_relative": 1e-11, "tiny_absolute": 1e-15},
        "MaPO slopes come from autograd through x / expm1(x), which cancels to about 1e-16 over the error; rows named "
        "tiny are recorded at 60 digits, and there the rounding of the score, 1e-16, meets a factor of 1000",
        precision=None,
    )


if __name__ == "__main__":
    main("objectives", record)
