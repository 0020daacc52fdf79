"""The mean of the best epochs' weights: which are kept, what the mean is, and when it takes the place of the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import seqrec
from conftest import SMALL
from seqrec.data.prepared import PreparedData
from seqrec.distributed import ALONE
from seqrec.experiments.run import Run
from seqrec.run_folder import RunFolder
from seqrec.training.averaging import forget, put_mean, weights_of, with_epoch
from seqrec.training.checkpoint import load_checkpoint, save_checkpoint
from training import trainer


@given(values=st.lists(st.sampled_from([0.1, 0.2, 0.3]), max_size=12), most=st.integers(1, 4))
def test_the_best_are_kept_and_of_equal_ones_the_earlier(values: list[float], most: int) -> None:
    kept: dict[str, float] = {}
    for epoch, value in enumerate(values, 1):
        kept = with_epoch(kept, epoch, value, most)
    expected = sorted(enumerate(values, 1), key=lambda entry: (-entry[1], entry[0]))[:most]
    assert list(kept.items()) == [(str(epoch), value) for epoch, value in expected]


class Small(nn.Module):
    """Floats in two widths, and a count that has no mean."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), value))
        self.register_buffer("narrow", torch.full((2,), value, dtype=torch.bfloat16))
        self.register_buffer("count", torch.tensor(int(value)))


def test_the_mean_of_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, value in zip(paths, (1.0, 2.0, 6.0), strict=True):
        save_checkpoint(path, Small(value).state_dict())
    model = Small(0.0)
    put_mean(paths, model, ALONE)
    assert torch.equal(model.weight, torch.full((2, 3), 3.0))
    assert torch.equal(model.narrow, torch.full((2,), 3.0, dtype=torch.bfloat16))  # type: ignore[arg-type]
    assert model.count == 6


def evaluated(monkeypatch: pytest.MonkeyPatch, mine: Any, mean: float) -> list[dict[str, Tensor]]:
    """Let epochs validate at .1, .2, ... and the mean at `mean`; the weights that were evaluated, in order."""
    seen: list[dict[str, Tensor]] = []
    true = mine.evaluator.evaluate

    def evaluate(model: Any, part: str) -> Any:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        found = true(model, part)
        found.metrics["ndcg@10"] = len(seen) / 10 if len(seen) <= mine.config.epochs else mean
        return found

    monkeypatch.setattr(mine.evaluator, "evaluate", evaluate)
    return seen


@pytest.mark.parametrize(("mean", "better"), [(0.9, True), (0.4, False), (0.0, False)])
def test_the_mean_is_kept_if_it_validates_better(
    mean: float, better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = trainer(tmp_path / "run", average_best=2, epochs=4, learning_rate=0.01)
    seen = evaluated(monkeypatch, mine, mean)
    at = mine.train()
    assert [*at.kept] == ["4", "3"]
    assert sorted(path.name for path in mine.folder.path.glob("best-*")) == ["best-3.safetensors", "best-4.safetensors"]
    weights, facts = load_checkpoint(mine.folder.best)
    assert facts["epoch"] == 4
    for name, value in weights.items():
        expected = (seen[2][name].double() + seen[3][name].double()) / 2
        torch.testing.assert_close(seen[4][name], expected.float(), rtol=0, atol=0)
        assert torch.equal(value, seen[4 if better else 3][name])
    assert at.averaged == ([3, 4] if better else [])
    assert facts.get("averaged_epochs", []) == at.averaged
    assert at.best == (mean if better else 0.4)


def test_by_itself_nothing_more_than_the_best_is_kept(tmp_path: Path) -> None:
    mine = trainer(tmp_path / "run")
    mine.train()
    assert not list(mine.folder.path.glob("best-*"))


def test_a_run_says_which_epochs_and_keeps_no_file_of_theirs(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqrec.training.trainer.Trainer._try_average", lambda self: self.at.averaged.extend([2, 3]))
    data = PreparedData.load(Path(Run(small_run).facts["data"]["folder"]))
    run = seqrec.train(data, "sasrec", settings={**SMALL, "training.average_best": 2}, out=tmp_path / "run")
    assert run.results["training"]["averaged_epochs"] == [2, 3]
    assert not list(run.path.glob("best-*"))
    assert "averaged_epochs" not in Run(small_run).results["training"]


def test_forgetting(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.best, folder.last, *(weights_of(folder, epoch) for epoch in (1, 2, 30))):
        path.touch()
    forget(folder, but=["2"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.safetensors", "last.safetensors", "best-2.safetensors"
    }  # fmt: skip
    forget(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"best.safetensors", "last.safetensors"}
