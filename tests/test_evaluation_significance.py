"""Intervals, paired tests and Holm's correction: against enumeration, and against what they promise in simulation."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.errors import ConfigError, DataError
from seqrec.evaluation.significance import PairedTest, holm, interval, paired_test, per_person, verdict

Floats = npt.NDArray[np.float64]
#: Few distinct values and many: the two ways of resampling.
STEPS = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.3, 1.0]), min_size=1, max_size=9)
SMOOTH = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=9)


def ndcg_pairs(rng: np.random.Generator, users: int) -> tuple[Floats, Floats]:
    """NDCG@10 of two equally good models on the same people: most are 0, and people who are easy are so for both."""
    ease_U = rng.beta(0.4, 6, users).clip(1e-6)
    ranks = rng.geometric(ease_U), rng.geometric(ease_U)
    a_U, b_U = (np.where(rank_U <= 10, 1 / np.log2(rank_U + 1.0), 0.0) for rank_U in ranks)
    return a_U, b_U


def no_difference() -> PairedTest:
    return paired_test([0.5, 0.2], [0.5, 0.2])


# Interval


def enumerated_means(values: list[float]) -> Floats:
    """Every resampling there is, each as likely as the other."""
    return np.array([np.mean(drawn) for drawn in itertools.product(values, repeat=len(values))])


def test_interval_holds_the_share_of_resamplings_it_says() -> None:
    values = [0.0, 0.1, 0.5, 0.63, 1.0]
    means = enumerated_means(values)
    for level in (0.5, 0.8, 0.95):
        found = interval(values, level=level, samples=200_000)
        assert found.mean == pytest.approx(np.mean(values))
        tail = (1 - level) / 2
        for bound, share in ((found.low, tail), (found.high, 1 - tail)):
            assert np.mean(means < bound - 1e-9) - 0.005 <= share <= np.mean(means <= bound + 1e-9) + 0.005


@pytest.mark.parametrize("distinct", [False, True])
def test_interval_is_the_normal_one_where_people_are_many(distinct: bool) -> None:
    rng = np.random.default_rng(3)
    values = rng.random(3000) if distinct else rng.choice([0.0, 0.5, 1.0], 3000, p=[0.8, 0.15, 0.05])
    half = 1.96 * values.std() / math.sqrt(len(values))
    found = interval(values)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half * 0.06)


def test_a_value_that_everybody_has_is_certain() -> None:
    found = interval([0.1] * 50)
    assert (found.low, found.high) == pytest.approx((found.mean, found.mean), abs=1e-15)
    assert interval([0.3]).low == interval([0.3]).high == interval([0.3]).mean == 0.3


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).random(40)
    narrow, wide = (interval(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_same_seed_same_numbers_other_seed_others() -> None:
    a, b = ndcg_pairs(np.random.default_rng(1), 300)
    assert interval(a, seed=5) == interval(a, seed=5) != interval(a, seed=6)
    assert paired_test(a, b, seed=5) == paired_test(a, b, seed=5) != paired_test(a, b, seed=6)


@pytest.mark.parametrize("users", [200, 1000])
def test_intervals_hold_the_truth_as_often_as_they_say(users: int) -> None:
    rng = np.random.default_rng(users)
    population, _ = ndcg_pairs(rng, 400_000)
    assert np.mean(population == 0) > 0.6
    repeats = 1000
    found = [interval(rng.choice(population, users), samples=600, seed=seed) for seed in range(repeats)]
    held = np.mean([one.low <= population.mean() <= one.high for one in found])
    assert 0.92 <= held <= 0.97


def test_memory_stays_small_where_people_are_many() -> None:
    values = np.random.default_rng(0).random((2, 138_493))
    tracemalloc.start()
    paired_test(*values, samples=150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 2**20


# Paired test


def enumerated_permutation(difference: list[float]) -> float:
    found = abs(math.fsum(difference))
    sums = [
        abs(math.fsum(sign * value for sign, value in zip(signs, difference, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(difference))
    ]
    return sum(one >= found - 1e-10 for one in sums) / len(sums)


@given(st.one_of(STEPS, SMOOTH))
def test_few_people_are_tested_exactly(difference: list[float]) -> None:
    found = paired_test(difference, np.zeros(len(difference)), samples=50)
    assert found.p_permutation == pytest.approx(enumerated_permutation(difference))


@pytest.mark.parametrize("extra", [0, 400])
def test_people_who_do_not_differ_do_not_change_the_permutation_test(extra: int) -> None:
    difference = [0.4, 0.1, -0.2, 0.5, 0.3, 0.3] + [0.0] * extra
    assert paired_test(difference, np.zeros(len(difference))).p_permutation == enumerated_permutation(difference[:6])


def test_sampled_permutations_come_near_all_of_them() -> None:
    difference = np.random.default_rng(8).normal(0.35, 1, 15)
    signs = np.array(list(itertools.product((1, -1), repeat=15)))
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12)
    sampled = paired_test(difference, np.zeros(15), samples=40_000).p_permutation
    assert sampled == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))


def test_bootstrap_p_is_the_share_of_shifted_resamplings_as_far_away() -> None:
    difference = [0.9, -0.2, 0.45, 0.0, 0.31]
    mean = np.mean(difference)
    exact = np.mean(np.abs(enumerated_means(difference) - mean) >= mean - 1e-12)
    found = paired_test(difference, np.zeros(5), samples=100_000)
    assert found.p_bootstrap == pytest.approx(exact, abs=0.006)


def test_both_tests_agree_on_many_people() -> None:
    a, b = ndcg_pairs(np.random.default_rng(4), 2000)
    found = paired_test(a, b)
    assert found.p_bootstrap == pytest.approx(found.p_permutation, abs=0.02)


def test_paired_interval_is_that_of_the_differences() -> None:
    a, b = ndcg_pairs(np.random.default_rng(2), 500)
    test, one = paired_test(a, b, seed=9), interval(a - b, seed=9)
    assert (test.difference, test.low, test.high, test.users) == (one.mean, one.low, one.high, 500)


@given(STEPS)
def test_exchanging_the_models_turns_the_sign_only(difference: list[float]) -> None:
    zeros = np.zeros(len(difference))
    one, other = paired_test(difference, zeros, samples=50), paired_test(zeros, difference, samples=50)
    assert (other.difference, other.effect) == pytest.approx((-one.difference, -one.effect))
    assert other.p_permutation == one.p_permutation


@given(st.one_of(STEPS, SMOOTH), st.floats(0, 1))
def test_what_is_always_true(difference: list[float], b: float) -> None:
    found = paired_test(np.array(difference) + b, np.full(len(difference), b), samples=50)
    assert 0 < found.p_bootstrap <= 1
    assert 0 < found.p_permutation <= 1
    assert found.low <= found.high
    assert math.isfinite(found.effect)


def test_no_difference_at_all() -> None:
    for users in (1, 7, 500):
        values = np.random.default_rng(users).random(users)
        found = paired_test(values, values)
        assert (found.difference, found.low, found.high, found.effect) == (0, 0, 0, 0)
        assert found.p_bootstrap == found.p_permutation == 1


def test_one_person_shows_nothing() -> None:
    found = paired_test([0.9], [0.1])
    assert found.difference == found.low == found.high == pytest.approx(0.8)
    assert (found.p_bootstrap, found.p_permutation, found.effect, found.users) == (1, 1, 0, 1)


def test_the_same_difference_for_everybody_has_no_effect_size() -> None:
    b = np.random.default_rng(0).random(300)
    found = paired_test(b + 0.1, b)
    assert found.effect == 0
    assert found.p_permutation == found.p_bootstrap == pytest.approx(1 / 10_001)


def test_effect_is_the_mean_over_the_standard_deviation() -> None:
    assert paired_test([3.0, 1.0, 2.0], [1.0, 0.0, 2.0]).effect == pytest.approx(1.0)  # differences 2, 1, 0


def rejections(users: int, repeats: int, better: float) -> tuple[float, float]:
    """How often each test finds p <= 0.05 where a share of people is given the model's best value."""
    rng = np.random.default_rng(17)
    found = np.empty((repeats, 2))
    for seed in range(repeats):
        a, b = ndcg_pairs(rng, users)
        a = np.where(rng.random(users) < better, 1.0, a)
        test = paired_test(a, b, samples=399, seed=seed)
        found[seed] = test.p_bootstrap, test.p_permutation
    bootstrap, permutation = np.mean(found <= 0.05, axis=0)
    return float(bootstrap), float(permutation)


def test_equal_models_are_called_different_one_time_in_twenty() -> None:
    repeats = 1200
    error = 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert rejections(200, repeats, better=0) == pytest.approx((0.05, 0.05), abs=error)


def test_power_grows_with_people_and_with_the_difference() -> None:
    few, many, more = rejections(100, 200, 0.04), rejections(400, 200, 0.04), rejections(400, 200, 0.12)
    for test in (0, 1):
        assert 0.05 < few[test] < many[test] < more[test]
        assert more[test] > 0.98


# Holm


def closed_testing(p_values: list[float]) -> list[float]:
    """Marcus, Peritz and Gabriel: a hypothesis falls when Bonferroni rejects every set of hypotheses it is in."""
    places = range(len(p_values))
    sets = [chosen for size in places for chosen in itertools.combinations(places, size + 1)]
    return [max(min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets if place in s) for place in places]


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 1.0])), max_size=7))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    assert holm(p_values).tolist() == pytest.approx(closed_testing(p_values))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert np.all(np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= 0)
    assert np.all(adjusted >= np.array(p_values))
    assert np.all(adjusted <= np.minimum(1, len(p_values) * np.array(p_values)))


def test_holm_of_a_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_holm_bounds_the_chance_of_one_false_call(shared: float) -> None:
    """Ten comparisons, independent or sharing a model; three of them real."""
    rng = np.random.default_rng(11)
    repeats = 4000
    common = math.sqrt(shared) * rng.normal(size=(repeats, 1))
    z = common + math.sqrt(1 - shared) * rng.normal(size=(repeats, 10)) + np.array([4.0] * 3 + [0.0] * 7)
    p_values = np.vectorize(math.erfc)(np.abs(z) / math.sqrt(2))
    adjusted = np.array([holm(row) for row in p_values])
    assert np.mean((adjusted[:, 3:] <= 0.05).any(1)) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert np.mean((p_values[:, 3:] <= 0.05).any(1)) > 0.1
    assert np.mean(adjusted[:, :3] <= 0.05) > 0.8


# Means per person, verdict


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=30))
def test_what_people_add_to_the_mean(cases: list[tuple[int, float]]) -> None:
    users, values = zip(*cases, strict=True)
    sums = [sum(value for user, value in cases if user == wanted) for wanted in sorted(set(users))]
    expected = [total * len(set(users)) / len(cases) for total in sums]
    assert per_person(values, users).tolist() == pytest.approx(expected)
    assert per_person(values, users).mean() == pytest.approx(np.mean(values))


def test_cases_of_one_person_are_not_as_good_as_people() -> None:
    """Equal models that suit different people, five cases each: only what each person adds keeps the error at 5%."""
    rng = np.random.default_rng(23)
    users_M = np.repeat(np.arange(60), 5)
    wrong = np.empty((400, 2))
    for seed in range(len(wrong)):
        difference_M = (rng.normal(size=60)[users_M] + rng.normal(size=300)).round(3)
        for way, values in enumerate((difference_M, per_person(difference_M, users_M))):
            wrong[seed, way] = paired_test(values, np.zeros(len(values)), samples=199).p_permutation <= 0.05
    by_case, by_person = wrong.mean(0)
    assert by_case > 0.15
    assert by_person == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / len(wrong)))


@pytest.mark.parametrize(
    ("a", "p", "expected"),
    [
        ([0.9, 0.8], 0.01, "better"),
        ([0.1, 0.2], 0.01, "worse"),
        ([0.9, 0.8], 0.05, "better"),
        ([0.9, 0.8], 0.051, "no difference shown"),
        ([0.6, 0.4], 0.01, "no difference shown"),
    ],
)
def test_verdict(a: list[float], p: float, expected: str) -> None:
    assert verdict(paired_test(a, [0.5, 0.5]), p) == expected


def test_verdict_takes_another_alpha() -> None:
    assert verdict(paired_test([0.9, 0.8], [0.5, 0.5]), 0.05, alpha=0.01) == "no difference shown"


# Bad input


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interval([]), "at least one value"),
        (lambda: interval([[0.1, 0.2]]), r"shape \(1, 2\)"),
        (lambda: interval([0.1, math.nan, math.inf]), r"values: nan at place 1 \(2 of 3"),
        (lambda: paired_test([0.1, 0.2], [0.1]), "2 values against 1"),
        (lambda: paired_test([0.1], [math.nan]), "b: nan at place 0"),
        (lambda: paired_test([], []), "a: a list of at least one"),
        (lambda: holm([0.1, math.nan]), "between 0 and 1"),
        (lambda: holm([1.1]), "between 0 and 1"),
        (lambda: holm([[0.1]]), "between 0 and 1"),
        (lambda: per_person([0.1, 0.2], [1]), "one user for each value"),
        (lambda: per_person([math.nan], [1]), "not finite"),
        (lambda: per_person([], []), "at least one value"),
        (lambda: verdict(no_difference(), math.nan), "such as holm gives"),
    ],
)
def test_bad_values_are_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_levels_are_shares(level: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        interval([0.1, 0.2], level=level)


def test_there_is_at_least_one_sample() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        interval([0.1, 0.2], samples=0)
