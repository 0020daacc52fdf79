"""Weights to start from: those of another run, as far as they fit.

So a model is trained on one task or data set and then on another: an xLSTM that reads both ways and then one that reads
forwards has the same parameters but for `mask`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from seqrec.data.catalogue import Catalogue
from seqrec.errors import ConfigError, DataError
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import load_checkpoint

#: What belongs to a catalogue: row i is item i.
OF_ITEMS = "items."


def start_from(source: Path | str, model: nn.Module, catalogue: Catalogue) -> str:
    """Give `model` the weights of a run or a weights file where name and shape are the same.

    Vectors of items are taken only where the run was trained on the same catalogue; a bare file cannot say, and is
    believed.

    Args:
        source: a run's folder or a file, from the current folder.
        catalogue: of the data that `model` is about to be trained on.

    Returns:
        A line that says how much was taken, and names the rest.

    Raises:
        ConfigError: there is nothing at `source`, or nothing in it fits.
        CheckpointError: the file is damaged, or the run has no weights yet.
    """
    source, folder = Path(source), RunFolder(source)
    if not source.exists():
        raise ConfigError(f"training.start_from: there is no {source}. Name a run's folder or a weights file.")
    theirs, _ = load_checkpoint(folder.best if source.is_dir() else source)
    same_items = not folder.items.exists() or list(Catalogue.load(folder.items).ids) == list(catalogue.ids)
    own = model.state_dict()
    taken, left = {}, []
    for name, value in theirs.items():
        if name not in own:
            left.append(f"{name} (not in this model)")
        elif own[name].shape != value.shape:
            left.append(f"{name} ({list(value.shape)} there, {list(own[name].shape)} here)")
        elif name.startswith(OF_ITEMS) and not same_items:
            left.append(f"{name} (of another catalogue)")
        else:
            taken[name] = value
    if not taken:
        raise ConfigError(f"training.start_from: nothing in {source} fits {type(model).__name__}: {', '.join(left)}.")
    model.load_state_dict(own | taken)
    return _told(source, taken, left, [name for name in own if name not in theirs])


def refuse_other_split(source: Path | str, data: Mapping[str, Any]) -> None:
    """Refuse a run on the same log that was split in another way: what it learned from may be what is asked here.

    Args:
        source: as in `start_from`; of a bare file nothing is known.
        data: facts of the data that are about to be trained on.

    Raises:
        DataError: it is such a run.
    """
    folder = RunFolder(source)
    if not (folder.path / "run.json").exists():
        return
    theirs = folder.facts()["data"]
    if theirs["fingerprint"] == data["fingerprint"] and theirs["test_targets"] != data["test_targets"]:
        raise DataError(
            f"training.start_from: {source} was trained on the same log with other test targets, so it may have "
            f"learned from this test. Train it on these data, or name {folder.best} if you know that it has not."
        )


def _told(source: Path, taken: Collection[str], left: list[str], new: list[str]) -> str:
    line = f"Starts from {source}: {len(taken)} of {len(taken) + len(left)} weights taken"
    line += f"; not taken: {', '.join(left)}" if left else ""
    return line + (f"; new here: {', '.join(new)}" if new else "") + "."
