"""Records Fleiss' kappa, Krippendorff's alpha and Wilson intervals of published packages.

Tables count votes: a row is an item, a column an answer. The first two are published examples: Fleiss (1971), "Measuring
nominal scale agreement among many raters", table 1; Krippendorff (2011), "Computing Krippendorff's alpha-reliability",
example C. The others are drawn.
"""

import json
import pathlib
import sys

import krippendorff
import numpy as np
from statsmodels.stats.inter_rater import fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from common import main, save_meta  # noqa: E402

FLEISS = [
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0],
    [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0],
    [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0],
    [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
    [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
]
KRIPPENDORFF = [
    [3, 0, 0, 0, 0], [0, 3, 1, 0, 0], [0, 0, 4, 0, 0], [0, 0, 4, 0, 0], [0, 4, 0, 0, 0], [1, 1, 1, 1, 0],
    [0, 0, 0, 4, 0], [3, 1, 0, 0, 0], [0, 4, 0, 0, 0], [0, 0, 0, 0, 3], [2, 0, 0, 0, 0], [0, 0, 1, 0, 0],
]


def drawn(seed, items, answers, fewest, most):
    """Votes of items that lean to one answer or another; each item has `fewest` to `most` of them."""
    random = np.random.default_rng(seed)
    table = []
    for _ in range(items):
        lean = random.dirichlet(np.full(answers, 0.6))
        table.append(random.multinomial(random.integers(fewest, most + 1), lean).tolist())
    return table


def tables():
    yield "fleiss-1971", FLEISS
    yield "krippendorff-2011", KRIPPENDORFF
    yield "five-voters", drawn(1, 60, 3, 5, 5)
    yield "two-voters", drawn(2, 40, 2, 2, 2)
    yield "missing-votes", drawn(3, 80, 3, 0, 5)
    yield "by-luck", np.random.default_rng(4).multinomial(5, [0.4, 0.2, 0.4], 200).tolist()
    yield "an-answer-never-given", [[3, 0, 2], [5, 0, 0], [0, 0, 5], [4, 0, 1]]


def agreement():
    for name, table in tables():
        counts = np.array(table)
        sums = counts.sum(1)
        entry = {"name": name, "counts": table}
        if len(set(sums.tolist())) == 1:
            entry["kappa"] = float(fleiss_kappa(counts))
        answers = list(range(counts.shape[1]))
        for level in ("nominal", "ordinal"):
            entry[level] = float(krippendorff.alpha(value_counts=counts, value_domain=answers, level_of_measurement=level))
        yield entry


def intervals():
    for successes, n in [(0, 5), (5, 5), (1, 1), (3, 5), (50, 100), (187, 500), (2999, 5000)]:
        low, high = proportion_confint(successes, n, alpha=0.05, method="wilson")
        yield {"successes": successes, "n": n, "low": float(low), "high": float(high)}


def write(path, entries):
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


def record(root):
    write(root / "agreement.json", agreement())
    write(root / "wilson.json", intervals())
    save_meta(
        root,
        "agreement among voters, by published examples and drawn tables, and Wilson intervals",
        0,
        ("krippendorff", "statsmodels", "numpy"),
        {"absolute": 1e-12},
        "f64 on both sides; only the order of sums differs",
        precision=None,
    )


if __name__ == "__main__":
    main("agreement", record)
