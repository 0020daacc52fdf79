"""The mLSTM and the sLSTM against the public `xlstm` package, in float64 on the same inputs and weights.

Skipped where `xlstm` is not installed. It divides by max(|n . q|, exp(-m)) + 1e-6; that 1e-6 is set to 0 here, since
the paper has none. It scales k by 1/sqrt(K), we scale q: h is the same, its memory and normaliser are ours / sqrt(K).

Shapes: B rows, H heads, L positions, K key width, V value width, D width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.kernels.mlstm import MLSTMState, initial_state, mlstm, mlstm_prefill, mlstm_step
from seqrec.kernels.slstm import SLSTMState, slstm, slstm_prefill, slstm_step
from seqrec.models.xlstm import XLSTMConfig
from seqrec.models.xlstm.mixers import Rows
from seqrec.models.xlstm.model import Block

pytest.importorskip("xlstm", reason="the oracle, pip install xlstm, is not installed")

from mlstm_kernels.torch import get_mlstm_kernel
from xlstm.blocks.mlstm import backends
from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig
from xlstm.blocks.slstm.src.vanilla import slstm_forward, slstm_pointwise_function_registry
from xlstm.components.conv import CausalConv1d, CausalConv1dConfig
from xlstm.xlstm_large import components
from xlstm.xlstm_large.model import mLSTMBlock, xLSTMLargeConfig

B, H, K = 3, 2, 8
FORMS = ["parallel", "recurrent", "native"]
LENGTHS = [1, 7, 64, 150]


def inputs(length: int, seed: int = 0, spread: float = 2.0) -> tuple[Tensor, ...]:
    """q, k, v, i, f that ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    wide = [torch.randn(B, H, length, K, generator=generator, dtype=torch.float64) for _ in range(3)]
    i, f = (spread * torch.randn(B, H, length, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(x.requires_grad_() for x in (*wide, i, f + 2))


def gradients(h: Tensor, sources: tuple[Tensor, ...], seed: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.autograd.grad(h, sources, torch.randn(h.shape, generator=generator, dtype=h.dtype))


def close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal up to `tolerance` times the largest number expected."""
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).detach().abs().max() <= tolerance * max(1.0, float(theirs.detach().abs().max()))


def public_parallel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    return backends.parallel_stabilized_simple(q, k, v, i[..., None], f[..., None], eps=0.0)


def public_steps(x: tuple[Tensor, ...]) -> list[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """h (B, H, V) and the state, after each event."""
    state = (x[0].new_zeros(B, H, K, K), x[0].new_zeros(B, H, K, 1), x[0].new_zeros(B, H, 1, 1))
    found = []
    for t in range(x[0].shape[2]):
        q, k, v = (part.detach()[:, :, t : t + 1].clone() for part in x[:3])  # it reshapes its arguments in place
        i, f = (part.detach()[:, :, t, None, None] for part in x[3:])
        h, state = backends.recurrent_step_stabilized_simple(*state, q, k, v, i, f, eps=0.0)
        found.append((h[:, :, 0], state))
    return found


def as_ours(state: tuple[Tensor, Tensor, Tensor]) -> MLSTMState:
    return MLSTMState(state[0] * K**0.5, state[1][..., 0] * K**0.5, state[2][..., 0, 0])


def descaled(state: MLSTMState) -> tuple[Tensor, Tensor]:
    """Memory and normaliser without the factor that each kernel is free to choose."""
    scale = state.log_scale.exp()
    return state.memory * scale[..., None, None], state.normaliser * scale[..., None]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", LENGTHS)
def test_hidden_states_and_gradients_are_those_of_xlstm(form: str, length: int) -> None:
    """Every gradient too: autograd differentiates its parallel form, the normaliser included."""
    x = inputs(length)
    expected, found = public_parallel(*x), mlstm(*x, kernel=form)
    close([found], [expected])
    close(gradients(found, x), gradients(expected, x))


@pytest.mark.parametrize("form", FORMS)
def test_wide_open_and_shut_gates_are_those_of_xlstm(form: str) -> None:
    x = inputs(150, seed=2, spread=10.0)
    expected, found = public_parallel(*x), mlstm(*x, kernel=form)
    close([found], [expected])
    close(gradients(found, x), gradients(expected, x))


@pytest.mark.parametrize("form", ["recurrent", "native"])
def test_states_after_each_rows_last_event_are_those_of_xlstm(form: str) -> None:
    x = tuple(part.detach() for part in inputs(70))
    lengths = torch.tensor([70, 1, 33])
    h, state = mlstm_prefill(*x, lengths, kernel=form)
    steps = public_steps(x)
    for row, length in enumerate(lengths.tolist()):
        close([h[row, :, t] for t in range(length)], [steps[t][0][row] for t in range(length)])
        expected = MLSTMState(*(part[row : row + 1] for part in as_ours(steps[length - 1][1])))
        close(descaled(MLSTMState(*(part[row : row + 1] for part in state))), descaled(expected))


def test_steps_are_those_of_xlstm() -> None:
    x = tuple(part.detach() for part in inputs(40))
    state = initial_state(B, H, K, K, x[0])
    for t, (expected, after) in enumerate(public_steps(x)):
        h, state = mlstm_step(*(part[:, :, t] for part in x), state)
        close([h, *descaled(state)], [expected, *descaled(as_ours(after))])


@pytest.mark.parametrize("kernel", ["chunkwise--native_custbw", "parallel--native_custbw"])
def test_gradients_after_a_norm_are_those_of_the_custom_backward_pass(kernel: str) -> None:
    """The backward passes that xlstm-large trains with (here the torch forms of mlstm_kernels) leave out the gradient
    through the normaliser. A norm over each head does not see that factor: behind one the gradients are the same."""
    x = inputs(128, seed=3)
    expected, found = get_mlstm_kernel(kernel)(*x, eps=0.0, chunk_size=32), mlstm(*x, kernel="native")
    close([found], [expected])
    normed = (F.rms_norm(h, (K,), eps=0.0) for h in (found, expected))
    close(gradients(next(normed), x), gradients(next(normed), x))
    with pytest.raises(AssertionError):
        close(gradients(mlstm(*x, kernel="native"), x), gradients(get_mlstm_kernel(kernel)(*x, eps=0.0), x), 1e-3)


def test_a_layer_of_xlstm_is_the_same_with_our_cell_in_it() -> None:
    """Convolution, block-diagonal projections, gates, norm, skip and output gate of the first paper's layer: hidden
    states and the gradient of every weight stay when our cell takes the place of its own."""
    torch.manual_seed(0)
    layer = mLSTMLayer(mLSTMLayerConfig(embedding_dim=16, num_heads=H, context_length=50)).double()
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.3)
    layer.mlstm_cell.backend_fn = partial(backends.parallel_stabilized_simple, eps=0.0)
    x, weights = torch.randn(B, 50, 16, dtype=torch.float64), tuple(layer.parameters())
    expected = layer(x)
    layer.mlstm_cell.backend_fn = _our_cell
    found = layer(x)
    close([found], [expected])
    close(gradients(found, weights), gradients(expected, weights))


def _our_cell(*, queries: Tensor, keys: Tensor, values: Tensor, **gates: Tensor) -> Tensor:
    return mlstm(queries, keys, values, gates["igate_preact"][..., 0], gates["fgate_preact"][..., 0])


class Convolved(nn.Module):
    """A linear layer of xlstm behind xlstm's causal convolution, as our mixer computes queries, keys and gates."""

    def __init__(self, convolution: CausalConv1d, linear: nn.Linear) -> None:
        super().__init__()
        self.convolution, self.linear = convolution, linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.silu(self.convolution(x)))


def public_block(config: XLSTMConfig) -> mLSTMBlock:
    """A block of xLSTM-7B. Of its two norms over heads it takes the one without a mean, as we do."""
    D, heads = config.embedding_dim, config.num_heads
    public = xLSTMLargeConfig(
        embedding_dim=D,
        num_heads=heads,
        num_blocks=1,
        vocab_size=2,
        qk_dim_factor=1.0,
        ffn_proj_factor=config.feedforward_factor,
        ffn_round_up_to_multiple_of=1,
        norm_reduction_force_float32=False,
        eps=0.0,
        chunkwise_kernel="chunkwise--native_autograd",
        chunk_size=10,
        sequence_kernel="native_sequence__native",
        step_kernel="native",
        return_last_states=True,
        autocast_kernel_dtype="float32",
    )
    block = mLSTMBlock(public)
    block.mlstm_layer.multihead_norm = components.MultiHeadRMSNorm(heads, D // heads, force_float32_reductions=False)
    return block.double()


def copy_weights(ours: Block, theirs: mLSTMBlock) -> None:
    """Where we have a convolution, it goes before what it feeds in the public block."""
    mixer, layer, feed = ours.mixer, theirs.mlstm_layer, theirs.ffn
    split = [
        (mixer.query_key.weight, layer.q.weight, layer.k.weight),
        (mixer.value_output.weight, layer.v.weight, layer.ogate_preact.weight),
        (mixer.gates.weight, layer.igate_preact.weight, layer.fgate_preact.weight),
        (mixer.gates.bias, layer.igate_preact.bias, layer.fgate_preact.bias),
        (ours.feedforward.gate_up.weight, feed.proj_up_gate.weight, feed.proj_up.weight),
        (ours.feedforward.down.weight, feed.proj_down.weight),
        (ours.mixer_norm.weight, theirs.norm_mlstm.weight),
        (ours.feedforward_norm.weight, theirs.norm_ffn.weight),
        (mixer.head_norm, layer.multihead_norm.weight),
        (mixer.out.weight, layer.out_proj.weight),
    ]
    convolution = None
    if mixer.conv_kernel is not None:
        convolution = CausalConv1d(CausalConv1dConfig(feature_dim=mixer.width)).double()
        split += [(mixer.conv_kernel, convolution.conv.weight), (mixer.conv_bias, convolution.conv.bias)]
    with torch.no_grad():
        for weight, *parts in split:
            for part, value in zip(parts, weight.chunk(len(parts)), strict=True):
                part.copy_(value)
    if convolution is not None:
        for name in ("q", "k", "igate_preact", "fgate_preact"):
            setattr(layer, name, Convolved(convolution, getattr(layer, name)))


@pytest.mark.parametrize("conv_width", [0, 4])
def test_a_block_is_that_of_xlstm_on_copied_weights(conv_width: int) -> None:
    """Norms, mixer and feed-forward layer; whole rows and what is read before a state is left."""
    torch.manual_seed(0)
    config = XLSTMConfig(embedding_dim=32, num_heads=2, num_blocks=1, dropout=0.0, conv_width=conv_width)
    ours, theirs = Block(config, "m").double(), public_block(config)
    for weight in ours.parameters():
        nn.init.normal_(weight, std=0.3)
    copy_weights(ours, theirs)
    x = torch.randn(B, 50, 32, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([50, 3, 20])
    rows = Rows(lengths)
    expected, found = theirs(x)[0], sum(ours(x, None, rows))
    close([found], [expected])
    close(gradients(found, (x,)), gradients(expected, (x,)))
    prefilled, state = ours.prefill(x, rows)
    for row, length in enumerate(lengths.tolist()):
        close([prefilled[row, :length]], [expected[row, :length]])
    stepped, _ = ours.step(x[1:2, 3], _row(state, 1), None)
    close([stepped], [expected[1:2, 3]])


def _row(state: Any, row: int) -> Any:
    """One row of a nest of named tuples."""
    return state[row : row + 1] if isinstance(state, Tensor) else type(state)(*(_row(part, row) for part in state))


def slstm_inputs(length: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """x (B, L, 4, H, K) and r (4, H, K, K) that ask for gradients."""
    generator = torch.Generator().manual_seed(0)
    x = spread * torch.randn(B, length, 4, H, K, generator=generator, dtype=torch.float64)
    r = torch.randn(4, H, K, K, generator=generator, dtype=torch.float64) * K**-0.5
    return x.requires_grad_(), r.requires_grad_()


def public_slstm(x: Tensor, r: Tensor, state: SLSTMState | None = None) -> tuple[Tensor, SLSTMState]:
    """Its plain torch backend: h (B, L, H, K) and the state after each position (B, L, H, K)."""
    width = H * K
    before = x.new_zeros(4, B, width) if state is None else torch.stack(state).reshape(4, B, width)
    events = x.transpose(0, 1).reshape(x.shape[1], B, 4 * width)
    recurrent = r.permute(1, 0, 3, 2).reshape(H, 4 * K, K)
    pointwise = slstm_pointwise_function_registry["slstm"]
    after, _, _ = slstm_forward(events, before, recurrent, x.new_zeros(4 * width), pointwise)
    parts = after[:, 1:].transpose(1, 2).reshape(4, B, x.shape[1], H, K)
    return parts[0], SLSTMState(*parts)


def descaled_slstm(state: SLSTMState) -> tuple[Tensor, ...]:
    scale = state.log_scale.exp()
    return state.hidden, state.cell * scale, state.normaliser * scale


@pytest.mark.parametrize("form", ["recurrent", "native"])
@pytest.mark.parametrize(("length", "spread"), [(1, 2.0), (7, 2.0), (64, 2.0), (64, 10.0)])
def test_hidden_states_and_gradients_of_the_slstm_are_those_of_xlstm(form: str, length: int, spread: float) -> None:
    x, r = slstm_inputs(length, spread)
    (expected, _), found = public_slstm(x, r), slstm(x, r, kernel=form)
    close([found], [expected])
    close(gradients(found, (x, r)), gradients(expected, (x, r)))


@pytest.mark.parametrize("form", ["recurrent", "native"])
def test_states_of_the_slstm_are_those_of_xlstm(form: str) -> None:
    x, r = (part.detach() for part in slstm_inputs(40))
    lengths = torch.tensor([40, 1, 13])
    _, state = slstm_prefill(x, r, lengths, kernel=form)
    _, after = public_slstm(x, r)
    last = SLSTMState(*(part[torch.arange(B), lengths - 1] for part in after))
    close(descaled_slstm(state), descaled_slstm(last))
    h, stepped = slstm_step(x[:, 5], r, state)
    expected, once_more = public_slstm(x[:, 5:6], r, last)
    close([h], [expected[:, 0]])
    close(descaled_slstm(stepped), descaled_slstm(SLSTMState(*(part[:, 0] for part in once_more))))
