"""What a live service does with the states of recurrent models: count, pick sessions, put them back, shrink, move.

A state is what `initial_state`, `prefill` and `step` give: tensors in tuples, lists and NamedTuples, whose first
dimension is the session. A bank of many sessions is one such state. Nothing here knows a model.

Shapes: B sessions in a state, M of them picked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

#: A nest of tuples, lists and NamedTuples of tensors (B, ...).
State = Any
#: The part that may be bfloat16: a sum of outer products, which is read as an average over the width of a head, and
#: nearly all of a state. Other parts are small, and are logarithms, denominators, counts or times: a logarithm of 15
#: in bfloat16 is wrong by up to 3%, and so is everything that it scales.
MEMORY = "memory"


def named_parts(state: State) -> dict[str, Tensor]:
    """The tensors of a state by their place in it, such as `0.cell.memory`, in order."""
    if isinstance(state, Tensor):
        return {"": state}
    names = getattr(state, "_fields", range(len(state)))
    return {
        f"{name}.{inner}".rstrip("."): part
        for name, child in zip(names, state, strict=True)
        for inner, part in named_parts(child).items()
    }


def with_parts(like: State, parts: Iterable[Tensor]) -> State:
    """A state built as `like` is, out of other tensors in the order of `named_parts`."""
    return _filled(like, iter(parts))


def num_sessions(state: State) -> int:
    """How many sessions a state holds.

    Raises:
        ValueError: its parts disagree.
    """
    sizes = {name: len(part) for name, part in named_parts(state).items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"The first dimension of every part is the session, but they differ: {sizes}.")
    return next(iter(sizes.values()))


def bytes_per_session(state: State) -> int:
    """Bytes that one session takes."""
    return sum(part.shape[1:].numel() * part.itemsize for part in named_parts(state).values())


def select(state: State, sessions: Tensor | Sequence[int]) -> State:
    """A copy of some sessions, in the order asked for.

    Args:
        sessions: (M,) int64 places in the state.
    """
    parts = named_parts(state).values()
    return with_parts(state, (part.index_select(0, _places(sessions, part)) for part in parts))


@torch.inference_mode()
def put(state: State, sessions: Tensor | Sequence[int], part: State) -> None:
    """Write sessions into a state, in place; each part keeps the dtype and the device it has there.

    Args:
        sessions: (M,) int64 places in `state`.
        part: a state of M sessions of the same model.

    Raises:
        ValueError: a session occurs twice, so that one of its two states would be lost, or the two states are built
            differently or of different sizes. Nothing has been written then.
        IndexError: there is no such session; nothing has been written either.
    """
    into, new = named_parts(state), named_parts(part)
    places = torch.as_tensor(sessions, dtype=torch.int64)
    if len(places.unique()) != len(places):
        raise ValueError("A session occurs twice: what happened to it first would be lost. Step its events in turn.")
    expected = {name: (len(places), *tensor.shape[1:]) for name, tensor in into.items()}
    found = {name: tuple(tensor.shape) for name, tensor in new.items()}
    if found != expected:
        raise ValueError(f"The states do not fit: {found} cannot be put where {expected} is needed.")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < num_sessions(state):
        raise IndexError(f"Sessions are 0 to {num_sessions(state) - 1}; asked for {places.tolist()}.")
    for name, tensor in into.items():
        tensor.index_copy_(0, _places(places, tensor), new[name].to(tensor))


def concatenate(states: Sequence[State]) -> State:
    """The sessions of several states of one model, one after another."""
    columns = zip(*(named_parts(state).values() for state in states), strict=True)
    return with_parts(states[0], (torch.cat(column) for column in columns))


def with_memory(state: State, dtype: torch.dtype) -> State:
    """The state with its mLSTM memories in `dtype`; all else (other cells, keys and values of attention) stays.

    The mLSTM steps a bfloat16 memory as it is, in float32 arithmetic; see `MEMORY` for why only this part.

    Raises:
        ValueError: `dtype` is none of bfloat16, float32 and float64.
    """
    if dtype not in (torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"memories can be bfloat16, float32 or float64, not {dtype}")
    parts = named_parts(state).items()
    return with_parts(state, (part.to(dtype) if name.split(".")[-1] == MEMORY else part for name, part in parts))


def to_device(state: State, device: torch.device | str) -> State:
    """The state on another device."""
    return with_parts(state, (part.to(device) for part in named_parts(state).values()))


def _filled(like: State, parts: Iterator[Tensor]) -> State:
    if isinstance(like, Tensor):
        return next(parts)
    children = [_filled(child, parts) for child in like]
    return type(like)(*children) if hasattr(like, "_fields") else type(like)(children)


def _places(sessions: Tensor | Sequence[int], part: Tensor) -> Tensor:
    return torch.as_tensor(sessions, dtype=torch.int64, device=part.device)
