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


def logits(w, l, rw, rl):
    """huggingface/diffusers train_diffusion_dpo.py, whose beta is half of the one above: reference minus model margin."""
    return (rw - rl) - (w - l)


def ipo(w, l, rw, rl, beta):
    """diffusers --loss_type ipo, times the square of its beta."""
    b = 0.5 * beta
    return b**2 * (logits(w, l, rw, rl) - 1 / (2 * b)) ** 2


def hinge(w, l, rw, rl, beta):
    """diffusers --loss_type hinge."""
    return torch.relu(1 - 0.5 * beta * logits(w, l, rw, rl))


def cdpo(w, l, rw, rl, beta, label_smoothing, form):
    """eric-mitchell/direct-preference-optimization trainers.py preference_loss; TRL's loss_type robust."""
    b, e, logit = 0.5 * beta, label_smoothing, logits(w, l, rw, rl)
    if form == "robust":
        return (-F.logsigmoid(b * logit) * (1 - e) + F.logsigmoid(-b * logit) * e) / (1 - 2 * e)
    return -F.logsigmoid(b * logit) * (1 - e) - F.logsigmoid(-b * logit) * e


def dmpo(w, l, rw, rl, beta, alpha):
    """AIDC-AI/Diffusion-SDPO train.py: divergence of the model's odds from the ones set. 1 - p is sigmoid(-u) here, which
    loses no digits where p is near 1."""
    u = -0.5 * beta * ((w - l) - (rw - rl))
    p, one_less_p, log_p, log_1mp = torch.sigmoid(u), torch.sigmoid(-u), -F.softplus(-u), -F.softplus(u)
    q = torch.tensor(1.0 - alpha, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    return p * (log_p - torch.log(q)) + one_less_p * (log_1mp - torch.log1p(-q))


def poly(w, l, rw, rl, beta, alpha):
    """arXiv 2604.24953, from its project page: Diffusion-DPO and alpha times the probability of the label flipped."""
    logit = -0.5 * beta * ((w - l) - (rw - rl))
    return -F.logsigmoid(logit) + alpha * torch.sigmoid(-logit)


def linear(w, l, rw, rl, beta, eta):
    """Whynot0101/Linear-DPO train_sd3_dpo.py --linear_dpo: a detached weight on the difference of the policy's errors."""
    margin = (w - l) - (rw - rl)
    return (0.2 * beta * margin + 0.5).clamp(eta, 1 - eta).detach() * (w - l)


def smpo(w, l, rw, rl, soft_label, beta, gamma):
    """JaydenLyh/SmPO train.py: gamma is the 10 in its scale."""
    scale = -0.5 * beta * (2 * soft_label - 1) * gamma
    return -F.logsigmoid(scale * ((w - l) - (rw - rl)))


def gains(w, l, rw, rl):
    """jacklishufan/diffusion-kto: how much better the policy is than the reference, on a liked and a disliked image."""
    return torch.stack([-w, -l]) - torch.stack([-rw, -rl])


def kto(w, l, rw, rl, mean_gain, beta, liked, disliked):
    """jacklishufan/diffusion-kto train_kto_sd_v1.5.py --halo sigmoid, on a batch of one liked and one disliked image."""
    labels = torch.tensor([1, 0])
    sign, binary = 2 * labels - 1, labels == 1
    h = torch.sigmoid(sign * beta * (gains(w, l, rw, rl) - mean_gain))
    weight = liked * binary + disliked * ~binary
    return (weight * (1 - h)).mean()


def safeguarded_dpo(w, l, rw, rl, residuals, beta, mu, sft_weight):
    """Diffusion-SDPO train.py: the loser's error keeps its value and passes on `scale` of its gradient. Without the
    1e-9 that is added to the divisor there."""
    scale = 1.0
    if mu is not None:
        gradients = [2 * residual / residual.numel() for residual in residuals]
        squared, product = gradients[0].pow(2).sum(), (gradients[0] * gradients[1]).sum()
        scale = torch.where(product > 0, (1.0 - mu) * squared / product, 1.0).clamp(0.0, 1.0)
    l_scaled = l.detach() + scale * (l - l.detach())
    return dpo(w, l_scaled, rw, rl, beta) + sft_weight * w


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


def measured_case(draw, settings, function, measure):
    """Rows with one number more, which `measure` draws from the errors and which is never differentiated."""
    rows = []
    for _ in range(ROWS):
        row = errors(draw)
        number = measure(draw, row)
        outputs = differentiated(lambda *leaves: function(*leaves, number), row, 2)
        rows.append(row + [number] + outputs)
    return {"settings": settings, "rows": rows}


def batch_gain(_, row):
    """The released reference point, where the two images are the batch."""
    return gains(*(torch.tensor(error, dtype=torch.float64) for error in row)).mean().clamp(min=0).item()


def drawn_gain(draw, row):
    return abs(row[0] - row[2]) * draw.random() + 1e-4 * draw.random()


def terms_case(draw, settings, beta, elements=16):
    """Diffusion-DPO with terms: residuals that partly agree are drawn, and the policy's errors are their squares' means."""
    mu, sft_weight = settings.get("safeguard_mu"), settings.get("sft_weight", 0.0)
    rows = []
    for _ in range(ROWS):
        size, shared = 10 ** draw.uniform(-2, 0), draw.gauss(0, 1)
        common = [shared * draw.gauss(0, 1) for _ in range(elements)]
        residuals = [
            torch.tensor([size * (both + draw.gauss(0, 1)) for both in common], dtype=torch.float64) for _ in range(2)
        ]
        policy = [residual.pow(2).mean().item() for residual in residuals]
        row = policy + [error + draw.gauss(0, 1) / beta for error in policy]
        product = (residuals[0] * residuals[1]).mean().item()
        loss = lambda *leaves: safeguarded_dpo(*leaves, residuals, beta, mu, sft_weight)  # noqa: E731
        rows.append(row + [product] + differentiated(loss, row, 2))
    return {"settings": settings, "rows": rows}


def tiny_mapo(draw, settings):
    rows = []
    for _ in range(8):
        w, l = (10 ** draw.uniform(-8, -3) for _ in range(2))
        rows.append([w, l] + mapo_exact(w, l, settings["form"], settings["beta"], settings.get("snr_value")))
    return {"settings": settings, "tiny": True, "rows": rows}


def write(root, name, cases, columns):
    golden = {"objective": "diffusion-dpo" if name == "terms" else name, "n_train_timesteps": N_TRAIN, "columns": columns, "cases": cases}
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

    def relatives(name, function, variants):
        cases = [
            case(draw, settings, lambda *row, settings=settings: function(*row, **settings), 2) for settings in variants
        ]
        write(root, name, cases, relative + outputs)

    betas = [{"beta": 5000.0}, {"beta": 1000.0}]
    relatives("ipo", ipo, betas)
    relatives("hinge", hinge, betas)
    smoothed = [(5000.0, 0.1, "conservative"), (2000.0, 0.3, "conservative"), (2000.0, 0.1, "robust")]
    relatives("cdpo", cdpo, [{"beta": b, "label_smoothing": e, "form": form} for b, e, form in smoothed])
    relatives("dmpo", dmpo, [{"beta": 2000.0, "alpha": 0.01}, {"beta": 6000.0, "alpha": 0.2}])

    cases = []
    for beta, gamma in [(2000.0, 10.0), (5000.0, 2.0)]:
        loss = lambda w, l, rw, rl, p, b=beta, g=gamma: smpo(w, l, rw, rl, p, b, g)  # noqa: E731
        measure = lambda draw, _: draw.uniform(0.5, 0.75)  # noqa: E731
        cases.append(measured_case(draw, {"beta": beta, "gamma": gamma}, loss, measure))
    write(root, "smpo", cases, relative + ["soft_label"] + outputs)

    cases = []
    for beta, liked, disliked, point, measure in [
        (1000.0, 1.0, 1.0, "batch", batch_gain),
        (1000.0, 1.0, 1.0, "previous-step", drawn_gain),
        (3000.0, 0.5, 2.0, "previous-step", drawn_gain),
        (1000.0, 1.0, 1.5, "zero", lambda *_: 0.0),
    ]:
        settings = {"beta": beta, "lambda_liked": liked, "lambda_disliked": disliked, "reference_point": point}
        loss = lambda w, l, rw, rl, z, b=beta, d=liked, u=disliked: kto(w, l, rw, rl, z, b, d, u)  # noqa: E731
        cases.append(measured_case(draw, settings, loss, measure))
    write(root, "kto", cases, relative + ["mean_gain"] + outputs)

    variants = [{"safeguard_mu": 0.9}, {"safeguard_mu": 0.6}, {"sft_weight": 250.0}, {"safeguard_mu": 0.6, "sft_weight": 3.0}]
    cases = [terms_case(draw, {"beta": 2000.0} | terms, 2000.0) for terms in variants]
    write(root, "terms", cases, relative + ["residual_product"] + outputs)

    relatives("poly-dpo", poly, [{"beta": 5000.0, "alpha": 8.0}, {"beta": 2000.0, "alpha": -0.5}, {"beta": 1000.0, "alpha": 0.0}])

    relatives("linear-dpo", linear, [{"beta": 5000.0, "eta": 0.01}, {"beta": 500.0, "eta": 0.0}, {"beta": 10.0, "eta": 0.05}])

    save_meta(
        root,
        "loss and gradient of every objective, and of Diffusion-DPO with terms, at random errors, from policy and reference errors "
        "near each other and far apart",
        SEED,
        ("torch", "mpmath"),
        {"relative": 1e-9, "absolute": 1e-12, "tiny_relative": 1e-11, "tiny_absolute": 1e-15},
        "MaPO slopes come from autograd through x / expm1(x), which cancels to about 1e-16 over the error; rows named "
        "tiny are recorded at 60 digits, and there the rounding of the score, 1e-16, meets a factor of 1000",
        precision=None,
    )


if __name__ == "__main__":
    main("objectives", record)
