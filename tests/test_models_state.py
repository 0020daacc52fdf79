"""States of recurrent models: counted, picked, put back, shrunk, and what a model does with them then."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.models.build import build_model
from seqrec.models.state import (
    bytes_per_session,
    concatenate,
    named_parts,
    num_sessions,
    put,
    select,
    to_device,
    with_memory,
    with_parts,
)

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4], [9, 8, 7]])
MODELS: list[dict[str, Any]] = [
    {"name": "xlstm"},
    {"name": "xlstm", "stack": "msa", "num_blocks": 3},
    {"name": "xlstm", "position_gate": True},
    {"name": "lstm"},
    {"name": "gru4rec", "num_layers": 2},
    {"name": "lrurec"},
    {"name": "mamba4rec", "num_blocks": 2},
]


class Cell(NamedTuple):
    memory: Tensor
    log_scale: Tensor


class Block(NamedTuple):
    cell: Cell
    times: Tensor


def nest(sessions: int) -> list[Any]:
    """One of everything that a state may be made of; each number says where it is."""
    at = torch.arange(float(sessions))
    memory = at.view(-1, 1, 1) + torch.zeros(sessions, 2, 3)
    return [Block(Cell(memory, at + 0.001), 10**12 + at.long()), (at.view(-1, 1), [at.double()])]


def recurrent(spec: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return build_model({"embedding_dim": 8, **spec}, N).eval()  # type: ignore[attr-defined]


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_parts_have_names_and_go_back_to_their_places() -> None:
    state = nest(4)
    parts = named_parts(state)
    assert list(parts) == ["0.cell.memory", "0.cell.log_scale", "0.times", "1.0", "1.1.0"]
    again = with_parts(state, parts.values())
    assert [type(again), type(again[0]), type(again[0].cell), type(again[1]), type(again[1][1])] == [
        list,
        Block,
        Cell,
        tuple,
        list,
    ]
    assert all(one is other for one, other in zip(named_parts(again).values(), parts.values(), strict=True))


def test_sessions_and_their_bytes_are_counted() -> None:
    assert num_sessions(nest(4)) == 4
    assert bytes_per_session(nest(4)) == bytes_per_session(nest(0)) == 6 * 4 + 4 + 8 + 4 + 8
    with pytest.raises(ValueError, match=r"differ: \{'0': 2, '1': 3\}"):
        num_sessions((torch.zeros(2), torch.zeros(3)))


def test_the_documented_size() -> None:
    model = build_model({"name": "xlstm", "embedding_dim": 256, "num_heads": 2, "num_blocks": 2}, N)
    state = model.initial_state(1)  # type: ignore[attr-defined]
    full, half = bytes_per_session(state), bytes_per_session(with_memory(state, torch.bfloat16))
    assert 256 * 1024 <= full < 300 * 1024
    assert full - half == 128 * 1024


@pytest.mark.parametrize("sessions", [[2, 0], torch.tensor([3]), []])
def test_select_copies_the_sessions_asked_for(sessions: Any) -> None:
    state = nest(4)
    picked = select(state, sessions)
    places = torch.as_tensor(sessions, dtype=torch.int64)
    assert_equal(picked, with_parts(state, (part[places] for part in named_parts(state).values())))
    for part in named_parts(picked).values():
        part.zero_()
    assert_equal(state, nest(4))


def test_put_writes_the_sessions_and_no_other() -> None:
    bank, expected = nest(5), nest(5)
    put(bank, [4, 1], select(nest(9), [7, 8]))
    for part, source in zip(named_parts(expected).values(), named_parts(nest(9)).values(), strict=True):
        part[4], part[1] = source[7], source[8]
    assert_equal(bank, expected)


def test_put_refuses_what_would_lose_something_and_writes_nothing() -> None:
    bank = nest(5)
    with pytest.raises(ValueError, match="twice"):
        put(bank, [1, 1], nest(2))
    for others in (
        nest(3),
        nest(2)[:1],
        (*nest(2), torch.zeros(2)),
        [*nest(2)[:1], (torch.zeros(2, 2), [torch.zeros(0)])],
    ):
        with pytest.raises(ValueError, match="do not fit"):
            put(bank, [1, 2], others)
    for places in ([1, 5], [1, -1]):
        with pytest.raises(IndexError, match="0 to 4"):
            put(bank, places, nest(2))
    assert_equal(bank, nest(5))


def test_put_keeps_the_precision_of_the_bank() -> None:
    bank = with_memory(nest(3), torch.bfloat16)
    put(bank, [0], select(nest(300), [257]))
    assert bank[0].cell.memory.dtype == torch.bfloat16
    assert bank[0].cell.memory[0, 0, 0] == 256
    assert bank[0].cell.log_scale[0] == torch.tensor(257.0) + 0.001


def test_put_goes_into_a_bank_made_in_inference_mode_and_into_any_other() -> None:
    with torch.inference_mode():
        inside = nest(2)
    for bank in (inside, nest(2)):
        put(bank, [1], select(nest(3), [2]))
        with torch.inference_mode():
            put(bank, [0], select(nest(3), [1]))
        assert bank[0].times.tolist() == [10**12 + 1, 10**12 + 2]


def test_only_memories_are_narrowed() -> None:
    half = with_memory(nest(3), torch.bfloat16)
    dtypes = [part.dtype for part in named_parts(half).values()]
    assert dtypes == [torch.bfloat16, torch.float32, torch.int64, torch.float32, torch.float64]
    assert_equal(with_memory(half, torch.float32), nest(3))


def test_concatenate_and_move() -> None:
    assert_equal(concatenate([select(nest(5), [0, 1]), select(nest(5), [2]), select(nest(5), [3, 4])]), nest(5))
    assert {part.device.type for part in named_parts(to_device(nest(2), "meta")).values()} == {"meta"}


@pytest.mark.parametrize("spec", MODELS)
@torch.inference_mode()
def test_a_bank_steps_sessions_as_if_each_were_alone(spec: dict[str, Any]) -> None:
    model = recurrent(spec)
    bank = model.initial_state(10)
    whole = [2, 9, 4, 7]
    put(bank, whole, model.prefill(BATCH)[1])
    histories = {place: row[:length] for place, row, length in zip(whole, *_rows(BATCH), strict=True)}
    for sessions, items in (([9, 0, 4], [1, 2, 3]), ([0, 7], [5, 6]), ([4, 2, 9], [12, 1, 1])):
        h, after = model.step(torch.tensor(items), select(bank, sessions))
        put(bank, sessions, after)
        for session, item in zip(sessions, items, strict=True):
            histories.setdefault(session, []).append(item)
        alone = Batch.of([histories[session] for session in sessions])
        torch.testing.assert_close(h, alone.last(model.encode(alone)), rtol=1e-4, atol=1e-5)
    untouched = select(bank, [1, 3, 5, 6, 8])
    assert_equal(untouched, model.initial_state(5))


def _rows(batch: Batch) -> tuple[list[list[int]], list[int]]:
    return batch.items.tolist(), batch.lengths.tolist()


@pytest.mark.parametrize("spec", MODELS)
@torch.inference_mode()
def test_states_of_parts_of_a_batch_are_those_of_the_batch(spec: dict[str, Any]) -> None:
    model = recurrent(spec)
    _, state = model.prefill(BATCH)
    parts = [model.prefill(Batch.of([row[:length]]))[1] for row, length in zip(*_rows(BATCH), strict=True)]
    _, expected = model.step(torch.tensor([5, 5, 5, 5]), state)
    h, after = model.step(torch.tensor([5, 5, 5, 5]), concatenate(parts))
    torch.testing.assert_close(h, model.step(torch.tensor([5, 5, 5, 5]), state)[0], rtol=1e-4, atol=1e-5)
    for found, part in zip(named_parts(after).values(), named_parts(expected).values(), strict=True):
        torch.testing.assert_close(found, part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", MODELS)
@torch.inference_mode()
def test_weights_in_half_precision_keep_states_of_one_precision(spec: dict[str, Any]) -> None:
    """From nothing, one by one, as from the history at once; and near what the weights say in full."""
    exact, half = recurrent(spec), recurrent(spec).bfloat16()
    found, prefilled = half.prefill(Batch.of([[9, 8, 7]]))
    state = half.initial_state(1)
    for item in (9, 8, 7):
        h, state = half.step(torch.tensor([item]), state)
    for one, other in zip(named_parts(state).values(), named_parts(prefilled).values(), strict=True):
        assert one.dtype == other.dtype
    expected = exact.prefill(Batch.of([[9, 8, 7]]))[0]
    torch.testing.assert_close(h.float(), expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("spec", MODELS)
@torch.inference_mode()
def test_writing_into_a_state_leaves_the_batch_it_came_from_alone(spec: dict[str, Any]) -> None:
    model, batch = recurrent(spec), Batch.of([[1, 2, 3], [4, 5]])
    _, state = model.prefill(batch)
    put(state, [0], model.prefill(Batch.of([[1, 2, 3, 4, 5]]))[1])
    assert batch.lengths.tolist() == [3, 2]


@torch.inference_mode()
def test_a_bfloat16_memory_moves_hidden_states_a_little() -> None:
    model = recurrent({"name": "xlstm", "embedding_dim": 64, "similarity": "dot"})
    full = model.initial_state(3)
    half = with_memory(full, torch.bfloat16)
    moved = []
    for item in (1, 5, 3, 3, 12, 1, 7, 8, 2, 9) * 10:
        expected, full = model.step(torch.full((3,), item), full)
        found, half = model.step(torch.full((3,), item), half)
        moved.append(float((found - expected).norm() / expected.norm()))
    assert 0 < max(moved) < 0.02
    memories = [part.dtype for name, part in named_parts(half).items() if name.endswith("memory")]
    assert memories == [torch.bfloat16] * 2
