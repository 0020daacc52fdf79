"""How sure a mean over people is, and whether a difference between two models is more than luck.

People are what is drawn at random, so people are what is resampled: first one value per person (`per_person`), then
everything else. Two models are compared on the same people, by their difference on each of them.

- Interval: percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
- Bootstrap p value: the shift method (the same, section 16.4). The resampled means, centred at zero, are what
  differences would look like if there were none; p is the share of them at least as far from zero as what was found,
  in either direction. We prefer it to inverting the interval: it simulates the hypothesis that is being tested, and it
  is the one that was studied on retrieval measures (Smucker, Allan and Carterette, CIKM 2007), where it hardly differs
  from the permutation test for 50 topics or more.
- Permutation p value: if it made no difference which model is which, the sign of each person's difference would be a
  coin toss (Fisher's randomisation test, which Smucker et al. recommend). It assumes nothing about the shape of the
  values. Where people are few, bootstrap p values come out too small (the same authors, SIGIR 2009): believe this one.
- Sampled p values count what was found as one of the samples (the +1 of Davison and Hinkley, 1997), so none is 0.
- Many comparisons: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

Shapes: U people, M cases, S samples, D distinct values, P p values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from seqrec.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference shown"]

#: Numbers drawn at once: what bounds the memory (about 50 MB).
BLOCK = 1 << 22
#: A multinomial draw of one count costs as much as drawing about this many people.
COUNT_COST = 8
#: Up to this many people who differ, all sign flips are gone through.
EXACT = 12
#: Sums that differ by less than this share of the sum of magnitudes are ties, whatever rounding made of them.
TIE = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean over people and where it would lie with other people like them. For one person, it is that person."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same people.

    Attributes:
        difference: mean of a - b, in the unit of the measure.
        low, high: its bootstrap interval.
        p_bootstrap, p_permutation: two-sided p values, in (0, 1]; not adjusted for other comparisons (see `holm`).
        effect: Cohen's d_z, the mean difference over the standard deviation (n - 1) of differences; 0 where all
            differences are equal, since it is then undefined.
        users: how many people.
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float
    effect: float
    users: int


def interval(values_U: npt.ArrayLike, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval of one value per person.

    Raises:
        DataError: no values, not one per person, or one that is not finite.
        ConfigError: `level` is not between 0 and 1, or `samples` is below 1.
    """
    values_U = _checked(values_U, "values")
    return _around(float(values_U.mean()), _deviations(values_U, samples, seed), level)


def paired_test(
    a_U: npt.ArrayLike, b_U: npt.ArrayLike, level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Compare two models by their values on the same people, in the same order.

    The interval is that of `interval(a_U - b_U)` with the same seed.

    Raises:
        DataError: as for `interval`, or there are not as many values of one as of the other.
        ConfigError: as for `interval`.
    """
    a_U, b_U = _checked(a_U, "a"), _checked(b_U, "b")
    if len(a_U) != len(b_U):
        raise DataError(f"{len(a_U)} values against {len(b_U)}: a paired test needs both on the same people, in order.")
    difference_U = a_U - b_U
    deviations_S = _deviations(difference_U, samples, seed)
    found = _around(float(difference_U.mean()), deviations_S, level)
    return PairedTest(
        difference=found.mean,
        low=found.low,
        high=found.high,
        p_bootstrap=_shift_p(difference_U, deviations_S),
        p_permutation=_permutation_p(difference_U, samples, seed),
        effect=_effect(difference_U),
        users=len(difference_U),
    )


def holm(p_values: npt.ArrayLike) -> Floats:
    """(P,) p values adjusted for there being P of them, in the order given.

    Calling those at or below alpha differences holds the chance of even one false call at alpha, whatever the
    dependence between the tests.

    Raises:
        DataError: one is not a number between 0 and 1.
    """
    p_P = np.asarray(p_values, dtype=np.float64)
    if p_P.ndim != 1 or not np.all((p_P >= 0) & (p_P <= 1)):
        raise DataError(f"p values are a list of numbers between 0 and 1, found {p_values!r}.")
    order_P = np.argsort(p_P, kind="stable")
    adjusted_P = np.empty_like(p_P)
    scaled_P = p_P[order_P] * np.arange(len(p_P), 0, -1)
    adjusted_P[order_P] = np.minimum(np.maximum.accumulate(scaled_P), 1.0)
    return adjusted_P


def per_person(values_M: npt.ArrayLike, users_M: npt.ArrayLike) -> Floats:
    """(U,) what each person adds to the mean over all cases, by ascending user number.

    With one case each these are the values. With several, a person's values are summed and divided by how many cases
    people have on average: the mean over people is the mean over cases, as tables show it, and a person is still one
    draw, however many cases they have (Davison and Hinkley, 1997, section 2.4: resampling clusters).

    Raises:
        DataError: no values, one that is not finite, or not as many users as values.
    """
    values_M, users_M = _checked(values_M, "values"), np.asarray(users_M)
    if users_M.shape != values_M.shape:
        raise DataError(f"{len(values_M)} values and users of shape {users_M.shape}: give one user for each value.")
    names, user_M = np.unique(users_M, return_inverse=True)
    return np.bincount(user_M, weights=values_M) * len(names) / len(values_M)


def verdict(test: PairedTest, adjusted_p: float, alpha: float = 0.05) -> Verdict:
    """What may be written about a against b, given the p value after `holm`.

    Raises:
        DataError: `adjusted_p` is not between 0 and 1.
    """
    if not 0 <= adjusted_p <= 1:
        raise DataError(f"adjusted p value {adjusted_p}: a number between 0 and 1 is needed, such as holm gives.")
    if adjusted_p > alpha or test.difference == 0:
        return "no difference shown"
    return "better" if test.difference > 0 else "worse"


def _checked(values: npt.ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise DataError(f"{name}: a list of at least one value is needed, found shape {array.shape}.")
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise DataError(
            f"{name}: {array[wrong[0]]} at place {wrong[0]} ({len(wrong)} of {len(array)} are not finite). "
            "Score those cases, or leave their people out of both models."
        )
    return array


def _around(mean: float, deviations_S: Floats, level: float) -> Interval:
    if not 0 < level < 1:
        raise ConfigError(f"level {level}: give a share between 0 and 1, such as 0.95.")
    tail = (1 - level) / 2
    low, high = np.quantile(deviations_S, [tail, 1 - tail])
    return Interval(mean, mean + float(low), mean + float(high))


def _deviations(values_U: Floats, samples: int, seed: int) -> Floats:
    """(S,) means of U people drawn with replacement, less the mean of all.

    Measures have few distinct values (NDCG@10 has 11), and how often each is drawn is multinomial: the same
    distribution as drawing people, for a fraction of the work.
    """
    if samples < 1:
        raise ConfigError(f"samples {samples}: at least 1 is needed; 10,000 is usual.")
    rng = np.random.default_rng((seed, 0))
    users = len(values_U)
    centred_U = values_U - values_U.mean()
    distinct_D, times_D = np.unique(centred_U, return_counts=True)
    if len(distinct_D) * COUNT_COST < users:
        blocks = (
            rng.multinomial(users, times_D / users, size) @ distinct_D for size in _blocks(samples, len(distinct_D))
        )
    else:  # 32-bit indices take two thirds of the time of 64-bit ones
        blocks = (
            centred_U[rng.integers(0, users, (size, users), dtype=np.uint32)].sum(1) for size in _blocks(samples, users)
        )
    return np.concatenate(list(blocks)) / users


def _blocks(samples: int, width: int) -> Iterator[int]:
    """How many samples of that width are drawn at a time."""
    size = max(BLOCK // width, 1)
    return (min(size, samples - start) for start in range(0, samples, size))


def _shift_p(difference_U: Floats, deviations_S: Floats) -> float:
    if len(difference_U) == 1:
        return 1.0  # there is no spread to resample, so nothing is shown
    found = abs(difference_U.mean()) - TIE * np.abs(difference_U).mean()
    return float((1 + np.count_nonzero(np.abs(deviations_S) >= found)) / (1 + len(deviations_S)))


def _permutation_p(difference_U: Floats, samples: int, seed: int) -> float:
    """Share of sign flips whose sum is at least as far from zero; those who do not differ have no sign to flip."""
    differing_U = difference_U[difference_U != 0]
    users = len(differing_U)
    # A flip changes the sum by twice the values it turns, so the sum is total - 2 flipped.
    total = float(differing_U.sum())
    found = abs(total) - TIE * np.abs(differing_U).sum()
    if users <= EXACT:
        flips = np.arange(2**users)[:, None] >> np.arange(users) & 1
        return float(np.mean(np.abs(total - 2 * (flips @ differing_U)) >= found))
    rng = np.random.default_rng((seed, 1))
    far = sum(
        int(np.count_nonzero(np.abs(total - 2 * (_flips(rng, size, users) @ differing_U)) >= found))
        for size in _blocks(samples, users)
    )
    return (1 + far) / (1 + samples)


def _flips(rng: np.random.Generator, size: int, users: int) -> Floats:
    """(size, users) of 0 and 1, a fair coin each."""
    width = -(-users // 8)
    coins = np.frombuffer(rng.bytes(size * width), dtype=np.uint8).reshape(size, width)
    return np.unpackbits(coins, axis=1, count=users).astype(np.float64)


def _effect(difference_U: Floats) -> float:
    if np.ptp(difference_U) <= TIE * np.abs(difference_U).max():
        return 0.0
    return float(difference_U.mean() / difference_U.std(ddof=1))
