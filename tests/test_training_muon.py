"""Muon against torch's, step by step, and its directions against the singular value decomposition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqrec.errors import ConfigError
from seqrec.models.build import build_model
from seqrec.training.config import TrainingConfig
from seqrec.training.muon import Muon, orthogonal
from seqrec.training.optimizer import make_optimizers

SHAPES = ((24, 16), (16, 24), (24, 16), (16, 16), (40, 16))


def matrices(shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def steps(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], count: int = 6) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    for number in range(count):
        for group in optimizer.param_groups:
            rate = 0.02 / (number + 1)
            group["lr"] = torch.tensor(rate) if isinstance(group["lr"], Tensor) else rate
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rate", [0.02, torch.tensor(0.02)], ids=["number", "tensor"])
def test_steps_are_those_of_torch(rate: float | Tensor, dtype: torch.dtype) -> None:
    mine, others = matrices(), matrices()
    found = steps(Muon(mine, rate, 0.3, dtype), mine)
    expected = steps(torch.optim.Muon(others, lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"), others)
    for one, other, start in zip(found, expected, matrices(), strict=True):
        difference, moved = (one - other).norm(), (other - start).norm()
        assert difference < 0.02 * moved  # torch's are in bfloat16, which keeps two or three digits
        assert moved > 0.01


def test_singular_values_come_near_one_and_vectors_stay() -> None:
    x_NSL = torch.stack([matrix.detach() for matrix in matrices(((16, 40), (16, 40), (16, 40)))]).double()
    found = orthogonal(x_NSL)
    assert torch.linalg.svdvals(found).min() > 0.6
    assert torch.linalg.svdvals(found).max() < 1.3
    for one, given in zip(found, x_NSL, strict=True):
        left, _, right = torch.linalg.svd(given, full_matrices=False)
        inner = left.T @ one @ right.T
        torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-9, rtol=0)
        torch.testing.assert_close(orthogonal(given[None])[0], one)


def test_scale_does_not_matter_and_zero_stays_zero() -> None:
    x_NSL = torch.stack([matrix.detach() for matrix in matrices(((16, 40),))])
    torch.testing.assert_close(orthogonal(x_NSL * 1e-3), orthogonal(x_NSL), rtol=1e-4, atol=1e-5)
    assert not orthogonal(torch.zeros(1, 16, 40)).any()


def test_a_matrix_without_gradient_stays() -> None:
    parameters = matrices()
    parameters[1].grad = torch.ones(parameters[1].shape)
    optimizer = Muon(parameters, 0.1, 0.5, torch.float32)
    optimizer.step()
    changed = [not torch.equal(one, other) for one, other in zip(parameters, matrices(), strict=True)]
    assert changed == [False, True, False, False, False]


def named(name: str, **settings: Any) -> tuple[nn.Module, dict[nn.Parameter, str]]:
    model = build_model({"name": name, "embedding_dim": 16, **settings}, 50)
    assert isinstance(model, nn.Module)
    return model, {parameter: name for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["sasrec", "xlstm", "bert4rec", "lstm", "gru4rec"])
def test_matrices_inside_blocks_are_for_muon_and_the_rest_is_not(name: str) -> None:
    model, names = named(name)
    muon, rest = make_optimizers(model, TrainingConfig(optimizer="muon"))
    assert isinstance(muon, Muon)
    assert isinstance(rest, torch.optim.AdamW)
    inner = [names[p] for group in muon.param_groups for p in group["params"]]
    outer = [names[p] for group in rest.param_groups for p in group["params"]]
    assert sorted(inner + outer) == sorted(names.values())
    assert inner
    assert all(name.startswith(("blocks.", "recurrence.rnn.weight")) for name in inner)
    assert {"items.weight"} <= set(outer)
    assert not any("gates" in name or "conv" in name or "norm" in name or "bias" in name for name in inner)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no matrices inside blocks"):
        make_optimizers(named("neural_cf")[0], TrainingConfig(optimizer="muon"))


def test_a_step_asks_the_host_for_nothing() -> None:
    """On the meta device there are no numbers, and reading one is an error; torch's Muon reads its learning rate."""

    def step(make: Any) -> None:
        parameters = [nn.Parameter(matrix.detach().to("meta")) for matrix in matrices()]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        make(parameters, torch.tensor(0.02, device="meta")).step()

    step(lambda parameters, rate: Muon(parameters, rate, 0.1, torch.bfloat16))
    with pytest.raises(RuntimeError, match="meta tensors"):
        step(lambda parameters, rate: _with_rate(torch.optim.Muon(parameters), rate))


def _with_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return optimizer
