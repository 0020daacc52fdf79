"""Mamba4Rec: the whole model against its formulas written down position by position, how it starts, and its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError
from seqrec.models.mamba4rec import Mamba4Rec, Mamba4RecConfig

N = 12
BATCH = Batch.of([[3], [1, 2, 12, 2, 5, 5, 7], [4, 4]])


def model(**settings: Any) -> Mamba4Rec:
    """With all weights moved, so that none hides behind a zero."""
    torch.manual_seed(0)
    settings = {"embedding_dim": 6, "similarity": "dot", "state_dim": 3, **settings}
    made = Mamba4Rec(Mamba4RecConfig(**settings), N).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return made


def norm(x: Tensor, layer: Any) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-12).sqrt() * layer.weight + layer.bias


def mixer_by_hand(x_LD: list[Tensor], mixer: Any) -> list[Tensor]:
    """Equations 1-3 and algorithm 2 of Gu and Dao for one history, position by position and channel by channel."""
    E, rank = len(mixer.skip), mixer.rank
    A = -torch.exp(mixer.log_rate).reshape(E, -1)
    inputs = [(mixer.into.weight @ x).split(E) for x in x_LD]
    h, found = torch.zeros_like(A), []
    for t, (_, z) in enumerate(inputs):
        summed = mixer.conv_bias
        for back in range(mixer.conv_width):
            if t - back >= 0:
                summed = summed + mixer.conv_kernel[:, 0, mixer.conv_width - 1 - back] * inputs[t - back][0]
        u = summed * torch.sigmoid(summed)
        chosen = mixer.choose.weight @ u
        delta = torch.log(1 + torch.exp(mixer.step_up.weight @ chosen[:rank] + mixer.step_bias))
        B, C = chosen[rank:].chunk(2)
        y = torch.empty_like(u)
        h = torch.stack([torch.exp(delta[e] * A[e]) * h[e] + delta[e] * B * u[e] for e in range(E)])
        for e in range(E):
            y[e] = (C * h[e]).sum() + mixer.skip[e] * u[e]
        found.append(mixer.out.weight @ (y * z * torch.sigmoid(z)))
    return found


def by_hand(mamba: Mamba4Rec, history: list[int]) -> Tensor:
    """Hidden states (L, D) after each event."""
    x_LD = [norm(mamba.items.weight[item] * mamba.items.scale, mamba.norm) for item in history]
    blocks: Any = mamba.blocks
    for block in blocks:
        y_LD = mixer_by_hand(x_LD, block.mixer)
        if len(mamba.blocks) > 1:
            y_LD = [x + y for x, y in zip(x_LD, y_LD, strict=True)]
        x_LD = [norm(y, block.mixer_norm) for y in y_LD]
        fed = [block.narrow(F.gelu(block.widen(x))) for x in x_LD]
        x_LD = [norm(x + y, block.feedforward_norm) for x, y in zip(x_LD, fed, strict=True)]
    return torch.stack(x_LD)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"num_blocks": 2, "conv_width": 1}, {"expansion": 1.5}], ids=str)
def test_the_model_is_that_of_the_formulas(settings: dict[str, Any]) -> None:
    mamba = model(**settings)
    h = mamba.encode(BATCH)
    for row, length in enumerate(BATCH.lengths.tolist()):
        torch.testing.assert_close(h[row, :length], by_hand(mamba, BATCH.items[row, :length].tolist()))


def test_it_starts_as_the_public_code_does() -> None:
    torch.manual_seed(0)
    mixer: Any = Mamba4Rec(Mamba4RecConfig(), N).blocks[0].mixer
    torch.testing.assert_close(F.softplus(mixer.step_bias), torch.full((256,), 0.693))
    torch.testing.assert_close(mixer.rate(), -torch.arange(1.0, 33).expand(256, 32))
    assert float(mixer.into.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert mixer.skip.eq(1).all()


def test_steps_can_start_as_those_of_mamba() -> None:
    torch.manual_seed(0)
    mixer: Any = Mamba4Rec(Mamba4RecConfig(initial_step=(0.001, 0.1)), N).blocks[0].mixer
    step = F.softplus(mixer.step_bias.detach())
    assert 0.001 - 1e-6 < float(step.min()) < 0.0015
    assert 0.07 < float(step.max()) < 0.1 + 1e-6
    assert float(step.median()) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("conv_width", [1, 4])
def test_the_state_is_that_after_the_last_event_and_its_rows_do_not_mix(conv_width: int) -> None:
    mamba = model(num_blocks=2, conv_width=conv_width)
    h, state = mamba.prefill(BATCH)
    torch.testing.assert_close(h, BATCH.last(mamba.encode(BATCH)))
    shapes = [tuple(part.shape) for block in state for part in block]
    assert shapes == [(3, 12, 3), (3, conv_width - 1, 12)] * 2
    together, after = mamba.step(torch.tensor([4, 5, 6]), state)
    for row, (history, item) in enumerate(zip(BATCH.items.tolist(), (4, 5, 6), strict=True)):
        alone = Batch.of([[*history[: int(BATCH.lengths[row])], item]])
        torch.testing.assert_close(together[row], alone.last(mamba.encode(alone))[0])
        for part, expected in zip(after[1], mamba.prefill(alone)[1][1], strict=True):
            torch.testing.assert_close(part[row], expected[0])


def test_an_event_hidden_in_training_has_a_gradient_that_stays_small() -> None:
    torch.manual_seed(0)
    mamba = Mamba4Rec(Mamba4RecConfig(embedding_dim=8), N)
    mamba.encode(Batch(torch.tensor([[PAD, 3, PAD]]), torch.tensor([3]))).pow(3).sum().backward()
    sizes = [float(part.grad.norm()) for part in mamba.parameters() if part.grad is not None]
    assert 0 < max(sizes) < 1e8
    assert not mamba.items.weight.grad[PAD].any()  # type: ignore[index]


def test_steps_that_do_not_move_or_are_out_of_order_are_refused() -> None:
    for wrong in ((0.1, 0.01), (0.0, 0.1)):
        with pytest.raises(ConfigError, match="initial_step"):
            Mamba4RecConfig.parse({"initial_step": wrong}, "model.")
