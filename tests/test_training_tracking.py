"""What TensorBoard is given: read back from the event files with TensorBoard's own reader."""

from __future__ import annotations

import json
import math
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from seqrec.experiments.run import Run
from seqrec.training.tracking import Progress, TensorBoard


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


@pytest.fixture(scope="module")
def run(small_run: Path) -> Run:
    return Run(small_run)


@pytest.fixture(scope="module")
def written(run: Run) -> Any:
    return events(run.folder.tensorboard)


def by_step(written: Any, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in written.Scalars(tag)}


def expected(run: Run, *keys: str) -> dict[int, float]:
    found = {}
    for epoch in run.folder.epochs():
        value: Any = epoch
        for key in keys:
            value = value[key]
        found[epoch["step"]] = pytest.approx(value, rel=1e-5)
    return found


def test_the_loss_of_every_step(run: Run, written: Any) -> None:
    losses = [loss for epoch in run.folder.epochs() for loss in epoch["losses"]]
    assert len(losses) == run.folder.epochs()[-1]["step"]
    assert by_step(written, "train/loss_by_step") == {
        step: pytest.approx(loss, rel=1e-5) for step, loss in enumerate(losses, 1)
    }


@pytest.mark.parametrize(
    ("tag", "keys"),
    [
        ("train/loss", ("train", "loss")),
        ("train/learning_rate", ("learning_rate",)),
        ("loss/train", ("loss", "train")),
        ("loss/validation", ("loss", "validation")),
        ("gradient_norm/total", ("gradient_norm", "total")),
        ("gradient_norm/total_max", ("gradient_norm", "total_max")),
        ("gradient_norm/clipped_share", ("gradient_norm", "clipped_share")),
        ("gradient_norm/items", ("gradient_norm", "items")),
        ("gradient_norm/blocks.0", ("gradient_norm", "blocks.0")),
        ("gradient_norm/blocks.1", ("gradient_norm", "blocks.1")),
        ("speed/tokens_per_second", ("speed", "tokens_per_second")),
        ("speed/seconds", ("speed", "seconds")),
        ("speed/evaluation_seconds", ("speed", "evaluation_seconds")),
        ("train_loss_by_length/1+", ("train_loss_by_length", "1+")),
    ],
)
def test_every_epoch_has(tag: str, keys: tuple[str, ...], run: Run, written: Any) -> None:
    assert by_step(written, tag) == expected(run, *keys)


def test_every_validation_measure(run: Run, written: Any) -> None:
    names = run.folder.epochs()[0]["validation"]
    assert len(names) >= 45
    for name in names:
        assert by_step(written, f"validation/{name}") == expected(run, "validation", name)


def test_number_of_parameters(run: Run, written: Any) -> None:
    assert by_step(written, "model/parameters") == {0: run.results["training"]["parameters"]}


def test_hyperparameters_with_the_final_measures(run: Run, written: Any) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(
        written.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    )  # fmt: skip
    kept = data.session_start_info.hparams
    assert kept["model.name"].string_value == "sasrec"
    assert kept["training.learning_rate"].number_value == run.config.training.learning_rate
    assert kept["seed"].number_value == run.config.seed
    for name in ("ndcg@10", "recall@10"):
        assert by_step(written, f"final/{name}") == {0: pytest.approx(run.metrics[name], rel=1e-5)}


def test_no_gpu_no_gpu_tags(written: Any) -> None:
    assert not [tag for tag in written.Tags()["scalars"] if "gpu" in tag]


def record(step: int, loss: float) -> dict[str, Any]:
    gpu = {"utilisation_percent": 93.0, "power_w": 250.0}
    return {"step": step, "losses": [loss], "train": {"loss": loss}, "learning_rate": 0.1, "gpu": gpu}


def test_gpu_readings_where_there_is_one(tmp_path: Path) -> None:
    tracker = TensorBoard(tmp_path)
    tracker.started({"parameters": 1, "steps_done": 0})
    tracker.epoch_ended(record(1, 2.0))
    tracker.ended({"hyperparameters": {"a": None}, "metrics": {}})
    assert by_step(events(tmp_path), "gpu/power_w") == {1: 250.0}


def test_epochs_that_are_trained_again_after_a_crash_are_shown_once(tmp_path: Path) -> None:
    died = TensorBoard(tmp_path)
    died.started({"parameters": 1, "steps_done": 0})
    for step in (1, 2, 3):
        died.epoch_ended(record(step, math.pi))
    resumed = TensorBoard(tmp_path)
    resumed.started({"parameters": 1, "steps_done": 1})
    for step in (2, 3):
        resumed.epoch_ended(record(step, 1.0))
    shown = [(event.step, round(event.value, 2)) for event in events(tmp_path).Scalars("train/loss")]
    assert shown == [(1, 3.14), (2, 1.0), (3, 1.0)]


class Remembers:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def started(self, facts: Any) -> None:
        self.told.append(("started", facts))

    def progressed(self, progress: Progress) -> None:
        self.told.append(("progressed", progress))

    def epoch_ended(self, record: Any) -> None:
        self.told.append(("epoch_ended", record))

    def ended(self, facts: Any) -> None:
        self.told.append(("ended", facts))


def test_any_tracker_is_told_everything_in_order(small_log: Path, tmp_path: Path) -> None:
    import seqrec

    tracker = Remembers()
    settings = {"model.embedding_dim": 16, "training.epochs": 2, "training.batch_size": 16}
    run = seqrec.train(
        small_log, "sasrec", user="uid", item="iid", time="ts", settings=settings, out=tmp_path / "run",
        trackers=[tracker], device="cpu",
    )  # fmt: skip
    told = [what for what, _ in tracker.told]
    epoch = ["progressed", "epoch_ended"]  # a slow machine reports progress more often
    assert [what for what, _ in groupby(told)] == ["started", *epoch, *epoch, "ended"]
    assert tracker.told[0][1]["device"] == "CPU"
    progress = tracker.told[-3][1]
    assert (progress.epoch, progress.epochs, progress.step, progress.steps) == (2, 2, 3, 3)
    assert 0 <= progress.seconds_left < 1  # nothing but the last evaluation
    assert json.loads(json.dumps(tracker.told[-2][1])) == run.folder.epochs()[1]
    assert tracker.told[-1][1]["metrics"]["ndcg@10"] == run.metrics["ndcg@10"]
    assert tracker.told[-1][1]["hyperparameters"]["model.embedding_dim"] == 16
