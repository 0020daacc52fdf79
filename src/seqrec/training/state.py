"""All that training knows, as one dictionary of tensors, the same whatever the number of ranks: rank 0 puts sharded
tables together and keeps every rank's random state, so a checkpoint loads on any number of ranks.

Every rank calls these functions; files are written and read by rank 0 alone, and the others need not see its disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seqrec.distributed import Ranks
from seqrec.errors import CheckpointError
from seqrec.models.sharded import ShardedItemTable, sharded_table
from seqrec.training.checkpoint import load_checkpoint, save_checkpoint
from seqrec.training.step import Step

#: What optimisers keep of every entry of a parameter.
MOMENTS = ("exp_avg", "exp_avg_sq", "square_avg", "momentum_buffer")


def save_weights(path: Path, model: nn.Module, facts: Mapping[str, Any], ranks: Ranks) -> None:
    """Write a model's weights and JSON facts.

    Raises:
        DiskError: the disk of rank 0 is full or may not be written.
    """
    _save(path, _collected(model.state_dict(), sharded_table(model), {"items.weight", "items.bias"}), facts, ranks)


def fetch_weights(path: Path, model: nn.Module, ranks: Ranks) -> None:
    """Put what `save_weights` wrote into `model`.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    tensors, _ = _load(path, ranks)
    own = _handed_out(tensors, sharded_table(model), {"items.weight", "items.bias"}, ranks)
    try:
        model.load_state_dict(own)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this model: {error}") from error


def save_training(path: Path, step: Step, facts: Mapping[str, Any], ranks: Ranks) -> None:
    """Write weights, their average, the optimisers' state, every rank's random state, and JSON facts.

    Raises:
        DiskError: the disk of rank 0 is full or may not be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in step.model.state_dict().items()}
    if step.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in step.average.model.state_dict().items()}
    for first, optimizer in _numbered(step):
        for number, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{first + number}.{name}": value for name, value in values.items()}
    tensors = _collected(tensors, sharded_table(step.model), _cut(step))
    for rank, states in enumerate(ranks.each(_random_states(step))):
        tensors |= {_random_name(kind, rank): state for kind, state in states.items()}
    _save(path, tensors, facts, ranks)


def fetch_training(path: Path, step: Step, ranks: Ranks, seed: int) -> dict[str, Any]:
    """Put what `save_training` wrote into `step` and the random generators, and return the facts.

    A rank that was not there when the checkpoint was written draws from `seed`.

    Raises:
        CheckpointError: the file is damaged or belongs to another model.
    """
    tensors, facts = _load(path, ranks)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _handed_out(tensors, sharded_table(step.model), _cut(step), ranks).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    step.model.load_state_dict(parts["model"])
    if step.average is not None:
        step.average.model.load_state_dict(parts["average"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts.get("optimizer", {}).items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = tensor
    for first, optimizer in _numbered(step):
        groups = optimizer.state_dict()["param_groups"]
        own = {number - first: moments[number] for number in moments if 0 <= number - first < _parameters(optimizer)}
        optimizer.load_state_dict({"state": own, "param_groups": groups})
    _set_random_states(step, parts["random"], ranks, seed)
    return facts


def _numbered(step: Step) -> Iterator[tuple[int, Optimizer]]:
    """Each optimiser, and the number of its first parameter: numbers run on from one to the next."""
    first = 0
    for optimizer in step.optimizers:
        yield first, optimizer
        first += _parameters(optimizer)


def _parameters(optimizer: Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _cut(step: Step) -> set[str]:
    """Names of tensors whose rows lie on several ranks, where the item table is sharded."""
    table = sharded_table(step.model)
    if table is None:
        return set()
    groups = [group for optimizer in step.optimizers for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    held = [number for number, parameter in enumerate(parameters) if parameter in set(table.parameters())]
    moments = {f"optimizer.{number}.{name}" for number in held for name in MOMENTS}
    return moments | {f"{part}.items.{name}" for part in ("model", "average") for name in ("weight", "bias")}


def _collected(tensors: Mapping[str, Tensor], table: ShardedItemTable | None, cut: set[str]) -> dict[str, Tensor]:
    """With whole tables on rank 0."""
    if table is None:
        return dict(tensors)
    return {name: table.whole(tensor) if name in cut else tensor for name, tensor in tensors.items()}


def _handed_out(
    tensors: Mapping[str, Tensor], table: ShardedItemTable | None, cut: set[str], ranks: Ranks
) -> dict[str, Tensor]:
    """Rank 0's tensors on all ranks; of tables that are cut, each rank's rows."""
    found = {}
    for name, shape, dtype in ranks.of_main([(name, list(x.shape), x.dtype) for name, x in tensors.items()]):
        is_cut = table is not None and name in cut
        here = tensors[name] if ranks.is_main else torch.empty([0, *shape[1:]] if is_cut else shape, dtype=dtype)
        found[name] = table.part(here) if table is not None and is_cut else ranks.broadcast(here)
    return found


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], ranks: Ranks) -> None:
    with ranks.together():
        if ranks.is_main:
            save_checkpoint(path, tensors, facts)


def _load(path: Path, ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on rank 0, and facts on all."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    with ranks.together():
        if ranks.is_main:
            tensors, facts = load_checkpoint(path)
    return tensors, ranks.of_main(facts)


def _random_name(kind: str, rank: int) -> str:
    return f"random.{kind}" + (f".{rank}" if rank else "")


def _random_states(step: Step) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    device = next(step.model.parameters()).device
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_states(step: Step, states: Mapping[str, Tensor], ranks: Ranks, seed: int) -> None:
    kept = {kind: states.get(_random_name(kind, ranks.rank).partition(".")[2]) for kind in ("cpu", "cuda")}
    if kept["cpu"] is None:
        torch.manual_seed(seed)
        return
    torch.set_rng_state(kept["cpu"])
    device = next(step.model.parameters()).device
    if device.type == "cuda" and kept["cuda"] is not None:
        torch.cuda.set_rng_state(kept["cuda"], device)
