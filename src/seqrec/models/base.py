"""What a model is: a `Scorer` scores every item after a history; a `SequenceModel` learns to, by gradient.

Shapes: B rows, L positions, D width, N items (column j is item j + 1), M items asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from seqrec.config import Config as AnyConfig
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Sequences


class Scorer(ABC):
    """All that evaluation, recommendation and serving need. Construct with (config, num_items)."""

    Config: ClassVar[type[AnyConfig]]
    config: AnyConfig
    num_items: int
    #: Whether another seed gives another model.
    stochastic: ClassVar[bool] = False
    #: Whether it looks at the times of events; only then do batches bring them. Some models say so one by one.
    uses_times: bool = False

    def fit(self, train: Sequences) -> Self:
        """Learn from training histories; models trained by gradient have nothing to do here.

        What is drawn here comes from torch's global generator.
        """
        return self

    def fit_data(self, data: PreparedData) -> Self:
        """Learn from a prepared data set: for models that look at items' features too. By default `fit(data.train)`."""
        return self.fit(data.train)

    @abstractmethod
    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        """How likely each item comes next.

        Args:
            batch: histories.
            items: (M,) int64 items to score; all N when None.

        Returns:
            (B, N) or (B, M) float32 or float64, finite. Only the order within a row has a meaning
            unless the model says more. A fresh tensor: who asked may write into it.
        """

    @abstractmethod
    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything `fit` or training has learned, as tensors by name."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> Any:
        """Take over what `state_dict` gave."""


class SequenceModelConfig(AnyConfig):
    """What every sequence model has."""

    embedding_dim: int = Field(128, ge=1, description="width of item vectors and hidden states")
    max_length: int = Field(200, ge=1, description="how many of the last events the model reads")
    dropout: float = Field(0.4, ge=0, lt=1)
    similarity: Literal["dot", "cosine"] = "cosine"
    temperature: float = Field(0.07, gt=0, description="cosine scores are divided by it")
    item_bias: bool = Field(True, description="a learned offset per item, dot scores only")

    explained: ClassVar[Mapping[str, str]] = {
        "vocab_size": "the catalogue size is taken from the data; leave this key out.",
        "return_last_states": "training uses every position and inference the last one, always; leave this key out.",
        "mode": "training and inference are switched by the trainer and the recommender; leave this key out.",
    }


class ItemVectors(NamedTuple):
    """What hidden states are compared with: scores = h @ weight.T + bias.

    Attributes:
        weight: (N, D), row j belongs to item j + 1.
        bias: (N,), or None.
        cosine: whether only the directions of the rows count: they are divided by their lengths first.
    """

    weight: Tensor
    bias: Tensor | None
    cosine: bool = False

    def score(self, h: Tensor) -> Tensor:
        """Scores (..., N) of hidden states (..., D), in their dtype."""
        weight, bias, _ = self.plain()
        return nn.functional.linear(h, weight.to(h.dtype), None if bias is None else bias.to(h.dtype))

    def plain(self) -> ItemVectors:
        """The same with rows divided by their lengths where that is meant: for who scores again and again."""
        return ItemVectors(nn.functional.normalize(self.weight, dim=-1), self.bias) if self.cosine else self

    def of(self, items: Tensor | None) -> ItemVectors:
        """The vectors of `items` (M,) only, or all when None."""
        if items is None:
            return self
        return self._replace(weight=self.weight[items - 1], bias=None if self.bias is None else self.bias[items - 1])

    def between(self, first: int, last: int) -> ItemVectors:
        """The vectors of rows `first` to `last - 1` only, a view."""
        return self._replace(weight=self.weight[first:last], bias=None if self.bias is None else self.bias[first:last])


class SequenceModel(nn.Module, Scorer):
    """A model trained by gradient that turns each prefix of a history into one vector."""

    stochastic = True
    #: Whether a position sees later events too. Such a model learns to fill gaps, which `training_batch` makes; only
    #: `query` says what comes next, for `encode` adds no gap at the end. Ask a model, not its class: with some it is
    #: a setting.
    bidirectional: bool = False
    Config: ClassVar[type[SequenceModelConfig]]
    config: SequenceModelConfig

    def __init_subclass__(cls, **settings: Any) -> None:
        """A class with an `encode` of its own has no use for the shortcut of the class above it."""
        super().__init_subclass__(**settings)
        if "encode" in vars(cls) and "last_state" not in vars(cls):
            cls.last_state = SequenceModel.last_state  # type: ignore[method-assign]

    def __init__(self, config: SequenceModelConfig, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """Hidden states (B, L, D), ready to be compared with `item_vectors`; padding does not change them."""

    @abstractmethod
    def item_vectors(self) -> ItemVectors:
        """What hidden states are compared with."""

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Inputs and the target (B, L) of every position, PAD where there is none: here the next item.

        What is drawn here comes from torch's global generator, whose state checkpoints keep.
        """
        times_BL = None if batch.times is None else batch.times[:, :-1]
        inputs = Batch(batch.items[:, :-1], (batch.lengths - 1).clamp(min=1), batch.users, times_BL)
        return inputs, batch.items[:, 1:]

    def last_state(self, batch: Batch) -> Tensor:
        """What `encode` gives after the last event of each row (B, D). A model may come there with less work."""
        return batch.last(self.encode(batch))

    def query(self, batch: Batch) -> Tensor:
        """States (B, D) that `item_vectors` are compared with to say what comes next, in float32 at least."""
        h_BD = self.last_state(batch)
        return h_BD.to(torch.promote_types(h_BD.dtype, torch.float32))

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        """Scores after the last event of each row, in float32 whatever the model computes in."""
        return self.item_vectors().of(items).score(self.query(batch))

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """Where the model looks: attention or effective weights (B, H, L, L) per block, gates, by name."""
        return {}


@runtime_checkable
class Recurrent(Protocol):
    """A sequence model that can take one event at a time, with work independent of the history's length.

    A state is a nest of tuples and named tuples of tensors whose first dimension is the row. A model that is
    `bidirectional` has no such state, whatever methods its class has.
    """

    def initial_state(self, batch: int) -> Any:
        """The state before any event, for `batch` rows."""

    def prefill(self, batch: Batch) -> tuple[Tensor, Any]:
        """Hidden states after each row's last event (B, D), and the state there."""

    def step(self, items_B: Tensor, state: Any, times_B: Tensor | None = None) -> tuple[Tensor, Any]:
        """Hidden states (B, D) after one more event in every row, and the new state.

        Args:
            times_B: (B,) int64 milliseconds when the events happened; only models that use times look at them.
        """
