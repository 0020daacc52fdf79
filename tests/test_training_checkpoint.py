"""Checkpoints give back the bits they were given, or say that they are damaged."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seqrec.errors import CheckpointError
from seqrec.models.sasrec import SASRec, SASRecConfig
from seqrec.training.checkpoint import load_checkpoint, load_weights, save_checkpoint

TENSORS: dict[str, Tensor] = {
    "float32": torch.tensor([[1.0, -0.0], [torch.inf, 1e-45]]),
    "float64": torch.tensor([0.1], dtype=torch.float64),
    "bfloat16": torch.tensor([1.5, 3e38], dtype=torch.bfloat16),
    "float16": torch.tensor([0.5], dtype=torch.float16),
    "int64": torch.tensor([2**62, -1]),
    "int32": torch.tensor([7], dtype=torch.int32),
    "uint8": torch.tensor([255], dtype=torch.uint8),
    "bool": torch.tensor([True, False]),
    "0-dim": torch.tensor(3.25),
    "0-dim int64": torch.tensor(-9),
    "empty": torch.zeros(0),
    "empty rows": torch.zeros(3, 0),
}
FACTS = {"position": {"epoch": 3, "best": 0.1, "losses": [1.0, 2.5], "nothing": None}, "title": "Amélie"}


@pytest.mark.parametrize("name", TENSORS)
def test_round_trip_of_every_dtype_and_shape(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "a", {name: TENSORS[name]})
    found, facts = load_checkpoint(tmp_path / "a")
    assert list(found) == [name]
    assert found[name].dtype == TENSORS[name].dtype
    assert found[name].shape == TENSORS[name].shape
    assert torch.equal(found[name], TENSORS[name])
    assert facts == {}


def test_round_trip_of_all_together_with_facts(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", TENSORS, FACTS)
    found, facts = load_checkpoint(tmp_path / "a")
    assert set(found) == set(TENSORS)
    assert facts == FACTS


def test_views_and_shared_storage_are_kept_as_they_look(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    views = {"table": table, "same": table, "transposed": table.T, "column": table[:, 1], "row": table[1:]}
    save_checkpoint(tmp_path / "a", views)
    found, _ = load_checkpoint(tmp_path / "a")
    assert all(torch.equal(found[name], view) for name, view in views.items())


def test_parameters_are_kept_without_their_gradient(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", {"w": torch.nn.Parameter(torch.ones(2))})
    assert not load_checkpoint(tmp_path / "a")[0]["w"].requires_grad


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "a")


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_checkpoint(path, {"w": torch.arange(8.0)}, FACTS)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(path)


def test_a_flipped_byte_anywhere_is_found_or_harmless(tmp_path: Path) -> None:
    """Names, dtypes, shapes, facts and values: nothing that is loaded can be altered unnoticed."""
    path = tmp_path / "a"
    save_checkpoint(path, {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(5)}, {"epoch": 3})
    whole = path.read_bytes()
    expected, _ = load_checkpoint(path)
    for at in range(len(whole)):
        for mask in (0x01, 0x0F, 0x20, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            try:
                found, facts = load_checkpoint(path)
            except CheckpointError:
                continue
            assert facts == {"epoch": 3}
            assert {name: tensor.tolist() for name, tensor in found.items()} == {
                name: tensor.tolist() for name, tensor in expected.items()
            }


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "exploded",)

    pickled, saved = tmp_path / "pickled", tmp_path / "saved"
    pickled.write_bytes(pickle.dumps(Bomb()))
    torch.save({"w": Bomb()}, saved)
    for path in (pickled, saved):
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(tmp_path / "a")


def small(items: int = 5, width: int = 4) -> SASRec:
    return SASRec(SASRecConfig(embedding_dim=width, max_length=6), items)


def test_weights_go_back_into_a_model(tmp_path: Path) -> None:
    model, other = small(), small()
    save_checkpoint(tmp_path / "a", model.state_dict(), {"epoch": 2})
    assert load_weights(other, tmp_path / "a") == {"epoch": 2}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("foreign", [small(items=6), small(width=8), torch.nn.Linear(2, 2)])
def test_weights_of_another_model_are_refused(tmp_path: Path, foreign: torch.nn.Module) -> None:
    save_checkpoint(tmp_path / "a", foreign.state_dict())
    with pytest.raises(CheckpointError, match="does not fit this model"):
        load_weights(small(), tmp_path / "a")
