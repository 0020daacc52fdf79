"""Training from the weights of another run: what fits is taken, and the rest is named."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.data.catalogue import Catalogue, catalogue
from seqrec.data.prepared import PreparedData
from seqrec.errors import CheckpointError, ConfigError, DataError
from seqrec.experiments.run import Run
from seqrec.models.build import build_model
from seqrec.training.checkpoint import load_checkpoint, save_checkpoint
from seqrec.training.start import start_from
from seqrec.training.trainer import TrainingInterrupted

TINY = {"embedding_dim": 16, "max_length": 8, "num_blocks": 2}
ITEMS = catalogue([f"i{number}" for number in range(12)])


def model(name: str, items: int = 12, **settings: Any) -> nn.Module:
    made = build_model({"name": name, **TINY, **settings}, items)
    assert isinstance(made, nn.Module)
    return made


def folder_of(made: nn.Module, path: Path, items: Catalogue | None = ITEMS) -> Path:
    save_checkpoint(path / "best.safetensors", made.state_dict())
    if items is not None:
        items.save(path / "items.json")
    return path


def test_a_model_that_reads_both_ways_gives_one_that_reads_forwards_all_but_its_mask(tmp_path: Path) -> None:
    before, after = model("xlstm", bidirectional=True), model("xlstm")
    told = start_from(folder_of(before, tmp_path), after, ITEMS)
    theirs, own = before.state_dict(), after.state_dict()
    assert set(theirs) - set(own) == {"mask"}
    assert all(torch.equal(value, theirs[name]) for name, value in own.items())
    assert f"{len(own)} of {len(theirs)} weights taken; not taken: mask (not in this model)." in told
    told = start_from(tmp_path / "best.safetensors", before, ITEMS)
    assert f"{len(theirs)} of {len(theirs)} weights taken." in told


def test_what_is_new_or_of_another_shape_is_named(tmp_path: Path) -> None:
    after = model("sasrec", num_blocks=3, max_length=9)
    kept = after.state_dict()["positions"].clone()
    told = start_from(folder_of(model("sasrec"), tmp_path), after, ITEMS)
    assert "not taken: positions ([8, 16] there, [9, 16] here)" in told
    assert "new here: blocks.2.attention_norm.weight" in told
    assert torch.equal(after.state_dict()["positions"], kept)


@pytest.mark.parametrize("others", [ITEMS.ids[::-1], [*ITEMS.ids[:-1], "new"]])
def test_vectors_of_other_items_are_not_taken(others: list[str], tmp_path: Path) -> None:
    before, after = model("sasrec"), model("sasrec")
    kept = after.state_dict()["items.weight"].clone()
    told = start_from(folder_of(before, tmp_path), after, catalogue(others))
    assert "not taken: items.weight (of another catalogue)" in told
    assert torch.equal(after.state_dict()["items.weight"], kept)
    assert torch.equal(after.state_dict()["positions"], before.state_dict()["positions"])


def test_what_does_not_fit_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing in .* fits SASRec: weight \(not in this model\)"):
        start_from(folder_of(nn.Linear(2, 3, bias=False), tmp_path), model("sasrec"), ITEMS)
    with pytest.raises(ConfigError, match=r"training\.start_from: there is no nowhere"):
        start_from("nowhere", model("sasrec"), ITEMS)
    with pytest.raises(CheckpointError):
        start_from(tmp_path.parent, model("sasrec"), ITEMS)


# --- as part of a run


@pytest.fixture
def data(small_run: Path) -> PreparedData:
    return PreparedData.load(Path(Run(small_run).facts["data"]["folder"]))


def test_a_run_starts_from_another(
    small_run: Path, data: PreparedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SMALL, "training.start_from": str(small_run), "training.epochs": 1, "training.learning_rate": 1e-12}
    run = seqrec.train(data, "sasrec", settings=settings, seed=7, out=tmp_path / "run", device="cpu")
    assert f"Starts from {small_run}: " in capsys.readouterr().err
    weights, others = (load_checkpoint(path / "best.safetensors")[0] for path in (run.path, small_run))
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=1e-7)
    assert run.metrics == pytest.approx(Run(small_run).metrics)


def test_a_run_that_may_have_learned_from_this_test_is_refused(
    small_run: Path, data: PreparedData, tmp_path: Path
) -> None:
    other = seqrec.load_data(Path(Run(small_run).config.data.source), **COLUMNS, split="ratio")
    assert other.facts["fingerprint"] == data.facts["fingerprint"]
    settings = {**SMALL, "training.start_from": str(small_run), "training.epochs": 1}
    with pytest.raises(DataError, match=r"learned from this test\. .*best\.safetensors"):
        seqrec.train(other, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    settings["training.start_from"] = str(small_run / "best.safetensors")
    seqrec.train(other, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")


def test_going_on_does_not_start_again(small_run: Path, data: PreparedData, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    shutil.copy(small_run / "best.safetensors", start)

    class Interrupts:
        def __getattr__(self, name: str) -> Any:
            return lambda *told: start.unlink() or signal.raise_signal(signal.SIGINT) if name == "epoch_ended" else None

    settings = {**SMALL, "training.start_from": str(start)}
    with pytest.raises(TrainingInterrupted):
        seqrec.train(data, "sasrec", settings=settings, out=tmp_path / "run", device="cpu", trackers=[Interrupts()])
    run = seqrec.train(data, "sasrec", settings=settings, out=tmp_path / "run", device="cpu")
    assert run.results["training"]["epochs"] == 3


def test_a_wrong_start_is_told_before_there_is_a_folder(data: PreparedData, tmp_path: Path) -> None:
    for model_name, start, told in (("sasrec", "nowhere", "there is no nowhere"), ("markov", ".", "is fitted")):
        with pytest.raises(ConfigError, match=told):
            seqrec.train(data, model_name, settings={"training.start_from": start}, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
