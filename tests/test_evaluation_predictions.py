"""Lists from files: what a scorer gives is what its lists give, and a slow reference agrees."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import seqrec
from lists import FORMS, KS, Entry, drawn, judge, load, long_form, top, wide_form
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError, ScoreError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.evaluation.predictions import Predictions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return load(tmp_path_factory.mktemp("data"))


# --- what is judged is what was scored


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("filter_seen", [True, False])
def test_every_form_gives_the_metrics_of_the_scorer(form: str, filter_seen: bool, data: PreparedData) -> None:
    scorer = drawn(data)
    config = EvaluationConfig(ks=(1, 3, 5), filter_seen=filter_seen)
    expected = Evaluator(data, config).evaluate(scorer, "test")
    found = judge(FORMS[form](top(scorer, data, 28)), data, ks=(1, 3, 5), filter_seen=filter_seen)
    assert found.metrics == expected.metrics
    assert found.by_length().keys() == expected.by_length().keys()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "tsv"])
def test_files(suffix: str, data: PreparedData, tmp_path: Path) -> None:
    scorer, path = drawn(data), tmp_path / f"lists.{suffix}"
    frame = long_form(top(scorer, data, 30))
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    expected = Evaluator(data, EvaluationConfig(ks=KS)).evaluate(scorer, "validation")
    found = judge(str(path), data, part="validation")
    assert found.metrics == expected.metrics
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.lists, expected.lists)
    assert path.name in found.protocol


@given(levels=st.integers(1, 40), seed=st.integers(0, 99), k=st.integers(18, 30))
def test_ties_and_cut_lists_give_the_metrics_of_the_scorer(levels: int, seed: int, k: int, data: PreparedData) -> None:
    """Below the end of the shortest list; at its end, only the scorer knows what else ties with the last item."""
    scorer = drawn(data, levels, seed)
    config = EvaluationConfig(ks=(1, 2, 3), filter_seen=False)
    expected = Evaluator(data, config).evaluate(scorer, "test")
    assert judge(long_form(top(scorer, data, k)), data, ks=(1, 2, 3), filter_seen=False).metrics == expected.metrics


def slow_metrics(entries: list[Entry], data: PreparedData, filter_seen: bool, k: int) -> tuple[float, float]:
    """Recall and NDCG by one sorted list per person; ties stand before the target."""
    names, hits, gains = data.user_ids(), [], []
    for user, position in zip(data.split.test.users, data.split.test.positions, strict=True):
        history = {data.catalogue.ids[i - 1] for i in data.sequences.items[data.sequences.starts[user] : position]}
        target = data.catalogue.ids[data.sequences.items[position] - 1]
        mine = {item: score for name, item, score in entries if name == names[user]}
        shown = {item: score for item, score in mine.items() if not (filter_seen and item in history)}
        rank = sum(score >= shown[target] for score in shown.values()) if target in shown else math.inf
        hits.append(rank <= k)
        gains.append(1 / math.log2(rank + 1) if rank <= k else 0.0)
    return float(np.mean(hits)), float(np.mean(gains))


@given(seed=st.integers(0, 1000), filter_seen=st.booleans())
def test_against_a_slow_reference(seed: int, filter_seen: bool, data: PreparedData) -> None:
    rng = np.random.default_rng(seed)
    entries = []
    for name in data.user_ids():
        items = rng.permutation(data.catalogue.ids)[: rng.integers(0, 31)]
        entries += [(name, str(item), float(rng.integers(0, 5)) - 2.5) for item in items]
    found = judge(long_form(entries), data, "miss", filter_seen=filter_seen, ks=(3, 10))
    for k in found.ks:
        assert (found.metrics[f"recall@{k}"], found.metrics[f"ndcg@{k}"]) == pytest.approx(
            slow_metrics(entries, data, filter_seen, k), abs=1e-12
        )


def test_scores_of_any_size_and_close_together(data: PreparedData) -> None:
    """Scores are compared as they are written, in 64 bits; only their order goes on."""
    entries = top(drawn(data), data, 30)
    expected = judge(long_form(entries), data).metrics
    steps = {score: place for place, score in enumerate(sorted({score for *_, score in entries}))}
    for scaled in (lambda s: s * 1e300, lambda s: s * 1e-300, lambda s: 1.0 + 2.0**-52 * steps[s]):
        assert judge(long_form([(u, i, scaled(s)) for u, i, s in entries]), data).metrics == expected


def test_a_run_s_own_results_give_its_numbers(small_run: Path) -> None:
    run = seqrec.Run(small_run)
    data = seqrec.load_data(run.facts["data"]["folder"])
    for part in ("validation", "test"):
        found = judge(small_run / f"per_user.{part}.parquet", data, part=part, ks=(1, 5, 10))
        kept = run.results[part]["metrics"]
        assert {name: kept[name] for name in found.metrics} == found.metrics


# --- ids


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.float64(), pa.string(), pa.large_string()])
def test_whole_numbers_and_text_are_one_id(kind: pa.DataType, tmp_path: Path) -> None:
    rows = [(user, item, step) for user in range(10, 20) for step, item in enumerate(range(user, user + 8))]
    log = pd.DataFrame(rows, columns=["user", "item", "time"])
    data = seqrec.load_data(log, time_unit="order", k_core=0)
    users = pa.array([user for user in range(10, 20) for _ in range(10)], pa.int64()).cast(kind)
    items = pa.array([item for user in range(10, 20) for item in range(17, 27)], pa.int64()).cast(kind)
    found = judge(pa.table({"user": users, "item": items, "score": np.arange(100.0)}), data, ks=(1,))
    assert found.ks == (1,)
    assert len(found.ranks) == 10


def test_dictionaries_and_nulls_at_the_end_of_lists(data: PreparedData) -> None:
    entries = top(drawn(data), data, 30)
    expected = judge(long_form(entries), data)
    long = pa.table({name: pa.array(column) for name, column in zip("uis", zip(*entries, strict=True), strict=True)})
    long = long.rename_columns(["user", "item", "score"])
    encoded = long.set_column(0, "user", long["user"].dictionary_encode())
    assert judge(encoded, data).metrics == expected.metrics
    wide = wide_form(entries)
    padded = pa.array([[*items, None, ""] for items in wide["items"].to_pylist()])
    assert judge(pa.table({"user": wide["user"], "items": padded}), data).metrics == expected.metrics


# --- what a file does not say


def test_cut_offs_beyond_the_shortest_list_are_left_out_and_named(data: PreparedData) -> None:
    entries = top(drawn(data), data, 10)
    found = judge(long_form(entries), data, filter_seen=False, ks=(1, 5, 10, 11, 20))
    assert found.ks == (1, 5, 10)
    assert not [name for name in found.metrics if name.endswith(("@11", "@20"))]
    assert "no cut-off 11 or 20: the shortest list does not reach it" in found.protocol
    short = [entry for entry in entries if entry[0] != "u3"] + [entry for entry in entries if entry[0] == "u3"][:5]
    found = judge(long_form(short), data, filter_seen=False)
    assert found.ks == (1, 3, 5)
    assert "breakdowns at 10" in found.protocol
    assert judge(long_form(short), data, "miss", filter_seen=False).ks == KS


def test_seen_items_in_lists_are_left_out_and_counted(data: PreparedData) -> None:
    entries = top(drawn(data), data, 30)
    found = judge(long_form(entries), data)
    seen = sum(len(np.unique(data.sequences.history(user)[:-1])) for user in data.split.test.users)
    share = seen / (30 * len(data.split.test))
    assert f"{share:.1%} of entries were seen items" in found.protocol
    assert "seen items and" not in judge(long_form(entries), data, filter_seen=False).protocol


def test_lists_of_everything_left_reach_every_cut_off(data: PreparedData) -> None:
    found = judge(long_form(top(drawn(data), data, 30)), data, ks=(10, 50))
    assert found.ks == (10, 50)


def test_people_without_a_list(data: PreparedData) -> None:
    entries = [entry for entry in top(drawn(data), data, 30) if entry[0] not in ("u3", "u7")]
    with pytest.raises(DataError, match=r"2 of 40 people .* have no list, such as 'u\d', 'u\d'.* --missing miss"):
        judge(long_form(entries), data)
    found = judge(long_form(entries), data, "miss")
    everybody = judge(long_form(top(drawn(data), data, 30)), data)
    away = np.isin(np.array(data.user_ids())[found.users], ["u3", "u7"])
    assert (found.per_case("recall@10")[away] == 0).all()
    assert (found.lists[away] == 0).all()
    np.testing.assert_array_equal(found.ranks[~away], everybody.ranks[~away])
    assert "(2 without a list)" in found.protocol
    with pytest.raises(ConfigError, match="missing"):
        judge(long_form(entries), data, "ignore")


def test_a_target_that_is_not_listed_is_a_miss_however_small_the_catalogue(data: PreparedData) -> None:
    targets = data.sequences.items[data.split.test.positions]
    entries = [
        (data.user_ids()[user], item, 1.0)
        for user, target in zip(data.split.test.users, targets, strict=True)
        for number, item in enumerate(data.catalogue.ids, start=1)
        if number != target
    ]
    found = judge(long_form(entries), data, filter_seen=False, ks=(29,))
    assert found.metrics["recall@29"] == 0
    assert judge(long_form(entries), data, "miss", filter_seen=False, ks=(29, 50)).ks == (29,)


def test_one_list_answers_several_cases_after_one_history_and_no_others(tmp_path: Path) -> None:
    every = load(tmp_path, split="ratio", targets="all")
    scorer = drawn(every)
    assert len(every.split.test) > len(np.unique(every.split.test.users))
    entries = long_form(top(scorer, every, 30))
    expected = Evaluator(every, EvaluationConfig(ks=KS)).evaluate(scorer, "test")
    np.testing.assert_array_equal(judge(entries, every).ranks, expected.ranks)
    successive = load(tmp_path, split="ratio", targets="successive")
    with pytest.raises(DataError, match=r"asked several times.*data.targets last or all"):
        judge(entries, successive)


def test_equal_rows_of_lists_are_one_list(data: PreparedData) -> None:
    wide = wide_form(top(drawn(data), data, 30)).drop_columns("scores")
    assert judge(pa.concat_tables([wide, wide]), data).metrics == judge(wide, data).metrics


# --- a scorer like any other


def test_scores_are_finite_fresh_and_of_its_people_only(data: PreparedData) -> None:
    predictions = Predictions.read(long_form(top(drawn(data), data, 4)), data)
    batch = Batch(torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]), torch.tensor([5, 0]))
    scores = predictions.scores(batch)
    assert scores.shape == (2, 30)
    assert sorted(set(scores[0].tolist()), reverse=True) == [0, -1, -2, -3, -4]
    assert (scores == -4).sum() == 2 * 26
    scores.zero_()
    assert predictions.scores(batch).min() == -4
    some = torch.tensor([30, 1])
    torch.testing.assert_close(predictions.scores(batch, some), predictions.scores(batch)[:, some - 1])
    with pytest.raises(ScoreError, match="cannot score other histories"):
        predictions.scores(Batch.of([[1, 2]]))
    other = Predictions.read(long_form(top(drawn(data, seed=1), data, 9)), data)
    other.load_state_dict(predictions.state_dict())
    torch.testing.assert_close(other.scores(batch), predictions.scores(batch))


def test_the_python_door(data: PreparedData, tmp_path: Path) -> None:
    pq.write_table(wide_form(top(drawn(data), data, 30)), tmp_path / "lists.parquet")
    predictions = Predictions.read(tmp_path / "lists.parquet", data)
    found = seqrec.evaluate(predictions, data, settings={"ks": KS})
    assert found.metrics == judge(tmp_path / "lists.parquet", data).metrics
