"""The evaluator against a loop over users that sorts one list at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.catalogue import catalogue
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Ints, Sequences
from seqrec.data.splits import Split, leave_one_out
from seqrec.errors import ConfigError, ScoreError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import ARRAYS_ALIVE, LEAST_STATES, EvaluationConfig, Evaluator
from seqrec.models.base import ItemVectors, Scorer, SequenceModel
from seqrec.models.bert4rec import BERT4Rec, BERT4RecConfig
from seqrec.models.popularity import Popularity, PopularityConfig
from seqrec.models.sasrec import SASRec, SASRecConfig
from seqrec.models.xlstm import XLSTM, XLSTMConfig
from seqrec.testing import ITEMS, synthetic_data

PARTS = ("validation", "test")


class Remembers(Scorer):
    """Scores full of ties that depend on the whole history, its order and its length; keeps what it was shown."""

    def __init__(self, num_items: int = ITEMS) -> None:
        self.config = Config()
        self.num_items = num_items
        self.batches: list[Batch] = []

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        self.batches.append(batch)
        rows = zip(batch.items.tolist(), batch.lengths.tolist(), strict=True)
        return torch.tensor([self.of(row[:length]) for row, length in rows])

    def of(self, history: list[int]) -> list[float]:
        mix = sum(place * item for place, item in enumerate(history, start=1))
        return [float((mix + 3 * item) % 7) for item in range(1, self.num_items + 1)]

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


def data_of(histories: list[list[int]], items: int = ITEMS) -> PreparedData:
    sequences = Sequences.of(histories, items)
    names = catalogue([f"i{item}" for item in range(1, items + 1)])
    return PreparedData(Path(), sequences, leave_one_out(sequences), names, {"name": "made up"})


def evaluate(data: PreparedData, scorer: Scorer, part: str = "test", **settings: Any) -> Evaluation:
    return Evaluator(data, EvaluationConfig(**settings)).evaluate(scorer, part)


def histories_of(data: PreparedData) -> list[list[int]]:
    return [data.sequences.history(user).tolist() for user in range(len(data.sequences))]


def slow_ranking(scores: list[float], target: int, seen: set[int]) -> tuple[int, list[float]]:
    """Rank of the target among what may be shown, last among its equals, and the scores shown, best first."""
    allowed = [item for item in range(1, len(scores) + 1) if item not in seen]
    order = sorted(allowed, key=lambda item: (-scores[item - 1], item == target))
    rank = order.index(target) + 1 if target in order else len(scores) + 1
    return rank, [scores[item - 1] for item in order]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("filter_seen", [True, False])
@given(
    histories=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=8).filter(
        lambda histories: any(len(history) >= 3 for history in histories)
    )
)
def test_ranks_and_lists_are_those_of_a_loop_over_users(
    part: str, filter_seen: bool, histories: list[list[int]]
) -> None:
    scorer, back = Remembers(num_items=9), {"validation": 2, "test": 1}[part]
    found = evaluate(data_of(histories, items=9), scorer, part, filter_seen=filter_seen, ks=(1, 4, 20))
    judged = [user for user, history in enumerate(histories) if len(history) >= 3]
    assert found.users.tolist() == judged
    for case, user in enumerate(judged):
        history, target = histories[user][:-back], histories[user][-back]
        scores = scorer.of(history)
        rank, shown = slow_ranking(scores, target, set(history) if filter_seen else set())
        assert (found.targets[case], found.ranks[case], found.history_lengths[case]) == (target, rank, len(history))
        items = found.lists[case].tolist()
        assert len(items) == 20
        assert [scores[item - 1] for item in items if item] == shown
        assert items[len(shown) :] == [0] * (20 - len(shown))
        assert not (filter_seen and set(items) & set(history))
    counts = Counter(item for history in histories for item in (history[:-2] if len(history) >= 3 else history))
    assert found.counts.tolist() == [counts[item] for item in range(1, 10)]


@pytest.mark.parametrize("part", PARTS)
def test_seen_is_the_whole_history_though_the_model_reads_its_last_events(part: str) -> None:
    data, back = synthetic_data(), {"validation": 2, "test": 1}[part]
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(embedding_dim=8, max_length=3), ITEMS).double().eval()
    found = evaluate(data, model, part)
    for case, history in enumerate(histories_of(data)):
        scores = model.scores(Batch.of([history[:-back][-3:]]))[0].tolist()
        assert found.ranks[case] == slow_ranking(scores, history[-back], set(history[:-back]))[0]


def test_a_scorer_without_a_length_is_shown_everything_before_the_target() -> None:
    data, scorer = synthetic_data(), Remembers()
    evaluate(data, scorer)
    assert len(scorer.batches) == 1
    shown = {
        int(user): row[:length]
        for user, row, length in zip(*(x.tolist() for x in _parts(scorer.batches[0])), strict=True)
    }
    assert shown == {user: history[:-1] for user, history in enumerate(histories_of(data))}


def _parts(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    assert batch.users is not None
    return batch.users, batch.items, batch.lengths


def test_a_repeated_target_is_a_miss_at_every_cut_off_when_seen_items_are_left_out() -> None:
    data = data_of([[1, 2, 3, 1]], items=4)
    found = evaluate(data, Popularity(PopularityConfig(), 4), ks=(1, 4, 100))
    assert found.ranks.tolist() == [5]
    accuracy = ("recall", "hit_rate", "precision", "mrr", "map", "ndcg")
    assert {found.metrics[f"{name}@{k}"] for name in accuracy for k in (1, 4, 100)} == {0.0}
    assert found.lists[0].tolist() == [4] + [0] * 99
    kept = evaluate(data, Popularity(PopularityConfig(), 4), ks=(1, 4, 100), filter_seen=False)
    assert kept.metrics["recall@4"] == 1.0


def test_a_model_that_gives_all_items_one_score_never_hits() -> None:
    found = evaluate(synthetic_data(), Popularity(PopularityConfig(), ITEMS))
    unseen = [ITEMS - len(set(history[:-1])) for history in histories_of(synthetic_data())]
    repeated = [history[-1] in history[:-1] for history in histories_of(synthetic_data())]
    expected = [ITEMS + 1 if again else left for again, left in zip(repeated, unseen, strict=True)]
    assert found.ranks.tolist() == expected


@pytest.mark.parametrize("part", PARTS)
def test_metrics_do_not_depend_on_the_order_or_the_blocks_of_cases(part: str) -> None:
    data, scorer = synthetic_data(), Remembers()
    expected = evaluate(data, scorer, part)
    order = np.random.default_rng(0).permutation(len(expected.users))
    split = data.split
    shuffled = replace(data, split=Split(split.train_ends, split.validation.take(order), split.test.take(order)))
    for block in (1, 7, 1000):
        evaluator = Evaluator(shuffled, EvaluationConfig())
        evaluator.most_cases = block
        found = evaluator.evaluate(scorer, part)
        assert np.array_equal(found.ranks, expected.ranks[order])
        assert np.array_equal(found.lists, expected.lists[order])
        assert np.array_equal(found.users, expected.users[order])
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_an_error_even_for_a_seen_item(bad: float) -> None:
    class Broken(Remembers):
        def of(self, history: list[int]) -> list[float]:
            return [*super().of(history)[:-1], bad]

    seen = data_of([[ITEMS, 1, 2, 3]])
    with pytest.raises(ScoreError, match=f"^Broken gave {bad} for item {ITEMS} in case 0"):
        evaluate(seen, Broken())


@pytest.mark.parametrize(("memory_mb", "items"), [(1, 1000), (3, 20_000), (1, 200_000)])
def test_memory_bounds_how_many_cases_are_scored_at_a_time(memory_mb: int, items: int) -> None:
    scorer = Popularity(PopularityConfig(), items)
    sizes: list[int] = []
    plain = scorer.scores
    scorer.scores = lambda batch, items=None: sizes.append(len(batch)) or plain(batch, items)  # type: ignore
    evaluate(data_of([[1, 2, 3]] * 100, items), scorer, memory_mb=memory_mb)
    affordable = memory_mb * 2**20 // (items * 4 * ARRAYS_ALIVE)
    assert sum(sizes) == 100
    assert max(sizes) <= max(affordable, 1)
    assert len(sizes) == math.ceil(100 / max(affordable, 1))


def test_a_model_is_left_in_the_mode_it_was_in() -> None:
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(embedding_dim=8, max_length=5, dropout=0.5), ITEMS)
    first, second = (evaluate(synthetic_data(), model.train()) for _ in range(2))
    assert model.training
    assert np.array_equal(first.ranks, second.ranks)


@pytest.mark.parametrize("ks", [(), (0, 5), (-1,)])
def test_cut_offs_are_whole_numbers_from_one(ks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.ks: cut-offs are whole numbers from 1"):
        EvaluationConfig.parse({"ks": ks}, "evaluation.")


def test_cut_offs_are_sorted_and_told_once() -> None:
    assert EvaluationConfig(ks=(10, 1, 10)).ks == (1, 10)


def test_metrics_are_means_of_what_is_kept_per_case() -> None:
    found = evaluate(synthetic_data(), Remembers())
    for name in ("recall@10", "ndcg@5", "mrr@50"):
        values = found.per_case(name).tolist()
        assert found.metrics[name] == pytest.approx(sum(values) / len(values))


def test_breakdowns_are_shares_of_a_whole() -> None:
    found = evaluate(synthetic_data(), Remembers())
    by_popularity, by_length = found.by_popularity(), found.by_length()
    for share in ("items", "events", "shown", "share"):
        assert sum(bucket[share] for bucket in by_popularity.values()) == pytest.approx(1)
    assert sum(bucket["share"] for bucket in by_length.values()) == pytest.approx(1)
    for breakdown in (by_popularity, by_length):
        weighted = sum(bucket["cases"] * bucket.get("ndcg@10", 0) for bucket in breakdown.values())
        assert weighted / len(found.ranks) == pytest.approx(found.metrics["ndcg@10"])


def test_lengths_fall_between_their_ends() -> None:
    lengths = [1, 9, 10, 19, 20, 49, 50, 99, 100, 199, 200, 500]
    one = np.ones(len(lengths), dtype=np.int64)
    found = Evaluation(one, one, one, np.array(lengths), one[:, None], one, (10,), "").by_length()
    names = ["1-9", "10-19", "20-49", "50-99", "100-199", "200+"]
    assert {name: values["cases"] for name, values in found.items()} == dict.fromkeys(names, 2)


def test_per_user_results_come_back_from_parquet(tmp_path: Path) -> None:
    data = data_of([[1, 2, 3], [1, 2], [4, 5, 4, 6, 5]], items=6)
    found = evaluate(data, Remembers(num_items=6), ks=(5,))
    path = tmp_path / "test.parquet"
    found.write_per_user(path, ["ann", "bob", "cem"], list(data.catalogue.ids))

    def name(item: int) -> str:
        return f"i{item}" if item else ""

    assert pq.read_table(path).to_pydict() == {
        "user": ["ann", "cem"],
        "target": ["i3", "i5"],
        "rank": found.ranks.tolist(),
        "history_length": [2, 4],
        "recommended": [[name(item) for item in row] for row in found.lists.tolist()],
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["test.parquet"]


def test_windows_are_the_last_events_of_a_view() -> None:
    data = synthetic_data()
    users: Ints = np.array([5, 0, 7])
    batch = Evaluator(data, EvaluationConfig()).windows(users, data.train, events=4)
    for row, user in enumerate(users):
        length = int(batch.lengths[row])
        assert batch.items[row, :length].tolist() == histories_of(data)[user][:-2][-4:]
        assert not batch.items[row, length:].any()


# --- from states and item vectors


class ByScores(Scorer):
    """A model asked for whole rows of scores, as one without item vectors is."""

    def __init__(self, model: SequenceModel) -> None:
        self.config, self.num_items, self.model = model.config, model.num_items, model

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        return self.model.scores(batch.tail(self.model.config.max_length), items)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(state)


def models(items: int = ITEMS) -> list[SequenceModel]:
    torch.manual_seed(3)
    shape: dict[str, Any] = {"embedding_dim": 8, "num_heads": 2, "max_length": 7, "similarity": "dot"}
    found = [
        SASRec(SASRecConfig(**shape), items),
        SASRec(SASRecConfig(**shape, num_blocks=1, dropout=0.5), items),
        BERT4Rec(BERT4RecConfig(**shape), items),
        *(XLSTM(XLSTMConfig(**shape, stack=stack), items) for stack in "msa"),
        XLSTM(XLSTMConfig(**shape, projection="pre"), items),
        XLSTM(XLSTMConfig(**shape, bidirectional=True), items),
    ]
    with torch.no_grad():
        for model in found:
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return [model.double().eval() for model in found]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("filter_seen", [True, False])
def test_states_and_item_vectors_give_the_ranks_and_lists_of_scores(number: int, filter_seen: bool) -> None:
    model = models()[number]
    expected = evaluate(synthetic_data(), ByScores(model), filter_seen=filter_seen)
    found = evaluate(synthetic_data(), model, filter_seen=filter_seen)
    assert np.array_equal(found.ranks, expected.ranks)
    assert np.array_equal(found.lists, expected.lists)


@pytest.mark.parametrize("number", range(8))
def test_the_last_state_is_that_of_the_whole_encoding(number: int) -> None:
    batch = Batch.of([[1], [2, 3, 4, 5, 6, 7, 8], [9, 9, 1]])
    model = models()[number]
    torch.testing.assert_close(model.last_state(batch), batch.last(model.encode(batch)), rtol=1e-9, atol=1e-11)
    model.float()
    torch.testing.assert_close(model.last_state(batch), batch.last(model.encode(batch)), rtol=1e-5, atol=1e-6)


def test_an_encoder_of_ones_own_is_not_passed_by() -> None:
    class Constant(SASRec):
        def encode(self, batch: Batch) -> Tensor:
            return torch.ones_like(super().encode(batch))

    model = Constant(SASRecConfig(embedding_dim=8), ITEMS)
    assert torch.equal(model.query(Batch.of([[1, 2], [3]])), torch.ones(2, 8))


def test_a_model_with_scores_of_its_own_is_asked_for_them() -> None:
    class Backwards(SASRec):
        def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
            return -super().scores(batch, items)

    torch.manual_seed(0)
    model = Backwards(SASRecConfig(embedding_dim=8, max_length=7), ITEMS).double()
    found = evaluate(synthetic_data(), model)
    assert np.array_equal(found.ranks, evaluate(synthetic_data(), ByScores(model.eval())).ranks)


def test_large_catalogues_are_scored_in_blocks_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    items, affordable = 5_000, 2**20 // (4 * ARRAYS_ALIVE)
    random = np.random.default_rng(0)
    data = data_of([random.integers(1, items + 1, 9).tolist() for _ in range(70)], items)
    torch.manual_seed(0)
    model = SASRec(SASRecConfig(embedding_dim=8, max_length=7), items).double()
    expected = evaluate(data, model)
    shapes: list[tuple[int, int]] = []

    def score(vectors: ItemVectors, h: Tensor) -> Tensor:
        shapes.append((len(h), len(vectors.weight)))
        return h @ vectors.weight.T.to(h.dtype)

    monkeypatch.setattr(ItemVectors, "score", score)
    found = evaluate(data, model, memory_mb=1)
    assert max(cases * columns for cases, columns in shapes) <= affordable
    assert {cases for cases, _ in shapes} == {LEAST_STATES, 70 % LEAST_STATES}
    assert np.array_equal(found.ranks, expected.ranks)
    assert np.array_equal(found.lists, expected.lists)


def test_what_is_not_finite_is_told_by_its_case() -> None:
    class Broken(SASRec):
        def encode(self, batch: Batch) -> Tensor:
            return super().encode(batch).masked_fill((batch.items == ITEMS).any(1)[:, None, None], torch.nan)

    histories = [[1, 2, 3, 4, 5, 6], [1, 2, 3], [7, ITEMS, 8, 9, 1], [4, 3, 2, 1], [ITEMS, 1, 2, 3, 4, 5, 6, 7]]
    with pytest.raises(ScoreError, match=r"^Broken gave nan for item 1 in case 2;"):
        evaluate(data_of(histories), Broken(SASRecConfig(embedding_dim=8), ITEMS))


def test_precision_and_mode_come_back_after_an_error() -> None:
    class Fails(SASRec):
        def encode(self, batch: Batch) -> Tensor:
            assert torch.get_float32_matmul_precision() == "highest"
            assert not self.training
            raise RuntimeError("no")

    model, before = Fails(SASRecConfig(embedding_dim=8), ITEMS).train(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(RuntimeError, match="no"):
            evaluate(synthetic_data(), model)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert model.training
