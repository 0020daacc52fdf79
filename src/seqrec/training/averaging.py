"""The weights of the best epochs, kept beside the best ones, and their mean.

Late in training weights circle around a point that is better than any of them; their mean is near it (Izmailov et al.,
2018, "Averaging weights leads to wider optima and better generalization"). Soups of several runs are the same mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from seqrec.distributed import Ranks
from seqrec.run_folder import RunFolder
from seqrec.training.state import fetch_weights


def weights_of(folder: RunFolder, epoch: int | str) -> Path:
    """Where the weights of a kept epoch are."""
    return folder.path / f"best-{epoch}.safetensors"


def with_epoch(kept: Mapping[str, float], epoch: int, value: float, most: int) -> dict[str, float]:
    """The `most` best epochs and their metric, best first, when one more is evaluated; of equal ones the earlier."""
    found = [*kept.items(), (str(epoch), value)]
    return dict(sorted(found, key=lambda entry: -entry[1])[:most])


def forget(folder: RunFolder, but: Iterable[str] = ()) -> None:
    """Remove the weights of kept epochs, all or all but some."""
    wanted = {weights_of(folder, epoch) for epoch in but}
    for path in folder.path.glob("best-*.safetensors"):
        if path not in wanted:
            path.unlink()


def put_mean(paths: Sequence[Path], model: nn.Module, ranks: Ranks) -> None:
    """Give `model` the mean, summed in float64, of the weights in these files; what is no float, as the last has it.

    Raises:
        CheckpointError: a file is damaged or belongs to another model.
    """
    total: dict[str, Tensor] = {}
    for path in paths:
        fetch_weights(path, model, ranks)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                total[name] = total.get(name, 0) + value.detach().double()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in total:
                value.copy_(total[name] / len(paths))
