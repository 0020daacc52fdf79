"""Several models as one: their scores are brought to a common scale and summed with weights.

`zscore`: how many standard deviations of its row a score lies above the row's mean. `reciprocal_rank`: 1 / (60 + rank)
(Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
SIGIR 2009). Both are taken over the whole catalogue.

Shapes: B rows, N items, M items asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Sequences
from seqrec.errors import ConfigError
from seqrec.kernels.ranking import require_finite
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model, parse_model

#: Added to every rank: how little the very first places stand out (the constant of the paper).
RANK_OFFSET = 60


class EnsembleConfig(Config):
    """Who is in it and how much each one counts."""

    members: tuple[dict[str, Any], ...] = Field(
        ({"name": "popularity"}, {"name": "markov"}), min_length=1, description="each a model: its name and settings"
    )
    fusion: Literal["zscore", "reciprocal_rank"] = Field("zscore", description="the scale that scores are brought to")
    weights: tuple[float, ...] | None = Field(None, description="of the members, from 0; none for equal ones")

    @field_validator("members")
    @classmethod
    def _known_members(cls, members: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        return tuple(_whole(member, f"members.{number}") for number, member in enumerate(members))

    @model_validator(mode="after")
    def _fitting_weights(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.members)} members need as many weights, not {len(self.weights)}")
        if min(self.weights) < 0 or max(self.weights) == 0:
            raise ValueError(f"weights are not negative, and one is above 0; not {list(self.weights)}")
        return self


def _whole(member: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The member with its defaults written out: a run keeps what it was, whatever the defaults become."""
    if not isinstance(member.get("name"), str):
        raise ValueError(f"{where} is a model, such as {{name: markov, window: 3}}, not {dict(member)}")
    try:
        return {"name": member["name"]} | parse_model(member)[1].model_dump(mode="json")
    except ConfigError as error:
        raise ValueError(f"{where}: {error}") from None


class Ensemble(Scorer):
    """A weighted sum of what its members say. Members that are trained by gradient come from runs, trained."""

    Config = EnsembleConfig

    def __init__(self, config: EnsembleConfig, num_items: int) -> None:
        self.config: EnsembleConfig = config
        self.num_items = num_items
        self.members = [build_model(member, num_items) for member in config.members]
        self.uses_times = any(member.uses_times for member in self.members)
        self.uses_values = any(member.uses_values for member in self.members)

    @property
    def weights(self) -> tuple[float, ...]:
        """One for each member."""
        return self.config.weights or (1 / len(self.members),) * len(self.members)

    def fit(self, train: Sequences) -> Self:
        for member in self._untrained():
            member.fit(train)
        return self

    def fit_data(self, data: PreparedData) -> Self:
        for member in self._untrained():
            member.fit_data(data)
        return self

    def _untrained(self) -> list[Scorer]:
        """All members, none of which needs gradients."""
        for spec, member in zip(self.config.members, self.members, strict=True):
            if isinstance(member, SequenceModel):
                raise ConfigError(
                    f"model.members: {spec['name']} has to be trained first. Train it, and combine the finished runs: "
                    "seqrec ensemble RUN RUN --out DIR."
                )
        return self.members

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        """Weighted sums in float64: rounded, small differences between unlikely items would become ties."""
        said = ((weight, member) for weight, member in zip(self.weights, self.members, strict=True) if weight)
        total_BN = fuse((weight, comparable(member, batch, self.config.fusion)) for weight, member in said)
        return total_BN if items is None else total_BN[:, items - 1]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"members.{number}.{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for number, member in enumerate(self.members):
            prefix = f"members.{number}."
            member.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def comparable(member: Scorer, batch: Batch, fusion: str) -> Tensor:
    """What one member says about the whole catalogue (B, N), in float64 on the common scale.

    Raises:
        ScoreError: a score is NaN or infinite.
    """
    if isinstance(member, nn.Module):
        _settle(member, batch.items.device)
    if isinstance(member, SequenceModel):
        batch = batch.tail(member.config.max_length)
    scores_BN = member.scores(batch)
    require_finite(scores_BN, type(member).__name__)
    return FUSIONS[fusion](scores_BN.double())


def _settle(member: nn.Module, device: torch.device) -> None:
    """Members are no submodules, so that dropout can never be on: put each where the batch is, in evaluation mode."""
    member.eval()
    if any(tensor.device != device for tensor in chain(member.parameters(), member.buffers())):
        with torch.inference_mode(False):  # weights moved inside it could never be trained again
            member.to(device)


def fuse(said: Iterable[tuple[float, Tensor]]) -> Tensor:
    """The sum of weight times scores, in the order given; the tensors (B, N) are kept as they are."""
    total_BN: Tensor | None = None
    for weight, scores_BN in said:
        part_BN = scores_BN * weight  # a fused multiply-add would round some columns otherwise than others
        total_BN = part_BN if total_BN is None else total_BN.add_(part_BN)
    assert total_BN is not None
    return total_BN


def z_scores(scores_BN: Tensor) -> Tensor:
    """(x - mean) / standard deviation of each row; a row in which all scores are equal gives zeros."""
    constant_B1 = scores_BN.amax(1, keepdim=True) == scores_BN.amin(1, keepdim=True)
    scaled_BN = scores_BN / scores_BN.abs().amax(1, keepdim=True)  # squares of the largest doubles would overflow
    deviation_B1, mean_B1 = torch.std_mean(scaled_BN, dim=1, correction=0, keepdim=True)
    return ((scaled_BN - mean_B1) / deviation_B1).masked_fill_(constant_B1, 0.0)


def reciprocal_ranks(scores_BN: Tensor) -> Tensor:
    """1 / (60 + rank): the best score has rank 1, equal scores share the rank of the first of them."""
    ascending_BN = scores_BN.sort(dim=1).values
    not_better_BN = torch.searchsorted(ascending_BN, scores_BN, right=True)
    return 1.0 / (RANK_OFFSET + 1 + scores_BN.shape[1] - not_better_BN).double()


FUSIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"zscore": z_scores, "reciprocal_rank": reciprocal_ranks}
