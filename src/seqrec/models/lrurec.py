"""LRURec: Yue et al., "Linear Recurrent Units for Sequential Recommendation", WSDM 2024.

The unit is that of Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023: numbers that
turn and fade at rates of their own, h_t = lambda h_{t-1} + gamma (W x_t + w) in the complex plane, of which a linear
layer reads the real part. No step of it is nonlinear, so all positions are computed at once (`seqrec.kernels.scan`);
what is nonlinear stands in the feed-forward layer between two units.

Shapes: B rows, L positions, D width, H complex numbers that a unit remembers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.config import Choice, Range
from seqrec.kernels.scan import linear_recurrence
from seqrec.models.post_norm import Mixer, PostNormConfig, PostNormStack

Radius = Annotated[float, Field(gt=0, lt=1)]


class LRURecConfig(PostNormConfig):
    """How much a unit remembers, and how long at the start."""

    expansion: float = Field(2, gt=0, description="complex numbers that a unit remembers, over embedding_dim")
    ring: tuple[Radius, Radius] = Field(
        (0.8, 0.99), description="what of a number is left one event later, at the start: evenly by area in between"
    )

    space: ClassVar[Mapping[str, Choice | Range]] = {
        **PostNormConfig.space,
        "ring": Choice((0.0001, 0.99), (0.5, 0.99), (0.8, 0.99), (0.9, 0.999)),
    }

    @model_validator(mode="after")
    def _ring_has_an_inside(self) -> Self:
        if self.ring[0] > self.ring[1]:
            raise ValueError(f"ring goes from the smaller to the larger radius, not {self.ring}")
        return self


class LRURec(PostNormStack):
    """Item vectors, then blocks of a linear recurrent unit and a feed-forward layer."""

    Config = LRURecConfig

    def __init__(self, config: LRURecConfig, num_items: int) -> None:
        units = [LinearRecurrentUnit(config) for _ in range(config.num_blocks)]
        super().__init__(config, num_items, units, residual=True, eps=1e-5)
        for module in self.blocks.modules():  # what stands with the items starts as it does elsewhere
            if isinstance(module, nn.Linear):
                for parameter in module.parameters():
                    nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)


class LRUState(NamedTuple):
    """Real and imaginary parts (B, H, 2), in float32 at least."""

    hidden: Tensor


class LinearRecurrentUnit(Mixer):
    """In -> gamma -> recurrence -> real part of out. Complex numbers are pairs of real ones wherever a linear layer
    reads or writes them, so that its product is a real one, and of 16 bits where autocast is on."""

    def __init__(self, config: LRURecConfig) -> None:
        super().__init__()
        D, H, (inner, outer) = config.embedding_dim, max(int(config.embedding_dim * config.expansion), 1), config.ring
        self.into = nn.Linear(D, 2 * H)
        self.out = nn.Linear(2 * H, D)
        squared_radius_H = inner**2 + torch.rand(H) * (outer**2 - inner**2)
        # 1 - rand is never 0, whose logarithm is infinite
        self.log_angle = nn.Parameter((2 * math.pi * (1 - torch.rand(H))).log())
        self.log_fading = nn.Parameter((-0.5 * squared_radius_H.log()).log())
        self.log_gain = nn.Parameter(0.5 * (1 - squared_radius_H).log())  # so that h is as large as what comes in

    def initial_state(self, batch: int) -> LRUState:
        return LRUState(self.log_gain.new_zeros(batch, len(self.log_gain), 2, dtype=self._wide))

    def forward(self, x_BLD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, LRUState]:
        h_BLH = linear_recurrence(self.factors(), torch.view_as_complex(self._taken_in(x_BLD)))
        h_BLH2 = torch.view_as_real(h_BLH)
        y_BLD = self.out(h_BLH2.flatten(-2).to(x_BLD.dtype))
        if lengths_B is None:
            return y_BLD, LRUState(h_BLH2[:, -1])
        return y_BLD, LRUState(h_BLH2[torch.arange(len(lengths_B), device=lengths_B.device), lengths_B - 1])

    def step(self, x_BD: Tensor, state: LRUState) -> tuple[Tensor, LRUState]:
        before_BH = torch.view_as_complex(state.hidden.contiguous())
        h_BH = torch.addcmul(torch.view_as_complex(self._taken_in(x_BD)), self.factors(), before_BH)
        h_BH2 = torch.view_as_real(h_BH)
        return self.out(h_BH2.flatten(-2).to(x_BD.dtype)), LRUState(h_BH2)

    def factors(self) -> Tensor:
        """lambda (H,), complex, inside the unit circle."""
        return torch.polar(torch.exp(-self.log_fading.to(self._wide).exp()), self.log_angle.to(self._wide).exp())

    def _taken_in(self, x: Tensor) -> Tensor:
        """What an event adds (..., H, 2), in the precision of the recurrence."""
        pairs = self.into(x).unflatten(-1, (-1, 2)).to(self._wide)
        return pairs * self.log_gain.to(self._wide).exp()[:, None]

    @property
    def _wide(self) -> torch.dtype:
        """The precision of the recurrence, also where weights have 16 bits: there are no complex numbers of fewer."""
        return torch.promote_types(self.log_gain.dtype, torch.float32)
