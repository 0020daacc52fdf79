"""Problems for the forms of the cross-entropy, and what they make of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqrec.kernels.cross_entropy import linear_cross_entropy, shared_cross_entropy

#: Of candidates: whether their scores have a bias, and whether those of the targets have.
BIASES = [(False, False), (True, True), (True, False), (False, True)]


class Case(NamedTuple):
    """Float64 on the CPU. `leaves`: h, weight, bias; of candidates h, weight, bias, own, own_bias. None: not there."""

    leaves: list[Tensor | None]
    targets: Tensor
    ids: Tensor | None = None
    smoothing: float = 0.0
    cosine: bool = False
    weights: Tensor | None = None  # (T,) of the losses, whose sum is meant then instead of their mean


def weighted(case: Case) -> Case:
    """The same with a loss for every position, which count differently, one of them not at all and some below 0."""
    weights = torch.randn(len(case.targets), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weights[len(weights) // 2] = 0.0
    return case._replace(weights=weights)


def catalogue(
    positions: int, items: int, width: int, *, biased: bool = False, smoothing: float = 0.0, cosine: bool = False
) -> Case:
    """About a third of the positions have no target; the first has one."""
    generator = torch.Generator().manual_seed(positions + items + width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets = torch.randint(items, (positions,), generator=generator)
    targets[1:][torch.rand(positions - 1, generator=generator) < 0.3] = -1
    bias = normal(items) if biased else None
    return Case([normal(positions, width), normal(items, width), bias], targets, None, smoothing, cosine)


def candidates(
    positions: int, items: int, width: int, drawn: int, *, biased: bool = False, own_biased: bool = False
) -> Case:
    """Of few items, so that candidates are often targets, and drawn more than once."""
    case = catalogue(positions, items, width)
    generator = torch.Generator().manual_seed(drawn)
    normal = torch.randn(positions + drawn, width + 1, generator=generator, dtype=torch.float64)
    own, rivals = normal.split([positions, drawn])
    biases = rivals[:, 0] if biased else None, own[:, 0] if own_biased else None
    ids = torch.randint(items, (drawn,), generator=generator)
    return Case([case.leaves[0], rivals[:, 1:], biases[0], own[:, 1:], biases[1]], case.targets, ids)


def run(case: Case, kernel: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Tensor]:
    """The loss, and the gradients of 1.7 times it, in float64 on the CPU. 16 bits are for h and own only."""
    wide = torch.promote_types(dtype, torch.float32)
    types = [dtype, wide, wide, dtype, wide]
    leaves = [
        None if x is None else x.detach().to(device, type_, copy=True)
        for x, type_ in zip(case.leaves, types, strict=False)
    ]
    given = [x.requires_grad_() for x in leaves if x is not None]
    h, weight, bias, own, own_bias = [*leaves, None, None][:5]
    assert h is not None
    assert weight is not None
    targets = case.targets.to(device)
    if own is None or case.ids is None:
        reduction = "mean" if case.weights is None else "none"
        options = {"label_smoothing": case.smoothing, "cosine": case.cosine, "reduction": reduction, "kernel": kernel}
        loss = linear_cross_entropy(h, weight, targets, bias=bias, **options)
        if case.weights is not None:
            assert not loss[targets == -1].any()
            loss = (loss * case.weights.to(loss)).sum()
    else:
        ids = case.ids.to(device)
        loss = shared_cross_entropy(h, own, weight, targets, ids, own_bias=own_bias, bias=bias, kernel=kernel)
    assert loss.dtype == wide
    gradients = torch.autograd.grad(1.7 * loss, given)
    assert [gradient.dtype for gradient in gradients] == [x.dtype for x in given]
    return [part.detach().double().cpu() for part in (loss, *gradients)]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """||x - ref|| / ||ref|| of each."""
    return [float((x - ref).norm() / ref.norm().clamp(min=1e-9)) for x, ref in zip(found, expected, strict=True)]
