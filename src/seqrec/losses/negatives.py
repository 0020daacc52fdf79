"""Items that are drawn to be told apart from the targets, and losses that compare them position by position.

Draws are from torch's global generator of the device; nothing waits for the device.

Shapes: B rows, L positions, T = B L, D width, N items, K negatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from seqrec.config import Choice, Config, Range
from seqrec.data.sequences import PAD, Sequences
from seqrec.errors import ConfigError
from seqrec.losses.pieces import in_pieces
from seqrec.models.base import ItemVectors

#: From scores of targets (R, 1), of negatives (R, K), and which of these count (R, K) to losses (R,).
Rule = Callable[[Tensor, Tensor, Tensor], Tensor]


class NegativesConfig(Config):
    """How many negatives each position has, and which."""

    num_negatives: int = Field(1, ge=1, description="draws per position, with replacement")
    sampling: Literal["uniform", "popularity"] = Field(
        "uniform", description="popularity: by events in training; items that have none there are never negatives"
    )
    power: float = Field(0.75, gt=0, le=1, description="popularity only: counts are raised to it")

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "num_negatives": Choice(1, 4, 16, 64, 256),
        "sampling": Choice("uniform", "popularity"),
    }


class Draws:
    """Items drawn uniformly, or by counts raised to a power, of which `fit` or `take` tells."""

    def __init__(self, power: float | None) -> None:
        self.power = power
        self._before: Tensor | None = None  # (N + 1,) float64, share of the draws that fall on columns below each

    def fit(self, train: Sequences) -> None:
        """Count events in training, where draws go by them."""
        if self.power is not None:
            self.take(torch.from_numpy(train.counts()).double())

    def take(self, counts_N: Tensor) -> None:
        """Draw by these counts (N,) float64."""
        before = F.pad((counts_N ** (self.power or 1.0)).cumsum(0), (1, 0))
        self._before = before / before[-1]

    def columns(self, shape: tuple[int, ...], num_items: int, device: torch.device) -> Tensor:
        """int64 columns 0 to N - 1.

        Raises:
            ConfigError: draws go by counts, and nobody told them.
        """
        if self.power is None:
            return torch.randint(num_items, shape, device=device)
        before = self._known(device)
        # In float64: float32 would give items with a share below 1e-7 too many draws, or none.
        points = torch.rand(shape, dtype=torch.float64, device=device)
        return torch.searchsorted(before, points, right=True) - 1

    def chances(self, columns: Tensor, num_items: int) -> Tensor:
        """The chance of each column in one draw, float64."""
        if self.power is None:
            return torch.full(columns.shape, 1 / num_items, dtype=torch.float64, device=columns.device)
        before = self._known(columns.device)
        return before[columns + 1] - before[columns]

    def _known(self, device: torch.device) -> Tensor:
        if self._before is None:
            raise ConfigError(
                "loss.sampling needs to know how often items occur. Call the loss's fit(train) with the training "
                "histories first, as Trainer does."
            )
        self._before = self._before.to(device, non_blocking=True)  # moves in the first call only
        return self._before


class ComparingLoss(ABC):
    """Mean over positions with a target of what a rule makes of its score and those of negatives of its own.

    A negative that is the position's target does not count there.
    """

    Config: ClassVar[type[NegativesConfig]]
    separable = True

    def __init__(self, config: NegativesConfig) -> None:
        self.config = config
        self._draws = Draws(config.power if config.sampling == "popularity" else None)

    def fit(self, train: Sequences) -> None:
        """Count how often each item occurs, where draws are by popularity."""
        self._draws.fit(train)

    def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: object) -> Tensor:
        """A scalar in float32; `batch` is not looked at. Targets that are PAD do not count.

        Raises:
            ConfigError: draws are by popularity, and `fit` was not called.
        """
        h_TD, targets_T, N = h_BLD.flatten(0, 1), targets_BL.flatten(), item_vectors.num_items
        counted_T, K = targets_T != PAD, self.config.num_negatives
        negatives_TK = self._draws.columns((len(targets_T), K), N, h_TD.device) + 1
        items_TA = torch.cat([targets_T.clamp(min=1)[:, None], negatives_TK], 1)
        rule = self.rule(N)

        def losses(h_RD: Tensor, items_RA: Tensor) -> Tensor:
            own_R1, others_RK = item_vectors.scores_of(h_RD, items_RA).split([1, K], 1)
            return rule(own_R1, others_RK, items_RA[:, 1:] != items_RA[:, :1])

        # What stands where there is no target must not matter, whatever it is.
        h_TD = h_TD.to(torch.promote_types(h_TD.dtype, torch.float32)).masked_fill(~counted_T[:, None], 0)
        per_score = item_vectors.numbers_per_score
        numbers = min(N, (K + 1) * h_TD.shape[1]) if per_score == 1 else (K + 1) * (per_score + h_TD.shape[1])
        losses_T = in_pieces(losses, numbers, h_TD, items_TA)
        return (losses_T.masked_fill(~counted_T, 0).sum() / counted_T.sum().clamp(min=1)).float()

    @abstractmethod
    def rule(self, num_items: int) -> Rule:
        """What is lost."""
