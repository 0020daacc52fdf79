"""Mamba4Rec: Liu et al., "Mamba4Rec: Towards Efficient Sequential Recommendation with Selective State Space Models",
2024.

The mixer is the block of Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023. Each of
its channels remembers N numbers; each event says how far its own step goes, where it writes and where it reads, and so
chooses what is kept. The scan is our own (`seqrec.kernels.scan`): nothing has to be built.

As in the authors' code, a model of one block has no residual connection around its mixer.

Shapes: B rows, L positions, D width, E inner width, N numbers that a channel remembers, R rank of steps,
W convolution width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.config import Choice, Range, Switch
from seqrec.kernels.fused import causal_conv_silu, split
from seqrec.kernels.scan import selective_scan, selective_step
from seqrec.models.post_norm import Mixer, PostNormConfig, PostNormStack

Step = Annotated[float, Field(gt=0)]


class Mamba4RecConfig(PostNormConfig):
    """How much a block remembers. Defaults are the authors' own."""

    num_blocks: int = Field(1, ge=1)
    expansion: float = Field(2, gt=0, description="inner width over embedding_dim")
    state_dim: int = Field(32, ge=1, description="numbers that each inner channel remembers")
    conv_width: int = Field(4, ge=1, description="events that the causal convolution before the scan sees")
    initial_step: tuple[Step, Step] = Field(
        (0.693, 0.693), description="steps start between these, evenly by logarithm; Mamba's own are 0.001 and 0.1"
    )

    space: ClassVar[Mapping[str, Choice | Range]] = {
        **PostNormConfig.space,
        "state_dim": Choice(16, 32, 64),
        "initial_step": Choice((0.001, 0.1), (0.01, 1.0), (0.693, 0.693)),
    }
    switches: ClassVar[Mapping[str, Switch]] = {"conv": Switch({"conv_width": 1})}

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.initial_step[0] > self.initial_step[1]:
            raise ValueError(f"initial_step goes from the smaller to the larger one, not {self.initial_step}")
        return self


class Mamba4Rec(PostNormStack):
    """Item vectors, then blocks of a Mamba mixer and a feed-forward layer."""

    Config = Mamba4RecConfig

    def __init__(self, config: Mamba4RecConfig, num_items: int) -> None:
        mixers = [MambaMixer(config) for _ in range(config.num_blocks)]
        super().__init__(config, num_items, mixers, residual=config.num_blocks > 1, eps=1e-12)
        for module in self.blocks.modules():  # what stands with the items starts as it does elsewhere
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class MambaState(NamedTuple):
    """What channels remember (B, E, N), in float32 at least, and the inputs (B, W-1, E) that the convolution still
    needs."""

    cell: Tensor
    recent: Tensor


class MambaMixer(Mixer):
    """In, twice -> convolution -> step, where to write, where to read -> scan, the input past it -> gate -> out."""

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__()
        D, N, self.conv_width = config.embedding_dim, config.state_dim, config.conv_width
        E, self.rank = max(int(D * config.expansion), 1), math.ceil(D / 16)
        self.into = nn.Linear(D, 2 * E, bias=False)
        reach = self.conv_width**-0.5
        self.conv_kernel = nn.Parameter(torch.empty(E, 1, self.conv_width).uniform_(-reach, reach))
        self.conv_bias = nn.Parameter(torch.empty(E).uniform_(-reach, reach))
        self.choose = nn.Linear(E, self.rank + 2 * N, bias=False)
        self.step_up = nn.Linear(self.rank, E, bias=False)
        self.step_bias = nn.Parameter(_initial_step_bias(E, *config.initial_step))
        # 1, 2, ..., N for every channel; flat, since only matrices decay in training, and this one must not
        self.log_rate = nn.Parameter(torch.arange(1.0, N + 1).log().repeat(E))
        self.skip = nn.Parameter(torch.ones(E))
        self.out = nn.Linear(E, D, bias=False)

    def initial_state(self, batch: int) -> MambaState:
        E, like = len(self.skip), self.skip
        wide = torch.promote_types(like.dtype, torch.float32)
        cell = like.new_zeros(batch, *self.rate().shape, dtype=wide)
        return MambaState(cell, like.new_zeros(batch, self.conv_width - 1, E))

    def forward(self, x_BLD: Tensor, lengths_B: Tensor | None = None) -> tuple[Tensor, MambaState]:
        inputs, z = split(self.into(x_BLD), 2, -1)
        x = causal_conv_silu(inputs, self.conv_kernel, self.conv_bias)
        y, cell = selective_scan(x, *self._chosen(x), lengths_B)
        return self._gated(y, x, z), MambaState(cell, self._recent(inputs, lengths_B))

    def step(self, x_BD: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        inputs, z = self.into(x_BD).chunk(2, -1)
        window_BWE = torch.cat([state.recent, inputs[:, None].to(state.recent.dtype)], 1)
        x = F.silu((window_BWE * self.conv_kernel.squeeze(1).mT).sum(1) + self.conv_bias)
        told, step, rate, write, read = (part.to(state.cell.dtype) for part in (x, *self._chosen(x)))
        y, cell = selective_step(told, step, rate, write, read, state.cell)
        return self._gated(y.to(x.dtype), x, z), MambaState(cell, window_BWE[:, 1:])

    def rate(self) -> Tensor:
        """How fast what is remembered fades (E, N), negative."""
        return -self.log_rate.exp().view(len(self.skip), -1)

    def _chosen(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """step (..., E), rate (E, N), write and read (..., N). Steps are float32 at least: 16 bits are too coarse."""
        N = len(self.log_rate) // len(self.skip)
        low_rank, write, read = self.choose(x).split([self.rank, N, N], -1)
        return F.softplus(self.step_up(low_rank) + self.step_bias), self.rate(), write, read

    def _gated(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return self.out((y + self.skip * x) * F.silu(z))

    def _recent(self, inputs_BLE: Tensor, lengths_B: Tensor | None) -> Tensor:
        """The inputs (B, W-1, E) that the convolution needs after the last event of each row."""
        needed, (_, L, E) = self.conv_width - 1, inputs_BLE.shape
        padded = F.pad(inputs_BLE, (0, 0, needed, 0))
        if lengths_B is None:
            return padded[:, L:]
        window_BW = lengths_B[:, None] + torch.arange(needed, device=lengths_B.device)
        return padded.gather(1, window_BW[..., None].expand(-1, -1, E))


def _initial_step_bias(channels: int, low: float, high: float) -> Tensor:
    """(channels,): softplus of it lies between `low` and `high`, evenly by logarithm."""
    step = torch.empty(channels).uniform_(math.log(low), math.log(high)).exp()
    return step + torch.log(-torch.expm1(-step))
