"""GRU4Rec: the recurrence against a cell written down from its equations, and its state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.models.gru4rec import GRU4Rec, GRU4RecConfig, gru_cell

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4]])


def model(**settings: Any) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4Rec(GRU4RecConfig(embedding_dim=6, **settings), N).double().eval()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(x_LD: list[list[float]], weights: list[Tensor]) -> list[list[float]]:
    """One layer over one history, number by number: gates in the order reset, update, candidate."""
    of_input, of_hidden, input_bias, hidden_bias = (weight.tolist() for weight in weights)
    D = len(of_hidden) // 3
    h, found = [0.0] * D, []
    for x in x_LD:
        a = [math.fsum(w * v for w, v in zip(of_input[row], x, strict=True)) + input_bias[row] for row in range(3 * D)]
        b = [
            math.fsum(w * v for w, v in zip(of_hidden[row], h, strict=True)) + hidden_bias[row] for row in range(3 * D)
        ]
        reset = [sigmoid(a[d] + b[d]) for d in range(D)]
        update = [sigmoid(a[D + d] + b[D + d]) for d in range(D)]
        candidate = [math.tanh(a[2 * D + d] + reset[d] * b[2 * D + d]) for d in range(D)]
        h = [(1 - update[d]) * candidate[d] + update[d] * h[d] for d in range(D)]
        found.append(h)
    return found


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_recurrence_is_that_of_the_equations(num_layers: int) -> None:
    gru = model(num_layers=num_layers)
    x_BLD = gru.items(BATCH.items)
    found = gru.recurrence(x_BLD)
    for row, length in enumerate(BATCH.lengths.tolist()):
        expected = x_BLD[row, :length].tolist()
        for layer in range(num_layers):
            expected = by_hand(expected, list(gru.recurrence.weights[4 * layer : 4 * layer + 4]))
        torch.testing.assert_close(found[row, :length], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_traced_it_is_the_same(num_layers: int) -> None:
    gru = model(num_layers=num_layers)
    x_BLD = gru.items(BATCH.items)
    y, state = gru.recurrence._traced(x_BLD[:, :4], gru.recurrence.initial_state(3))
    expected, after = gru.recurrence._run(x_BLD[:, :4], gru.recurrence.initial_state(3))
    torch.testing.assert_close((y, state), (expected, after))
    torch.testing.assert_close(gru.recurrence._traced(x_BLD[:, 4:], state), gru.recurrence._run(x_BLD[:, 4:], after))


def test_an_open_update_gate_keeps_the_state_and_a_shut_reset_gate_hides_it() -> None:
    h, zero, open_, shut = (
        torch.tensor([[0.3, -0.4]]),
        torch.zeros(1, 2),
        torch.full((1, 2), 50.0),
        torch.full((1, 2), -50.0),
    )
    (kept,) = gru_cell(torch.cat([zero, open_, zero], 1), torch.zeros(1, 6), (h,))
    torch.testing.assert_close(kept, h)
    (fresh,) = gru_cell(torch.cat([shut, shut, open_], 1), torch.cat([zero, zero, -2 * open_], 1), (h,))
    torch.testing.assert_close(fresh, torch.ones(1, 2))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_state_is_that_after_the_last_event_and_its_rows_do_not_mix(num_layers: int) -> None:
    gru = model(num_layers=num_layers)
    h, state = gru.prefill(BATCH)
    torch.testing.assert_close(h, BATCH.last(gru.encode(BATCH)))
    assert [tuple(part.shape) for part in state] == [(3, num_layers, 6)]
    together, after = gru.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(gru.encode(alone))[0])
        torch.testing.assert_close(after[0][row], gru.prefill(alone)[1][0][0])


def test_the_empty_history_is_zero() -> None:
    (h,) = model(num_layers=2).initial_state(3)
    assert h.shape == (3, 2, 6)
    assert h.dtype == torch.float64
    assert not h.any()


def test_order_matters() -> None:
    forth, back = (model().scores(Batch.of([history])) for history in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(forth, back)
