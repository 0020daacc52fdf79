"""xLSTM: its configuration, that its kernels agree, what it shows of itself, and the size of its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.errors import ConfigError
from seqrec.models.xlstm import XLSTM, BlockState, XLSTMConfig

N = 30
#: Rows of one event, of a few, and of several chunks of the kernel.
BATCH = Batch.of([[3], [1, 2, 30, 2], [1 + position * 7 % N for position in range(150)]])


def model(seed: int = 0, **settings: Any) -> XLSTM:
    """In float64, so that forms of the same arithmetic agree closely."""
    torch.manual_seed(seed)
    return XLSTM(XLSTMConfig(embedding_dim=8, **settings), N).double().eval()


@pytest.mark.parametrize(("typed", "meant"), [("embeding_dim", "embedding_dim"), ("n_heads", "num_heads")])
def test_an_unknown_key_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Unknown key model\.{typed}\. Did you mean model\.{meant}\?"):
        XLSTMConfig.parse({typed: 4}, "model.")


@pytest.mark.parametrize("key", ["vocab_size", "return_last_states", "mode"])
def test_keys_of_other_tools_are_explained(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}: .*leave this key out\.$"):
        XLSTMConfig.parse({key: 1}, "model.")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="embedding_dim 10 is not a multiple of num_heads 4"):
        XLSTMConfig.parse({"embedding_dim": 10, "num_heads": 4})


@pytest.mark.parametrize("key", ["chunkwise_kernel", "sequence_kernel", "step_kernel"])
def test_an_unknown_kernel_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}: .*'auto'.*got 'fast'"):
        XLSTMConfig.parse({key: "fast"}, "model.")


@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_training_kernels_agree(num_heads: int) -> None:
    expected = model(num_heads=num_heads, chunkwise_kernel="parallel").encode(BATCH)
    for kernel in ("chunkwise", "auto"):
        found = model(num_heads=num_heads, chunkwise_kernel=kernel).encode(BATCH)
        torch.testing.assert_close(found[BATCH.valid], expected[BATCH.valid], rtol=1e-9, atol=1e-9)


def test_gradients_of_training_kernels_agree() -> None:
    gradients = []
    for kernel in ("parallel", "chunkwise"):
        fresh = model(chunkwise_kernel=kernel)
        fresh.scores(BATCH).logsumexp(1).sum().backward()
        gradients.append({name: value.grad for name, value in fresh.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-9)


def test_reading_a_history_at_once_or_by_steps_leaves_the_same_behind() -> None:
    whole, by_steps = (model(sequence_kernel=kernel) for kernel in ("chunkwise", "step"))
    (h, state), (h_steps, state_steps) = whole.prefill(BATCH), by_steps.prefill(BATCH)
    torch.testing.assert_close(h, whole.encode(BATCH)[torch.arange(3), BATCH.lengths - 1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(h_steps, h, rtol=1e-9, atol=1e-9)
    for item in (5, 6, 7):  # what was left behind is the same when it continues the same
        h, state = whole.step(torch.full((3,), item), state)
        h_steps, state_steps = by_steps.step(torch.full((3,), item), state_steps)
        torch.testing.assert_close(h_steps, h, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["parallel", "chunkwise"])
def test_whole_and_step_by_step_agree_within_a_hundred_thousandth_in_float32(kernel: str) -> None:
    xlstm = model(chunkwise_kernel=kernel, sequence_kernel="step").float()
    torch.testing.assert_close(xlstm.prefill(BATCH)[0], BATCH.last(xlstm.encode(BATCH)), rtol=1e-5, atol=1e-5)


def test_rows_of_a_state_do_not_mix() -> None:
    xlstm = model()
    _, state = xlstm.prefill(BATCH)
    together, _ = xlstm.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(xlstm.encode(alone))[0], rtol=1e-9, atol=1e-9)


def test_the_state_does_not_grow_with_events() -> None:
    xlstm = model()

    def size(states: list[BlockState]) -> int:
        return sum(part.numel() for state in states for part in (*state.cell, state.recent))

    state = xlstm.initial_state(1)
    sizes = {size(state), size(xlstm.prefill(Batch.of([[1, 2]]))[1]), size(xlstm.prefill(Batch.of([[7] * 130]))[1])}
    for event in range(40):
        h, state = xlstm.step(torch.tensor([event % N + 1]), state)
        assert torch.isfinite(h).all()
        sizes.add(size(state))
    assert len(sizes) == 1


def test_a_long_life_stays_finite_in_float32() -> None:
    xlstm = model().float()
    with torch.no_grad():
        for block in xlstm._blocks():
            block.mixer.gates.bias.fill_(100.0)  # capped: the input gate adds exp(15) each event, nothing is forgotten
    state = xlstm.initial_state(1)
    for event in range(300):
        h, state = xlstm.step(torch.tensor([event % N + 1]), state)
    assert torch.isfinite(h).all()


def test_inspect_shows_what_each_position_draws_from_which() -> None:
    found = model(num_blocks=2, num_heads=4).inspect(BATCH)
    L = BATCH.items.shape[1]
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        f"{what}.{block}": (3, 4, L, L) if what == "attention" else (3, 4, L)
        for what in ("attention", "input_gate", "forget_gate")
        for block in (0, 1)
    }
    for block in (0, 1):
        assert not found[f"attention.{block}"].triu(1).any()
        assert bool(((found[f"forget_gate.{block}"] > 0) & (found[f"forget_gate.{block}"] < 1)).all())


def test_inspected_attention_is_what_the_mixer_applies() -> None:
    xlstm = model()
    found = xlstm.inspect(BATCH)
    block = xlstm._blocks()[0]
    x_BLD = block.mixer_norm(xlstm.items(BATCH.items))
    _, _, v, _, _, gate = block.mixer.project(x_BLD)
    mixed = block.mixer._mix((found["attention.0"] @ v).transpose(1, 2), gate)
    torch.testing.assert_close(mixed, block.mixer(x_BLD), rtol=1e-6, atol=1e-6)
