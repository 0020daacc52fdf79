"""xLSTM: its configuration, that its forms agree, what it shows of itself, and the size of its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.errors import ConfigError
from seqrec.models.state import bytes_per_session
from seqrec.models.xlstm import XLSTM, XLSTMConfig
from seqrec.models.xlstm.mixers import Rows

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


@pytest.mark.parametrize(
    ("key", "name", "meant"),
    [
        ("chunkwise_kernel", "chunkwise--triton_xl_chunk", "triton"),
        ("chunkwise_kernel", "chunkwise--native_custbw", "native"),
        ("chunkwise_kernel", "chunkwise--native", "native"),
        ("chunkwise_kernel", "parallel--native_autograd", "parallel"),
        ("chunkwise_kernel", "parallel--triton_limit_headdim", "triton"),
        ("chunkwise_kernel", "chunkwise", "native"),
        ("chunkwise_kernel", "nxai", "nxai"),
        ("sequence_kernel", "native_sequence__triton", "triton"),
        ("sequence_kernel", "native_sequence__torch", "native"),
        ("sequence_kernel", "native_sequence__native", "native"),
        ("sequence_kernel", "step", "recurrent"),
        ("step_kernel", "step", "native"),
        ("step_kernel", "torch", "native"),
        ("step_kernel", "triton", "triton"),
    ],
)
def test_other_names_of_kernels_are_understood(key: str, name: str, meant: str) -> None:
    config = XLSTMConfig.parse({key: name}, "model.")
    assert getattr(config, key) == meant
    assert XLSTMConfig.parse(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("chunkwise_kernel", "chunkwise--nativity"),
        ("sequence_kernel", "parallel"),
        ("sequence_kernel", "parallel--native_autograd"),
        ("step_kernel", "parallel"),
    ],
)
def test_a_kernel_that_cannot_run_there_is_refused(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.{key}: .*'auto'.*'nxai'"):
        XLSTMConfig.parse({key: name}, "model.")


@pytest.mark.parametrize(
    ("stack", "num_blocks", "kinds"),
    [
        ("m", 3, "mmm"),
        ("ms", 5, "msmsm"),
        ("mam", 2, "ma"),
        ("7:1", 9, "mmmmmmmsm"),
        ("1:0", 2, "mm"),
        (7 * 60 + 1, 8, "mmmmmmms"),  # how YAML reads 7:1
    ],
)
def test_a_stack_is_repeated_until_there_are_enough_blocks(stack: Any, num_blocks: int, kinds: str) -> None:
    assert XLSTMConfig.parse({"stack": stack, "num_blocks": num_blocks}).kinds == kinds


@pytest.mark.parametrize("stack", ["", "mx", "M", "7:1:1", "0:0", "m:s"])
def test_a_stack_of_unknown_blocks_is_refused(stack: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.stack: name blocks by m .*\(got '{stack}'\)"):
        XLSTMConfig.parse({"stack": stack}, "model.")


@pytest.mark.parametrize("stack", [3, 7])
def test_a_number_is_no_stack(stack: int) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.stack: .*\(got {stack}\)"):
        XLSTMConfig.parse({"stack": stack}, "model.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stack": "7:1", "num_blocks": 7}, "num_blocks 7 cuts stack mmmmmmms off before its s block"),
        ({"gate_cap": 0}, r"^model\.gate_cap: "),
        ({"conv_width": -1}, r"^model\.conv_width: "),
        ({"forget_bias": [1]}, r"^model\.forget_bias"),
        ({"output_gate": "tanh"}, r"^model\.output_gate: .*'silu'"),
        (
            {"projection": "pre", "projection_factor": 1.1, "embedding_dim": 16},
            "embedding_dim \\* projection_factor is 17, not a positive multiple of num_heads 2",
        ),
        (
            {"time_gate": True, "stack": "a"},
            "time_gate and position_gate are for mLSTM and sLSTM blocks, and stack names none",
        ),
        ({"num_heads": 4, "key_value_heads": 3}, "num_heads 4 is not a multiple of key_value_heads 3"),
        ({"shared_conv": True, "stack": "a"}, "shared_conv is for mLSTM and sLSTM blocks"),
        ({"shared_conv": True, "projection": "pre", "stack": "ms"}, "shared_conv needs cells of one width"),
        ({"bidirectional": True, "num_blocks": 1}, "the second one reads backwards"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        XLSTMConfig.parse(settings, "model.")


@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_training_kernels_agree(num_heads: int) -> None:
    expected = model(num_heads=num_heads, chunkwise_kernel="parallel").encode(BATCH)
    for kernel in ("native", "recurrent"):
        found = model(num_heads=num_heads, chunkwise_kernel=kernel).encode(BATCH)
        torch.testing.assert_close(found[BATCH.valid], expected[BATCH.valid], rtol=1e-9, atol=1e-9)


def test_gradients_of_training_kernels_agree() -> None:
    gradients = []
    for kernel in ("recurrent", "native"):
        fresh = model(chunkwise_kernel=kernel)
        fresh.scores(BATCH).logsumexp(1).sum().backward()
        gradients.append({name: value.grad for name, value in fresh.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-7, atol=1e-9)


def test_reading_a_history_at_once_or_by_steps_leaves_the_same_behind() -> None:
    whole, by_steps = (model(sequence_kernel=kernel) for kernel in ("native", "recurrent"))
    (h, state), (h_steps, state_steps) = whole.prefill(BATCH), by_steps.prefill(BATCH)
    torch.testing.assert_close(h, whole.encode(BATCH)[torch.arange(3), BATCH.lengths - 1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(h_steps, h, rtol=1e-9, atol=1e-9)
    for item in (5, 6, 7):  # what was left behind is the same when it continues the same
        h, state = whole.step(torch.full((3,), item), state)
        h_steps, state_steps = by_steps.step(torch.full((3,), item), state_steps)
        torch.testing.assert_close(h_steps, h, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["parallel", "native"])
def test_whole_and_step_by_step_agree_within_a_hundred_thousandth_in_float32(kernel: str) -> None:
    xlstm, state, hidden = model(chunkwise_kernel=kernel).float(), None, []
    for items_B in BATCH.items[2:].T:
        h_BD, state = xlstm.step(items_B, state or xlstm.initial_state(1))
        hidden.append(h_BD)
    torch.testing.assert_close(torch.stack(hidden, 1), xlstm.encode(BATCH)[2:], rtol=1e-5, atol=1e-5)


def test_rows_of_a_state_do_not_mix() -> None:
    xlstm = model()
    _, state = xlstm.prefill(BATCH)
    together, _ = xlstm.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(xlstm.encode(alone))[0], rtol=1e-9, atol=1e-9)


def test_the_state_does_not_grow_with_events() -> None:
    xlstm = model(stack="msa", num_blocks=3, max_length=16)
    state = xlstm.initial_state(1)
    sizes = {bytes_per_session(xlstm.prefill(Batch.of([[7] * length]))[1]) for length in (2, 16, 130)}
    for event in range(40):
        sizes.add(bytes_per_session(state))
        h, state = xlstm.step(torch.tensor([event % N + 1]), state)
        assert torch.isfinite(h).all()
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
    block, rows = xlstm._blocks()[0], Rows.forwards(BATCH, xlstm.config)
    x_BLD = block.mixer_norm(xlstm.items(BATCH.items))
    into = block.mixer.project(x_BLD, rows)
    mixed = block.mixer._mix((found["attention.0"] @ into.v).transpose(1, 2), into.gate)
    torch.testing.assert_close(mixed, block.mixer(x_BLD, rows), rtol=1e-6, atol=1e-6)


def test_constant_gates_are_not_moved_by_what_comes_in() -> None:
    xlstm = model(gates="constant", stack="ms")
    shown = xlstm.inspect(BATCH)
    assert shown["input_gate.0"].std(-1).max() == 0
    frozen = [name for name, parameter in xlstm.named_parameters() if not parameter.requires_grad]
    assert frozen == ["blocks.0.mixer.gates.weight", "blocks.1.mixer.input_forget.weight"]


def test_a_shared_convolution_is_one() -> None:
    own, shared = model(num_blocks=3), model(num_blocks=3, shared_conv=True)
    count = [sum(parameter.numel() for parameter in xlstm.parameters()) for xlstm in (own, shared)]
    convolution = own._blocks()[0].mixer
    assert count[0] - count[1] == 2 * (convolution.conv_kernel.numel() + convolution.conv_bias.numel())
    again = model(num_blocks=3, shared_conv=True)
    again.load_state_dict(own.state_dict() | shared.state_dict())
    torch.testing.assert_close(again.scores(BATCH), shared.scores(BATCH))


def test_heads_that_share_keys_and_values_are_those_of_repeated_projections() -> None:
    shared, plain = model(num_heads=4, key_value_heads=2), model(num_heads=4)
    state = shared.state_dict()
    for name in [name for name in state if name.endswith(("query_key.weight", "value_output.weight"))]:
        width = plain.config.embedding_dim
        whole = state[name]
        first, grouped, rest = (
            (whole[:width], whole[width:], whole[:0])
            if "query_key" in name
            else (whole[:0], whole[: len(whole) - width], whole[len(whole) - width :])
        )
        repeated = grouped.unflatten(0, (2, -1)).repeat_interleave(2, 0).flatten(0, 1)
        state[name] = torch.cat([first, repeated, rest])
    plain.load_state_dict(state)
    torch.testing.assert_close(plain.scores(BATCH), shared.scores(BATCH))
