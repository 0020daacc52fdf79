"""Shuffling costs where there is an order, costs nothing where there is none, and asks the same questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqrec.analysis import sequentiality
from seqrec.analysis.sequentiality import order_effect, sampled_cases, shuffled
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Sequences
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.build import build_model

ITEMS = 40


def data(histories: list[list[int]], **facts: object) -> PreparedData:
    sequences = Sequences.of(histories, ITEMS)
    return PreparedData(Path(), sequences, leave_one_out(sequences), None, {"name": "made up", **facts})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def walks() -> PreparedData:
    """Everybody goes round the items in order."""
    starts = np.random.default_rng(0).integers(0, ITEMS, 120)
    return data([[int((start + step) % ITEMS) + 1 for step in range(20)] for start in starts])


@pytest.fixture(scope="module")
def chance() -> PreparedData:
    """Everybody takes items as they come."""
    random = np.random.default_rng(0)
    return data([(random.permutation(ITEMS)[:20] + 1).tolist() for _ in range(120)])


def test_an_ordered_log_loses(walks: PreparedData) -> None:
    found = order_effect(walks)
    true, random, popularity = found.rows
    assert true.ndcg > 0.95
    assert random.ndcg < 0.6
    assert popularity.ndcg < 0.5
    assert random.ndcg_spread is not None
    assert 0 < random.ndcg_spread < 0.1
    assert found.loss == pytest.approx(1 - random.ndcg / true.ndcg)
    assert found.difference == pytest.approx(true.ndcg - random.ndcg)
    assert found.error < 0.05
    assert "strongly sequential" in found.verdict
    assert "All 120 validation cases" in found.protocol
    assert "items of the history left out" in found.protocol
    assert found.protocol.startswith("Split: leave-one-out.")


def test_a_log_of_chance_loses_nothing(chance: PreparedData) -> None:
    found = order_effect(chance)
    assert abs(found.difference) <= 2 * found.error
    assert "nothing that can be told from chance" in found.verdict


def test_the_true_order_is_what_the_evaluator_says(walks: PreparedData) -> None:
    markov = build_model({"name": "markov"}, ITEMS).fit(walks.train)
    metrics = Evaluator(walks, EvaluationConfig(ks=(10,))).evaluate(markov, "validation").metrics
    assert order_effect(walks).rows[0].ndcg == pytest.approx(metrics["ndcg@10"])
    assert order_effect(walks).rows[0].recall == pytest.approx(metrics["recall@10"])


def test_shuffling_keeps_targets_and_items(walks: PreparedData) -> None:
    asked = sampled_cases(walks)
    first, again, other = (shuffled(asked, seed) for seed in (0, 0, 1))
    for user in range(len(asked.sequences)):
        true, random = asked.sequences.history(user), first.sequences.history(user)
        assert true.tolist() == walks.sequences.history(user)[:-1].tolist()
        assert random[-1] == true[-1]
        assert sorted(random) == sorted(true)
    np.testing.assert_array_equal(first.sequences.items, again.sequences.items)
    assert (first.sequences.items != other.sequences.items).mean() > 0.8


def test_the_test_part_is_not_looked_at(walks: PreparedData) -> None:
    items = walks.sequences.items.copy()
    items[walks.split.test.positions] = 1
    assert order_effect(replace(walks, sequences=replace(walks.sequences, items=items))) == order_effect(walks)


def test_a_target_may_stand_later_than_right_behind_its_history(walks: PreparedData) -> None:
    users = np.arange(10).repeat(2)
    ends = walks.sequences.starts[users] + 15
    cases = Cases(users, ends + np.tile([0, 3], 10), ends)
    asked = sampled_cases(replace(walks, split=replace(walks.split, validation=cases)))
    for case, user in enumerate(users):
        history = walks.sequences.history(user)
        assert asked.sequences.history(case).tolist() == [*history[:15], history[15 + 3 * (case % 2)]]


def test_large_logs_are_sampled_and_that_is_said(walks: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequentiality, "MOST_CASES", 50)
    monkeypatch.setattr(sequentiality, "MOST_TRAINING", 400)
    found = order_effect(walks)
    assert (found.cases, found.all_cases) == (50, 120)
    assert "50 of 120 validation cases" in found.protocol
    assert "the 396 training events of 22 users drawn from 120" in found.protocol
    assert found == order_effect(walks)


def test_seen_items_stay_where_people_repeat() -> None:
    """A B A B ...: the next item is always one that was seen."""
    twos = data([[1 + step % 2 for step in range(9 + user % 2)] for user in range(30)], revisits=True)
    found = order_effect(twos)
    assert found.rows[0].ndcg == 1
    assert "not left out" in found.protocol
    hidden = order_effect(replace(twos, facts={"name": "made up"}))
    assert (hidden.rows[0].ndcg, hidden.loss) == (0, None)
    assert "no answer" in hidden.verdict


@pytest.mark.parametrize(
    ("loss", "difference", "said"),
    [(0.02, 0.1, "2.0%: the order of a history matters, a little"), (0.2, 0.1, "20%: the order of a history matters."),
     (-0.3, -0.1, "better by 30%"), (0.5, 0.001, "chance")],
)  # fmt: skip
def test_verdicts(loss: float, difference: float, said: str) -> None:
    assert said in sequentiality._verdict(loss, difference, 0.01)
