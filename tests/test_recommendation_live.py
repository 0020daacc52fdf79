"""States on disk: what comes back is what was saved, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seqrec.data.batches import Batch
from seqrec.errors import SeqrecError
from seqrec.files import DiskError
from seqrec.models.build import build_model
from seqrec.models.state import named_parts, select, with_memory
from seqrec.recommendation.live import StateError, load_state, save_state
from seqrec.training.checkpoint import load_checkpoint, save_checkpoint

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4]])
MODELS = ["xlstm", "lstm", "gru4rec", "lrurec", "mamba4rec"]


def recurrent(name: str = "xlstm", items: int = N, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return build_model({"name": name, "embedding_dim": 8, **settings}, items).eval()  # type: ignore[attr-defined]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The state of an xLSTM after `BATCH`."""
    model, path = recurrent(), tmp_path / "sessions.safetensors"
    save_state(model.prefill(BATCH)[1], path, model)
    return path


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_what_comes_back_is_what_was_saved(name: str, tmp_path: Path) -> None:
    model, path = recurrent(name), tmp_path / "deep" / "sessions"
    _, state = model.prefill(BATCH)
    save_state(state, path, model)
    again = load_state(path, recurrent(name))  # another process would build its model anew
    torch.testing.assert_close(again, state, rtol=0, atol=0)
    items = torch.tensor([4, 5, 6])
    torch.testing.assert_close(model.step(items, again)[0], model.step(items, state)[0])
    assert [file.name for file in path.parent.iterdir()] == ["sessions"]


@torch.inference_mode()
def test_bfloat16_memories_views_and_no_session_at_all(tmp_path: Path) -> None:
    model, path = recurrent(), tmp_path / "state"
    _, state = model.prefill(BATCH)
    for kept in (with_memory(state, torch.bfloat16), select(state, []), model.initial_state(0)):
        save_state(kept, path, model)
        torch.testing.assert_close(load_state(str(path), model), kept, rtol=0, atol=0)


def test_kernels_and_dropout_may_be_others(saved: Path) -> None:
    model = recurrent(dropout=0.1, sequence_kernel="step")
    assert named_parts(load_state(saved, model))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"name": "lstm"}, "model XLSTM, here LSTM"),
        ({"items": N + 1}, "items 12, here 13; the weights are others"),
        ({"seed": 1}, "another model: the weights are others"),
        (
            {"embedding_dim": 16, "num_heads": 4},
            r"embedding_dim 8, here 16; num_heads 2, here 4; the weights are others",
        ),
        ({"num_blocks": 1}, r"num_blocks 2, here 1.*1\.cell\.memory is \[2, 4, 4\], here unknown"),
    ],
)
def test_another_model_is_refused_and_what_differs_is_named(saved: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(StateError, match=message) as refused:
        load_state(saved, recurrent(**other))
    assert "model.prefill" in str(refused.value)


def test_another_table_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    model = recurrent(items=5000)
    save_state(model.initial_state(2), tmp_path / "state", model)
    with torch.no_grad():
        model.items.weight.add_(1e-6)
    with pytest.raises(StateError, match="the weights are others"):
        load_state(tmp_path / "state", model)


def test_a_part_of_another_precision_is_refused(tmp_path: Path) -> None:
    model = recurrent("lstm")
    with pytest.raises(ValueError, match=r"no state of the model: 0 is \[1, 8\] bfloat16, here \[1, 8\] float32"):
        save_state(tuple(part.bfloat16() for part in model.initial_state(2)), tmp_path / "state", model)
    assert not (tmp_path / "state").exists()


def test_files_that_are_not_there_or_foreign(saved: Path, tmp_path: Path) -> None:
    model = recurrent()
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("session,item\n1,2\n")
    save_file({"0.cell.memory": torch.zeros(2)}, tmp_path / "foreign")
    save_checkpoint(tmp_path / "checkpoint", model.state_dict(), {"epoch": 3})
    tensors, facts = load_checkpoint(saved)
    save_checkpoint(tmp_path / "newer", tensors, {**facts, "state": 2})
    for name, message in {
        "nothing": "There is no state",
        ".": "There is no state",
        "empty": "damaged, or is no state",
        "text": "damaged, or is no state",
        "foreign": "damaged, or is no state",
        "checkpoint": "is a checkpoint, not a state",
        "newer": "has format 2; this version of seqrec reads 1",
    }.items():
        with pytest.raises(StateError, match=message) as refused:
            load_state(tmp_path / name, model)
        assert isinstance(refused.value, SeqrecError)
        assert refused.value.exit_code == 4


def test_any_damage_is_noticed(saved: Path) -> None:
    whole, model = saved.read_bytes(), recurrent()
    for end in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:end])
        with pytest.raises(StateError, match="damaged"):
            load_state(saved, model)
    for place in range(8, len(whole), 97):
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StateError):
            load_state(saved, model)
    saved.write_bytes(whole)
    assert named_parts(load_state(saved, model))


def test_a_failed_write_leaves_the_old_state(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before, model = saved.read_bytes(), recurrent()
    with pytest.raises(ValueError, match="differ"):
        save_state((torch.zeros(2), torch.zeros(3)), saved, model)
    monkeypatch.setattr("seqrec.training.checkpoint.save_file", full)
    with pytest.raises(DiskError, match="disk is full"):
        save_state(model.initial_state(1), saved, model)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.glob("*sessions*")] == [saved.name]


def test_the_file_is_safetensors_with_json(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        assert any(name.endswith("1.cell.log_scale") for name in file.keys())  # noqa: SIM118 - not a dict
    assert (facts["state"], facts["model"], facts["items"], facts["settings"]["embedding_dim"]) == (1, "XLSTM", N, 8)
