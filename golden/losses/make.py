"""Records one training step of each preference method in f64, from our own reading of the papers.

`losses/batch` holds what the methods share: four pairs, the policy (the network of `models/unet-demo`, slightly moved)
and its inputs. The reference is `models/unet-demo` itself. Every error is a mean over one image's elements.
`diffusion-dpo-safeguard` scales the gradient of every loser's error by its own factor. `kto` takes the winners as liked and the losers
as disliked images, on the pairs' shared noise, and `mean_gain` as the mean gain of the step before; that of the batch, which
`by_batch` is recorded with, is cut off at 0.
"""

import functools
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch
from common import GOLDEN, Draws, load_unet, main, relative_error, save_meta, save_tensors, vanishing
from torch.nn.functional import logsigmoid

SEED = 601
MOVED = 0.01  # of each parameter's own spread, so that no logit saturates
BETA = {"diffusion-dpo": 5000.0, "mapo": 0.1, "ddim-inpo": 2000.0, "diffusion-dpo-safeguard": 5000.0, "kto": 1000.0}
SETTINGS = {"diffusion-dpo-safeguard": {"safeguard_mu": 0.6}, "kto": {"lambda_disliked": 0.5}}
MEAN_GAIN = 0.002
SNR_VALUE, TRAIN_STEPS = 0.5, 1000
LEVELS_PER_STEP = 100
TOLERANCE = {"output": 1e-5, "loss": 1e-3, "gradient": 1e-3}
REASON = (
    "errors as for any network; a logit multiplies differences of errors by hundreds to thousands, so the loss and its "
    "gradient keep fewer digits; [measured] shows what PyTorch loses in f32"
)

# SD's scaled-linear schedule, in f64.
ALPHA_BAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2, 0)


def at(values, x):
    """One value per image, in the image's type and shape."""
    return values.to(x.dtype).view(-1, 1, 1, 1)


def mean_product(one, other):
    """Per image."""
    return (one * other).mean((1, 2, 3))


def errors(residuals):
    """Mean squared error per image, winners first, of output minus target for winners and then losers."""
    return mean_product(residuals, residuals).chunk(2)


def safeguard(residuals):
    """AIDC-AI/Diffusion-SDPO's factor of the loser's gradient, each pair for itself."""
    winner, loser = residuals.detach().chunk(2)
    product = mean_product(winner, loser)
    capped = ((1 - SETTINGS["diffusion-dpo-safeguard"]["safeguard_mu"]) * mean_product(winner, winner) / product).clamp(0, 1)
    return product, torch.where(product > 0, capped, torch.ones_like(capped))


def kto_losses(gain, point):
    """jacklishufan/diffusion-kto, sigmoid utility: every image's loss and logit; the first half is liked."""
    sign, weight = torch.ones_like(gain), torch.ones_like(gain)
    disliked = slice(len(gain) // 2, None)
    sign[disliked], weight[disliked] = -1, SETTINGS["kto"]["lambda_disliked"]
    logit = sign * BETA["kto"] * (gain - point)
    return weight * (1 - torch.sigmoid(logit)), logit


def forward_noise(given):
    """Winner and loser of a pair share the noise and the timestep."""
    clean = torch.cat([given["winner"], given["loser"]])
    noise, t = given["noise"].repeat(2, 1, 1, 1), given["timesteps"].repeat(2)
    alpha_bar = ALPHA_BAR[t]
    return at(alpha_bar.sqrt(), clean) * clean + at((1 - alpha_bar).sqrt(), clean) * noise, noise


@torch.no_grad()
def invert(unet, given):
    """Deterministic DDIM inversion over levels floor(j*t/n), n = ceil(t/100); clean latents are at level 0."""
    clean = torch.cat([given["winner"], given["loser"]])
    noisy, t, text = clean.clone(), given["timesteps"].repeat(2), given["encoder_hidden_states"].repeat(2, 1, 1)
    for i, end in enumerate(t.tolist()):
        n = math.ceil(end / LEVELS_PER_STEP)
        levels = [j * end // n for j in range(n + 1)]
        x = noisy[i : i + 1]
        for s, u in zip(levels, levels[1:]):
            e = unet(x, s, text[i : i + 1]).sample
            x0 = (x - (1 - ALPHA_BAR[s]).sqrt() * e) / ALPHA_BAR[s].sqrt()
            x = ALPHA_BAR[u].sqrt() * x0 + (1 - ALPHA_BAR[u]).sqrt() * e
        noisy[i] = x
    alpha_bar = ALPHA_BAR[t]
    implied = (noisy - at(alpha_bar.sqrt(), clean) * clean) / at((1 - alpha_bar).sqrt(), clean)
    return noisy, implied


def dpo_logit(policy, reference, beta):
    """Half of beta times how much more the policy gained on the winner than on the loser."""
    (winner, loser), (reference_winner, reference_loser) = policy, reference
    return -0.5 * beta * ((winner - loser) - (reference_winner - reference_loser))


def mapo_logit(policy):
    """The released form: the link a L / (exp(a L) - 1), its margin scaled by the number of training steps."""
    link = [SNR_VALUE * error / torch.expm1(SNR_VALUE * error) for error in policy]
    return TRAIN_STEPS * (link[0] - link[1])


def step(method, policy, reference, given, dtype, inverter="policy"):
    """Errors, logits and losses per pair, the mean loss and its gradient for every policy parameter."""
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}
    kept = {}
    if method == "ddim-inpo":
        noisy, target = invert(policy if inverter == "policy" else reference, given)
        for name, tensor in (("inverted", noisy), ("implied_noise", target)):
            kept[f"{name}_winner"], kept[f"{name}_loser"] = tensor.chunk(2)
    else:
        noisy, target = forward_noise(given)
    t, text = given["timesteps"].repeat(2), given["encoder_hidden_states"].repeat(2, 1, 1)
    residuals = policy(noisy, t, text).sample - target
    policy_errors = errors(residuals)
    kept["policy_error_winner"], kept["policy_error_loser"] = policy_errors
    if method == "mapo":
        logit = mapo_logit(policy_errors)
        losses = policy_errors[0] - BETA[method] * logsigmoid(logit)
    else:
        with torch.no_grad():
            reference_errors = errors(reference(noisy, t, text).sample - target)
        kept["reference_error_winner"], kept["reference_error_loser"] = reference_errors
    if method == "kto":
        gain = torch.cat(reference_errors) - torch.cat(policy_errors)
        point = gain.mean().clamp(min=0).detach()
        by_batch, _ = kto_losses(gain, point)
        kept |= {"mean_gain": torch.full_like(point, MEAN_GAIN), "by_batch.mean_gain": point}
        kept |= {"by_batch.losses": by_batch, "by_batch.loss": by_batch.mean()}
        losses, logit = kto_losses(gain, MEAN_GAIN)
    elif method != "mapo":
        if method == "diffusion-dpo-safeguard":
            kept["residual_product"], factor = safeguard(residuals)
            kept["safeguard_factor"] = factor
            loser = policy_errors[1]
            policy_errors = policy_errors[0], loser.detach() + factor * (loser - loser.detach())
        logit = dpo_logit(policy_errors, reference_errors, BETA[method])
        losses = -logsigmoid(logit)
    kept |= {"logit": logit, "losses": losses, "loss": losses.mean()}
    names, parameters = zip(*policy.named_parameters())
    slopes = dict(zip((f"grad.{n}" for n in names), torch.autograd.grad(losses.mean(), parameters)))
    return {k: v.detach() for k, v in (kept | slopes).items()}


def moved_policy():
    """The reference network with every parameter moved by a small part of its spread."""
    policy, generator = load_unet("unet-demo"), torch.Generator().manual_seed(SEED)
    for _, p in sorted(policy.named_parameters()):
        p.data += MOVED * p.data.std() * torch.randn(p.shape, generator=generator)
    return policy


def batch():
    """Losers stay near their winners, so that the margins of a random network stay in the sigmoid's live range."""
    draws = Draws(SEED + 1000)
    winner = draws.normal("winner", 4, 4, 8, 8)
    draws.normal("noise", 4, 4, 8, 8)
    draws.normal("encoder_hidden_states", 4, 7, 12)
    draws.keep("timesteps", torch.tensor([37, 250, 600, 999]))
    draws.keep("loser", winner + 0.1 * draws.normal("loser", 4, 4, 8, 8))
    return draws.kept


def record(root):
    policy, reference, given = moved_policy(), load_unet("unet-demo"), batch()
    (root / "batch").mkdir(parents=True, exist_ok=True)
    save_tensors(root / "batch" / "weights.safetensors", policy.state_dict())
    save_tensors(root / "batch" / "io.safetensors", given)
    (root / "batch" / "config.json").write_text((GOLDEN / "models" / "unet-demo" / "config.json").read_text())
    for method, beta in BETA.items():
        folder = root / method
        folder.mkdir(parents=True, exist_ok=True)
        run = functools.partial(step, method)
        exact = run(policy.double(), reference.double(), given, torch.float64)
        if method == "ddim-inpo":
            frozen = step(method, policy, reference, given, torch.float64, inverter="reference")
            exact |= {f"by_reference.{k}": v for k, v in frozen.items() if not k.startswith("grad.")}
        rounded = run(policy.float(), reference.float(), given, torch.float32)

        skip = set(vanishing({k: v for k, v in exact.items() if k.startswith("grad.")}))
        lost = {k: relative_error(rounded[k], v) for k, v in exact.items() if k in rounded and k not in skip}
        # Errors stay in f64: a logit is thousands of times their difference.
        save_tensors(folder / "io.safetensors", exact, wide=[k for k, v in exact.items() if v.dim() < 2 and "grad." not in k])
        save_meta(
            folder, __doc__.splitlines()[0], SEED, ("torch", "diffusers"), TOLERANCE, REASON,
            {
                "f32_errors": max(v for k, v in lost.items() if "_error_" in k),
                "f32_losses": lost["losses"],
                "f32_gradient": max(v for k, v in lost.items() if k.startswith("grad.")),
            },
            {"policy": "losses/batch", "reference": "models/unet-demo", "beta": str(beta)}
            | {key: str(value) for key, value in SETTINGS.get(method, {}).items()},
        )  # fmt: skip


if __name__ == "__main__":
    main("losses", record)
