"""Estimates: the arithmetic by hand, what is measured against what a run leaves, and errors of the other process."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.errors import ConfigError, SeqrecError, TrainingError, UnknownNameError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.experiments.estimate import Estimate, estimate
from seqrec.experiments.rehearsal import fits, samples, steps
from seqrec.experiments.rehearsal.measure import Rehearsed
from seqrec.experiments.run import Run
from seqrec.models.popularity import Popularity
from seqrec.testing import ITEMS, synthetic_data

KNOWN = Rehearsed(
    parameters=100, batch_size=8, steps=10, start_seconds=3.0, epoch_seconds=2.0, evaluation_seconds=0.5,
    case_seconds=0.01, saving_seconds=0.1, weights_bytes=1000, checkpoint_bytes=4000, epoch_bytes=10.0,
    evaluation_bytes=5.0, case_bytes=2.0, items_bytes=700, memory_mib=300.0, gpu_mib=None, fitted_share=None,
)  # fmt: skip
TEN = Estimate("cpu", 10, 3, 30.0, 200, 5000, KNOWN, 1.0)


class Failing(Popularity):
    """Is killed, or fails, while it is fitted."""

    def fit(self, train: Any) -> Any:
        raise ZeroDivisionError("as it happens")


class Killed(Popularity):
    """As where memory is too small."""

    def fit(self, train: Any) -> Any:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def test_the_whole_is_the_sum_of_its_parts() -> None:
    training = 10 * 2.0 + 4 * 0.5  # epochs 3, 6, 9 and the last one end in an evaluation
    saving = (1 + training / 30) * 0.1
    assert TEN.training_seconds() == pytest.approx(training + saving)
    assert TEN.seconds() == pytest.approx(3 + training + saving + 200 * 0.01)
    assert TEN.run_bytes() - 700 - 1000 - 200 * 2 - 10 * 10 - 4 * 5 == pytest.approx(40_000)
    assert TEN.most_bytes() == TEN.run_bytes() + 2 * 4000


def test_an_early_end_costs_less() -> None:
    assert [TEN.evaluations(epochs) for epochs in (1, 3, 5, 9, 10)] == [0, 1, 1, 3, 4]
    assert TEN.seconds(4) < TEN.seconds(6) < TEN.seconds() == TEN.seconds(10)
    assert TEN.run_bytes(4) < TEN.run_bytes()


def test_checkpoints_cannot_be_more_than_steps() -> None:
    busy = replace(TEN, checkpoint_seconds=0.0)
    assert busy.training_seconds() == pytest.approx(22 + (1 + 22 / 0.2) * 0.1)


def test_a_model_without_gradients_has_one_fit() -> None:
    fitted = replace(TEN, epochs=0, rehearsed=replace(KNOWN, steps=0))
    assert fitted.training_seconds() == 2.0
    assert fitted.seconds() == pytest.approx(3 + 2 + 2)
    assert fitted.run_bytes() == pytest.approx(40_000 + 1700 + 400)


@pytest.mark.parametrize("model", ["sasrec", "popularity"])
def test_the_estimate_of_a_run_is_of_its_size(
    model: str, small_run: Path, popularity_run: Path, small_log: Path
) -> None:
    settings = (SMALL if model == "sasrec" else {}) | {f"data.{k}": v for k, v in COLUMNS.items()}
    found = estimate(small_log, model, settings=settings, device="cpu")
    run = Run(small_run if model == "sasrec" else popularity_run)
    assert found.cases == 80
    assert found.rehearsed.parameters == run.results["training"]["parameters"]
    assert found.epochs == run.results["training"]["epochs"]
    assert found.rehearsed.weights_bytes == (run.path / "best.safetensors").stat().st_size
    kept = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    assert kept / 3 < found.run_bytes() < kept * 3
    assert found.prepared_bytes > 1000
    assert 50 < found.rehearsed.memory_mib < 4000
    assert 0 < found.rehearsed.start_seconds < found.seconds()
    json.dumps(found.to_dict(), allow_nan=False)
    if model == "sasrec":
        assert found.rehearsed.steps == 3
        assert found.rehearsed.batch_size == SMALL["training.batch_size"]
        assert found.rehearsed.fitted_share is None
        assert found.rehearsed.checkpoint_bytes > 3 * found.rehearsed.weights_bytes
    else:
        assert found.rehearsed.fitted_share == 1.0


def test_nothing_is_left_behind(small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    estimate(small_log, "popularity", settings={f"data.{k}": v for k, v in COLUMNS.items()}, device="cpu")
    assert list((tmp_path / "scratch").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "log.csv", "scratch"}


def test_a_misspelt_setting_is_found_before_anything_runs(small_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(ConfigError, match=r"Did you mean model.embedding_dim"):
        estimate(small_log, "sasrec", settings={"model.embeding_dim": 3})
    with pytest.raises(UnknownNameError, match="sasrec"):
        estimate(small_log, "sassrec")


def test_what_goes_wrong_in_the_other_process_is_told(small_log: Path) -> None:
    data = seqrec.load_data(small_log, **COLUMNS)
    with pytest.raises(SeqrecError, match="as it happens"):
        estimate(data, f"{__name__}:Failing", device="cpu")
    with pytest.raises(TrainingError, match="killed by signal 9, as happens where memory is too small"):
        estimate(data, f"{__name__}:Killed", device="cpu")
    members = [{"name": "sasrec"}]
    with pytest.raises(ConfigError, match="sasrec has to be trained first"):
        estimate(data, "ensemble", settings={"model.members": members}, device="cpu")


def test_some_users_keep_their_training_histories() -> None:
    data = synthetic_data()
    some = samples.some_users(data, 0.25)
    assert len(some.sequences) == 15
    assert some.sequences.num_items == ITEMS
    whole = {tuple(data.train.history(user).tolist()) for user in range(60)}
    assert all(tuple(some.train.history(user).tolist()) in whole for user in range(15))
    assert some.sequences.times is not None
    assert len(some.sequences.times) == len(some.sequences.items) == some.sequences.ends[-1]
    assert samples.some_users(data, 1) is data


def test_fits_are_drawn_as_a_straight_line(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow(Popularity):
        def fit_data(self, data: Any) -> Any:
            clock[0] += 10 + len(data.sequences) / 2
            return self

    monkeypatch.setattr(fits.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(fits, "process_peak_mib", lambda: 100 + 2 * clock[0])
    monkeypatch.setattr(fits, "build_model", lambda spec, items: Slow(Slow.Config(), items))
    _, share, seconds, memory = fits.fit_growing({}, synthetic_data())
    assert share == 0.1
    assert seconds == pytest.approx(10 + 60 / 2)
    assert memory == pytest.approx(100 + 2 * 24.5 + 18 * 2 * 13)


def test_steps_that_were_not_tried_cost_what_their_neighbours_cost() -> None:
    measured = {(8, 16): 1.0, (8, 64): 8.0}
    assert steps._nearest(measured, (8, 16)) == 1.0
    assert steps._nearest(measured, (4, 16)) == 0.5
    assert steps._nearest(measured, (8, 48)) == 6.0


@pytest.mark.parametrize("most", [5, 1000])
def test_the_cases_that_are_tried_are_of_all_lengths(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MOST_CASES", most)
    data = synthetic_data()
    evaluator = Evaluator(data, EvaluationConfig())
    scorer = Popularity(Popularity.Config(), ITEMS).fit(data.train)
    cases = samples.some_cases(evaluator, scorer).data.cases("validation")
    lengths = cases.ends - data.sequences.starts[cases.users]
    everybody = data.cases("validation")
    all_lengths = everybody.ends - data.sequences.starts[everybody.users]
    assert len(np.unique(cases.users)) == len(cases) == (4 * most if most == 5 else len(everybody))
    assert (lengths.min(), lengths.max()) == (all_lengths.min(), all_lengths.max())
