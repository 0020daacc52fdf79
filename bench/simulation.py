"""Do the intervals and tests of `seqrec.evaluation.significance` keep what they promise? People drawn again and again.

python bench/simulation.py
python bench/simulation.py --repeats 200        (a trial: nothing is recorded)

The people are made up, so that the truth is known: each is more or less easy to predict, equally so for both models,
and each model puts the target at a place of its own. Most values are 0, as with NDCG@10 in practice.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from typing import Any

import numpy as np
from record import Row, record

from seqrec.evaluation.significance import holm, interval, paired_test, per_person

#: A small study, and the people of MovieLens-100K and MovieLens-1M.
PEOPLE = (100, 943, 6040)
#: People of MovieLens-20M.
MOST_PEOPLE = 138_493
SAMPLES = 999
ALPHA = 0.05


def ndcg_pairs(rng: np.random.Generator, users: int, lead: float = 1.0) -> tuple[Any, Any]:
    """NDCG@10 of two models on the same people; the first is `lead` times as likely to be right at each place."""
    ease_U = rng.beta(0.4, 6, users).clip(1e-6)
    ranks = rng.geometric((lead * ease_U).clip(max=1)), rng.geometric(ease_U)
    a_U, b_U = (np.where(rank_U <= 10, 1 / np.log2(rank_U + 1.0), 0.0) for rank_U in ranks)
    return a_U, b_U


def share(hits: Any) -> str:
    """A share of repeats with its standard error."""
    found = float(np.mean(hits))
    return f"{found:.3f} ± {math.sqrt(found * (1 - found) / len(hits)):.3f}"


def coverage(users: int, repeats: int) -> Row:
    """How often the 95% interval holds the mean of all people there are."""
    rng = np.random.default_rng(users)
    population = ndcg_pairs(rng, 2_000_000)[0]
    held = []
    for seed in range(repeats):
        found = interval(rng.choice(population, users), samples=SAMPLES, seed=seed)
        held.append(found.low <= population.mean() <= found.high)
    return Row(f"{users} people: 95% interval holds the true NDCG@10", share(held), "", "0.93 to 0.97")


def called_different(users: int, repeats: int, lead: float) -> tuple[str, str]:
    """How often each test says p <= 0.05: bootstrap, permutation."""
    rng = np.random.default_rng((users, 1))
    tests = [paired_test(*ndcg_pairs(rng, users, lead), samples=SAMPLES, seed=seed) for seed in range(repeats)]
    return share([test.p_bootstrap <= ALPHA for test in tests]), share([test.p_permutation <= ALPHA for test in tests])


def tests(users: int, repeats: int) -> list[Row]:
    """Type I error and power of both tests."""
    error, power = called_different(users, repeats, 1.0), called_different(users, max(repeats // 4, 1), 1.2)
    names = ("bootstrap", "permutation")
    return [
        Row(f"{users} people: equal models called different, {name}", found, "", "0.04 to 0.06")
        for name, found in zip(names, error, strict=True)
    ] + [
        Row(f"{users} people: a model 1.2 times as often right found out, {name}", found, "")
        for name, found in zip(names, power, strict=True)
    ]


def families(users: int, repeats: int) -> list[Row]:
    """One model against ten equals: how often at least one is called different, before and after Holm."""
    rng = np.random.default_rng((users, 2))
    false = np.empty((repeats, 2), dtype=bool)
    for seed in range(repeats):
        ease_U = rng.beta(0.4, 6, users).clip(1e-6)
        rank_KU = rng.geometric(ease_U, (11, users))
        value_KU = np.where(rank_KU <= 10, 1 / np.log2(rank_KU + 1.0), 0.0)
        p_values = [paired_test(value_KU[0], other, samples=SAMPLES, seed=seed).p_permutation for other in value_KU[1:]]
        false[seed] = min(p_values) <= ALPHA, holm(p_values).min() <= ALPHA
    name = f"{users} people, ten comparisons of equal models: at least one called different"
    return [
        Row(f"{name}, p values as they are", share(false[:, 0]), ""),
        Row(f"{name}, after Holm", share(false[:, 1]), "", "<= 0.05"),
    ]


def several_cases(users: int, repeats: int, cases: int = 5) -> list[Row]:
    """Equal models that suit different people, several cases each: by case, and by person."""
    rng = np.random.default_rng((users, 3))
    users_M = np.repeat(np.arange(users), cases)
    false = np.empty((repeats, 2), dtype=bool)
    for seed in range(repeats):
        a_M, b_M = (ndcg_pairs(rng, users)[0][users_M] * rng.integers(0, 2, users * cases) for _ in range(2))
        ways = (a_M, b_M), (per_person(a_M, users_M), per_person(b_M, users_M))
        false[seed] = [paired_test(*way, samples=SAMPLES, seed=seed).p_permutation <= ALPHA for way in ways]
    name = f"{users} people, {cases} cases each: equal models called different"
    return [
        Row(f"{name}, case by case", share(false[:, 0]), ""),
        Row(f"{name}, person by person", share(false[:, 1]), "", "0.04 to 0.06"),
    ]


def cost() -> list[Row]:
    """One paired test at full size: of a measure with few values, and of one where all differ."""
    rng = np.random.default_rng(0)
    rows = []
    for name, pair in (("NDCG@10", ndcg_pairs(rng, MOST_PEOPLE)), ("all values differ", rng.random((2, MOST_PEOPLE)))):
        began = time.perf_counter()
        paired_test(*pair)
        seconds = time.perf_counter() - began
        rows.append(Row(f"{MOST_PEOPLE:,} people x 10,000 samples, {name}: both tests", f"{seconds:.1f}", "s", "< 60"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*rows, Row("the same: peak memory of the whole process", f"{peak:.0f}", "MiB", "< 1024")]


def main() -> None:
    """Measure the cost first, while the process is small; then simulate and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2500)
    repeats = parser.parse_args().repeats
    rows = cost()
    for users in PEOPLE:
        rows += [coverage(users, repeats), *tests(users, repeats)]
    rows += families(PEOPLE[1], max(repeats // 4, 1)) + several_cases(PEOPLE[0], max(repeats // 2, 1))
    if repeats < parser.get_default("repeats"):
        print(*(f"{row.metric}: {row.value} {row.unit}" for row in rows), sep="\n")
        return
    protocol = (
        f"People drawn anew {repeats:,} times (power and Holm {repeats // 4:,}, several cases {repeats // 2:,}); "
        f"{SAMPLES} samples of bootstrap and permutation each time; values as of NDCG@10, mostly 0; share of repeats ± "
        f"its standard error; tests at {ALPHA}."
    )
    record("significance", rows, protocol, page="results.md", device="cpu")


if __name__ == "__main__":
    main()
