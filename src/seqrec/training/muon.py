"""Muon (Jordan et al., 2024): a step goes along the orthogonal matrix that is nearest to momentum.

Every direction of a matrix is then moved by the same amount, also those that few examples ask for. Steps are scaled as
in Liu et al., 2025 ("Muon is scalable for LLM training"), to the size that AdamW's usually have: both take the same
learning rate. `torch.optim.Muon` asks the host for the learning rate, and so cannot be recorded as a CUDA graph; this
one reads it where it lies, and works on all matrices of one shape together.

Shapes: N matrices of a shape, S short side, L long side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: Share of the last direction that is kept.
MOMENTUM = 0.95
#: A polynomial in X X^T that takes singular values from 0 to 1 to about 1 in five rounds.
COEFFICIENTS, ROUNDS = (3.4445, -4.7750, 2.0315), 5
#: The root mean square of AdamW's steps over its learning rate.
ADAMW_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """For matrices; everything else needs another optimiser.

    Args:
        lr: a number, or a tensor on the device of the parameters.
        dtype: what the products are computed in; bfloat16 is enough, and fast on a GPU.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float | Tensor, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            by_sides: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_sides.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
            for (_, long), parameters in by_sides.items():
                size = group["lr"] * (ADAMW_SIZE * long**0.5)
                steps = self._directions(parameters)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_mul_(steps, size)
                torch._foreach_sub_(parameters, steps)

    def _directions(self, parameters: list[Tensor]) -> list[Tensor]:
        """Of matrices whose sides are the same but for their order."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        tall = [matrix.shape[0] > matrix.shape[1] for matrix in ahead]
        flat_NSL = torch.stack([m.T if turn else m for m, turn in zip(ahead, tall, strict=True)]).to(self._dtype)
        found = orthogonal(flat_NSL).to(ahead[0].dtype).unbind()
        return [matrix.T if turn else matrix for matrix, turn in zip(found, tall, strict=True)]


def orthogonal(x_NSL: Tensor) -> Tensor:
    """Each matrix with its singular values brought near 1 (.7 to 1.2), by a Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    x_NSL = x_NSL / x_NSL.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram_NSS = x_NSL @ x_NSL.mT
        x_NSL = torch.baddbmm(x_NSL, torch.baddbmm(gram_NSS, gram_NSS, gram_NSS, beta=b, alpha=c), x_NSL, beta=a)
    return x_NSL
