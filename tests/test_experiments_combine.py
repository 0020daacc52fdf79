"""Ensembles of runs: weights from validation alone, and a run folder like any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import seqrec
from conftest import COLUMNS
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, DataError, RunFolderError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.experiments.combine import choose_weights, combine, line
from seqrec.experiments.run import Run
from seqrec.models.base import Scorer
from seqrec.models.build import build_model
from seqrec.models.ensemble import Ensemble
from seqrec.testing import ITEMS, synthetic_data

NAMES = ("popularity", "markov", "recent_popularity")


@pytest.fixture(scope="module")
def runs(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The small SASRec, and two baselines on its data."""
    data = PreparedData.load(Path(Run(small_run).facts["data"]["folder"]))
    folder = tmp_path_factory.mktemp("members")
    return [Run(small_run), *(seqrec.train(data, name, out=folder / name, device="cpu") for name in NAMES[:2])]


@pytest.fixture(scope="module")
def made(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return combine([runs[0], runs[2]], tmp_path_factory.mktemp("made") / "run", device="cpu")


def fitted(*names: str, data: PreparedData | None = None) -> list[Scorer]:
    return [build_model({"name": name}, ITEMS).fit_data(data or synthetic_data()) for name in names]


def ndcg(members: list[Scorer], weights: tuple[float, ...], data: PreparedData, fusion: str, **protocol: Any) -> float:
    """Of an ensemble with these weights, as the evaluator finds it."""
    specs = [{"name": "popularity"} for _ in members]
    ensemble = Ensemble(Ensemble.Config(members=specs, weights=weights, fusion=fusion), ITEMS)
    ensemble.members = members
    return Evaluator(data, EvaluationConfig(**protocol)).evaluate(ensemble, "validation").metrics["ndcg@10"]


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("fusion", ["zscore", "reciprocal_rank"])
def test_two_weights_are_the_best_of_the_grid(fusion: str, filter_seen: bool) -> None:
    data = synthetic_data()
    members = fitted("markov", "popularity")
    evaluator = Evaluator(data, EvaluationConfig(filter_seen=filter_seen))
    found = choose_weights(members, evaluator, fusion)
    grid = [(round(1 - n / 20, 6), round(n / 20, 6)) for n in range(21)]
    values = {w: ndcg(members, w, data, fusion, filter_seen=filter_seen) for w in grid}
    assert values[found] == pytest.approx(max(values.values()), abs=1e-12)


def test_a_search_over_three_is_no_worse_than_any_of_them_or_equal_weights() -> None:
    data = synthetic_data()
    members = fitted(*NAMES)
    found = choose_weights(members, Evaluator(data, EvaluationConfig()), "zscore")
    assert sum(found) == pytest.approx(1, abs=1e-5)
    assert min(found) >= 0
    others = [(1 / 3,) * 3, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    assert ndcg(members, found, data, "zscore") >= max(ndcg(members, w, data, "zscore") for w in others) - 1e-12


def test_weights_do_not_depend_on_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(synthetic_data(), EvaluationConfig())
    expected = choose_weights(fitted("markov", "popularity"), evaluator, "zscore")
    monkeypatch.setattr("seqrec.experiments.combine.MOST_CASES", 7)
    assert choose_weights(fitted("markov", "popularity"), evaluator, "zscore") == expected


def test_weights_follow_their_members() -> None:
    evaluator = Evaluator(synthetic_data(), EvaluationConfig())
    one = choose_weights(fitted("markov", "popularity"), evaluator, "zscore")
    other = choose_weights(fitted("popularity", "markov"), evaluator, "zscore")
    assert one == other[::-1]


def test_weights_never_see_the_test_part() -> None:
    data = synthetic_data()
    items = np.array(data.sequences.items)
    items[data.split.test.positions] = 1 + (items[data.split.test.positions] + 5) % ITEMS
    other = replace(data, sequences=data.sequences.with_items(items, ITEMS))
    assert not np.array_equal(other.sequences.items, data.sequences.items)
    for names in (("markov", "popularity"), NAMES):
        members = fitted(*names)
        first, second = (choose_weights(members, Evaluator(d, EvaluationConfig()), "zscore") for d in (data, other))
        assert first == second


def test_a_line_of_weights() -> None:
    assert line((1.0, 0.0), 1)[::5] == [(1.0, 0.0), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.0, 1.0)]
    for weights in line((0.2, 0.3, 0.5), 0):
        assert sum(weights) == pytest.approx(1, abs=1e-5)
        assert weights[1] * 5 == pytest.approx(weights[2] * 3, abs=1e-5)
    assert line((1.0, 0.0, 0.0), 0)[0] == (0.0, 0.5, 0.5)


def test_a_combined_run_is_a_run(made: Run, runs: list[Run]) -> None:
    assert {path.name for path in made.path.iterdir()} == {
        "run.json", "items.json", "best.safetensors", "results.json", "per_user.validation.parquet",
        "per_user.test.parquet",
    }  # fmt: skip
    assert made.config.model_name == "ensemble"
    assert made.config.evaluation == runs[0].config.evaluation
    assert made.facts["data"]["test_targets"] == runs[0].facts["data"]["test_targets"]
    training = made.results["training"]
    assert training["epochs"] == 0
    assert [member["model"] for member in training["members"]] == ["sasrec", "markov"]
    for member, run in zip(training["members"], (runs[0], runs[2]), strict=True):
        assert member["run"] == str(run.path)
        assert member["test"] == run.metrics["ndcg@10"]
        assert member["validation"] == run.validation["ndcg@10"]
    best_alone = max(run.validation["ndcg@10"] for run in (runs[0], runs[2]))
    assert made.validation["ndcg@10"] >= best_alone - 1e-12
    ranks = np.array(pq.read_table(made.folder.per_user("test"))["rank"])
    gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    assert made.metrics["ndcg@10"] == pytest.approx(gains.mean())


def test_it_recommends_and_is_judged_again_alike(made: Run) -> None:
    assert len(made.recommender().recommend(["i3", "i4"], k=5)) == 5
    assert made.recommender().recommend(["i3"] * 100, k=1)[0].probability is None
    for part, kept in (("validation", made.validation), ("test", made.metrics)):
        assert seqrec.evaluate(made, part=part).metrics == pytest.approx(kept)


def test_runs_can_be_moved_or_deleted_afterwards(runs: list[Run], tmp_path: Path) -> None:
    copies = [Run(shutil.copytree(run.path, tmp_path / run.path.name)) for run in runs[1:]]
    made = combine(copies, tmp_path / "made", "reciprocal_rank", "cpu")
    for copy in copies:
        shutil.rmtree(copy.path)
    assert seqrec.evaluate(Run(made.path)).metrics == pytest.approx(made.metrics)


def test_folders_are_runs_too(runs: list[Run], tmp_path: Path) -> None:
    by_run = combine(runs[1:], tmp_path / "by_run", device="cpu")
    by_path = combine([runs[1].path, str(runs[2].path)], str(tmp_path / "by_path"), device="cpu")
    assert by_path.results["test"] == by_run.results["test"]
    assert by_path.results["training"]["members"] == by_run.results["training"]["members"]


def test_a_run_that_was_cut_off_is_made_again(runs: list[Run], tmp_path: Path) -> None:
    made = combine(runs[1:], tmp_path / "made", device="cpu")
    (made.path / "results.json").unlink()
    again = combine(runs[1:], tmp_path / "made", device="cpu")
    assert again.results["test"] == made.results["test"]
    with pytest.raises(RunFolderError, match="it is finished"):
        combine(runs[1:], tmp_path / "made", device="cpu")


def test_what_does_not_go_together_is_refused(runs: list[Run], small_log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two runs or more \(got 1\)"):
        combine(runs[:1], tmp_path / "made")
    with pytest.raises(ConfigError, match=r"fusion 'mean'.*zscore"):
        combine(runs, tmp_path / "made", fusion="mean")
    for twice in ([runs[0], runs[1], runs[0]], [runs[0].path, f"{runs[0].path}/../{runs[0].path.name}"]):
        with pytest.raises(ConfigError, match="run is named twice"):
            combine(twice, tmp_path / "made")
    with pytest.raises(RunFolderError, match="nowhere is not a run folder"):
        combine([runs[0].path, "nowhere"], tmp_path / "made")
    other = seqrec.train(small_log, "popularity", settings={"data.k_core": 0}, out=tmp_path / "o", **COLUMNS)
    with pytest.raises(DataError, match="o does not go together with"):
        combine([runs[0], other], tmp_path / "made")
    data = PreparedData.load(Path(runs[0].facts["data"]["folder"]))
    unfiltered = seqrec.train(data, "markov", settings={"evaluation.filter_seen": False}, out=tmp_path / "u")
    with pytest.raises(ConfigError, match="judged by other rules"):
        combine([runs[0], unfiltered], tmp_path / "made")
    (unfiltered.path / "results.json").unlink()
    with pytest.raises(RunFolderError, match="not finished"):
        combine([unfiltered, runs[0]], tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_results_are_strict_json(made: Run) -> None:
    json.dumps(made.results, allow_nan=False)
