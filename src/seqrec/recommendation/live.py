"""Live sessions on disk: the state of a recurrent model, kept over a restart.

The file is a safetensors file, as checkpoints are: written whole or not at all, with a checksum, and without pickle.
It knows which model and which weights the state belongs to; to any other model its numbers would mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from seqrec.errors import CheckpointError, SeqrecError
from seqrec.models.base import Recurrent, SequenceModelConfig
from seqrec.models.state import MEMORY, State, named_parts, num_sessions, with_parts
from seqrec.training.checkpoint import load_checkpoint, save_checkpoint

FORMAT = 1
#: So many values of each weight, evenly spread, go into the fingerprint: enough to notice any training, in
#: milliseconds whatever the size of the catalogue.
LOOKED_AT = 1000
AGAIN = "Read the histories again with model.prefill, or restore the file from a copy."


class StateError(SeqrecError):
    """A saved state is missing, damaged, or of another model."""

    exit_code = 4


class RecurrentModel(Recurrent, Protocol):
    """A recurrent `SequenceModel`."""

    config: SequenceModelConfig
    num_items: int

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name."""


def save_state(state: State, path: str | Path, model: RecurrentModel) -> None:
    """Write the state of any number of sessions; what was at `path` stays until the new file is whole.

    Args:
        model: what the state belongs to.

    Raises:
        DiskError: the disk is full or the folder may not be written.
        ValueError: it is no state of this model, or its parts disagree on the number of sessions.
    """
    num_sessions(state)
    if wrong := [*_other_shapes(named_parts(state), model.initial_state(1))]:
        raise ValueError(f"This is no state of the model: {'; '.join(wrong)}.")
    save_checkpoint(Path(path), named_parts(state), {"state": FORMAT, **_identity(model)})


def load_state(path: str | Path, model: RecurrentModel) -> State:
    """The state in `path`, on the device that `model` is on, in the precision in which it was saved.

    Raises:
        StateError: there is no such file, it is damaged, no state, of a newer version, or of another model; the
            message says what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise StateError(f"There is no state {path}. Read the histories with model.prefill and save_state.")
    try:
        tensors, facts = load_checkpoint(path)
    except CheckpointError as error:
        raise StateError(f"{path} is damaged, or is no state ({error.__cause__}). {AGAIN}") from error
    if "state" not in facts:
        raise StateError(f"{path} is a checkpoint, not a state: those are written by save_state.")
    if facts["state"] != FORMAT:
        raise StateError(f"{path} has format {facts['state']}; this version of seqrec reads {FORMAT}. {AGAIN}")
    like = model.initial_state(1)
    differences = [*_other_identity(facts, _identity(model)), *_other_shapes(tensors, like)]
    if differences:
        raise StateError(f"{path} belongs to another model: {'; '.join(differences)}. {AGAIN}")
    return with_parts(like, (tensors[name].to(part.device) for name, part in named_parts(like).items()))


def _identity(model: RecurrentModel) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "items": model.num_items,
        "settings": model.config.model_dump(mode="json"),
        "weights": _fingerprint(model),
    }


@torch.inference_mode()
def _fingerprint(model: RecurrentModel) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(weight.shape)}\n".encode())
        some = weight.flatten()[:: max(1, weight.numel() // LOOKED_AT)]
        digest.update(some.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def _other_identity(saved: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """What makes a state useless, with the settings behind it. Settings alone are no reason: with the same weights,
    kernels may be chosen otherwise, and dropout does nothing."""
    if all(saved[key] == here[key] for key in ("model", "items", "weights")):
        return
    for key in ("model", "items"):
        if saved[key] != here[key]:
            yield f"{key} {saved[key]}, here {here[key]}"
    if saved["model"] == here["model"]:
        for key in sorted({*saved["settings"], *here["settings"]}):
            if saved["settings"].get(key) != here["settings"].get(key):
                yield f"{key} {saved['settings'].get(key)}, here {here['settings'].get(key)}"
        if saved["weights"] != here["weights"]:
            yield "the weights are others"


def _other_shapes(tensors: dict[str, Tensor], like: State) -> Iterator[str]:
    """Where a state is built otherwise than the model's own; only memories may be of another precision."""
    saved = {name: _looks(name, part) for name, part in tensors.items()}
    here = {name: _looks(name, part) for name, part in named_parts(like).items()}
    for name in sorted({*saved, *here}):
        if saved.get(name) != here.get(name):
            yield f"{name} is {saved.get(name, 'missing')}, here {here.get(name, 'unknown')}"


def _looks(name: str, part: Tensor) -> str:
    kind = "" if name.split(".")[-1] == MEMORY else f" {str(part.dtype).removeprefix('torch.')}"
    return f"{list(part.shape[1:])}{kind}"
