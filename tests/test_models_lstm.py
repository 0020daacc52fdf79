"""LSTM: the recurrence against a cell written down from its equations, and its state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.errors import ConfigError
from seqrec.models.layers import SwiGLU
from seqrec.models.lstm import LSTM, LSTMConfig, lstm_cell

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4]])


def model(**settings: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(LSTMConfig(embedding_dim=6, **settings), N).double().eval()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_hand(x_LD: list[list[float]], weights: list[Tensor]) -> list[list[float]]:
    """One layer over one history, number by number: gates in the order input, forget, candidate, output."""
    of_input, of_hidden, input_bias, hidden_bias = (weight.tolist() for weight in weights)
    D = len(of_hidden) // 4
    h, c, found = [0.0] * D, [0.0] * D, []
    for x in x_LD:
        gates = [
            math.fsum(w * value for w, value in zip(of_input[row], x, strict=True))
            + math.fsum(w * value for w, value in zip(of_hidden[row], h, strict=True))
            + input_bias[row]
            + hidden_bias[row]
            for row in range(4 * D)
        ]
        i, f, g, o = (gates[start : start + D] for start in range(0, 4 * D, D))
        c = [sigmoid(f[d]) * c[d] + sigmoid(i[d]) * math.tanh(g[d]) for d in range(D)]
        h = [sigmoid(o[d]) * math.tanh(c[d]) for d in range(D)]
        found.append(h)
    return found


def test_keys_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean model\.num_layers"):
        LSTMConfig.parse({"n_layers": 2}, "model.")
    with pytest.raises(ConfigError, match=r"model\.num_layers"):
        LSTMConfig.parse({"num_layers": 0}, "model.")


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_recurrence_is_that_of_the_equations(num_layers: int) -> None:
    lstm = model(num_layers=num_layers)
    x_BLD = lstm.items(BATCH.items)
    found = lstm.recurrence(x_BLD)
    for row, length in enumerate(BATCH.lengths.tolist()):
        expected = x_BLD[row, :length].tolist()
        for layer in range(num_layers):
            expected = by_hand(expected, list(lstm.recurrence.weights[4 * layer : 4 * layer + 4]))
        torch.testing.assert_close(found[row, :length], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_traced_it_is_the_same(num_layers: int) -> None:
    lstm = model(num_layers=num_layers)
    x_BLD = lstm.items(BATCH.items)
    y, state = lstm.recurrence._traced(x_BLD[:, :4], lstm.recurrence.initial_state(3))
    expected, after = lstm.recurrence._run(x_BLD[:, :4], lstm.recurrence.initial_state(3))
    torch.testing.assert_close((y, state), (expected, after))
    torch.testing.assert_close(lstm.recurrence._traced(x_BLD[:, 4:], state), lstm.recurrence._run(x_BLD[:, 4:], after))


def test_the_cell_forgets_and_remembers() -> None:
    zero, shut, open_ = torch.zeros(1, 2), torch.full((1, 2), -50.0), torch.full((1, 2), 50.0)
    state = (zero, torch.tensor([[0.3, -0.4]]))
    kept = lstm_cell(torch.cat([shut, open_, zero, open_], 1), torch.zeros(1, 8), state)
    torch.testing.assert_close(kept, (torch.tanh(state[1]), state[1]))
    gone = lstm_cell(torch.cat([shut, shut, zero, open_], 1), torch.zeros(1, 8), state)
    torch.testing.assert_close(gone, (zero, zero))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_state_is_that_after_the_last_event_and_its_rows_do_not_mix(num_layers: int) -> None:
    lstm = model(num_layers=num_layers)
    h, state = lstm.prefill(BATCH)
    torch.testing.assert_close(h, BATCH.last(lstm.encode(BATCH)))
    assert [tuple(part.shape) for part in state] == [(3, num_layers, 6)] * 2
    together, after = lstm.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(lstm.encode(alone))[0])
        torch.testing.assert_close([part[row] for part in after], [part[0] for part in lstm.prefill(alone)[1]])


def test_order_matters() -> None:
    forth, back = (model().scores(Batch.of([history])) for history in ([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(forth, back)


def test_the_recurrence_is_not_run_in_half_precision() -> None:
    """cuDNN would take float16 under any autocast; here it is kept in the precision of the weights."""
    lstm = model().float()
    x_BLD = lstm.items(BATCH.items)
    expected = lstm.recurrence(x_BLD)
    with torch.autocast("cpu", torch.bfloat16):
        found = lstm.recurrence(x_BLD)
        assert torch.isfinite(lstm.scores(BATCH)).all()
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_gated_layer_is_the_product_of_a_gate_and_a_value() -> None:
    layer = SwiGLU(3, 5).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gate, up = layer.gate_up.weight[:5], layer.gate_up.weight[5:]
    expected = ((x @ gate.T) / (1 + torch.exp(-x @ gate.T)) * (x @ up.T)) @ layer.down.weight.T
    torch.testing.assert_close(layer(x), expected)
