"""What a model is: a `Scorer` scores every item after a history; a `SequenceModel` learns to, by gradient.

Shapes: B rows, L positions, D width, N items (column j is item j + 1), M items asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from seqrec.config import Choice, Range, Switch
from seqrec.config import Config as AnyConfig
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import PAD, Sequences
from seqrec.errors import ConfigError
from seqrec.kernels.cross_entropy import linear_cross_entropy


class Scorer(ABC):
    """All that evaluation, recommendation and serving need. Construct with (config, num_items)."""

    Config: ClassVar[type[AnyConfig]]
    config: AnyConfig
    num_items: int
    #: Whether another seed gives another model.
    stochastic: ClassVar[bool] = False
    #: Whether it looks at the times of events; only then do batches bring them. Some models say so one by one.
    uses_times: bool = False
    #: The same for the ratings of events.
    uses_values: bool = False
    #: What it learns by where the settings name no loss: a name as registered and options, as published with it.
    default_loss: ClassVar[Mapping[str, Any]] = {"name": "softmax"}

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
    item_features: tuple[str, ...] = Field(
        (), description="what the data know about items that joins their vectors, such as categories, title, year"
    )
    head: Literal["product", "mixture"] = Field(
        "product", description="scores are products of two vectors, or mixtures of several by learned gates"
    )
    mixture_parts: tuple[PositiveInt, PositiveInt] = Field(
        (4, 4), description="mixture only: vectors that a hidden state becomes, and an item; each pair has a product"
    )
    rating_input: bool = Field(False, description="the ratings of past events are read too; needs ratings")
    mixture_dim: int = Field(32, ge=1, description="mixture only: width of these vectors")

    switches: ClassVar[Mapping[str, Switch]] = {
        "cosine": Switch({"similarity": "dot"}),
        "item_bias": Switch({"item_bias": False}, where={"similarity": "dot"}),
        "item_features": Switch({"item_features": []}),
        "mixture": Switch({"head": "product"}),
        "dropout": Switch({"dropout": 0}),
    }

    space: ClassVar[Mapping[str, Choice | Range]] = {"dropout": Range(0.2, 0.6)}
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

    # What losses ask for; a head that scores otherwise brings the same methods.

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.weight)

    @property
    def numbers_per_score(self) -> int:
        """About how many numbers a score leaves for the backward pass."""
        return 1

    def scores_of(self, h_TD: Tensor, items_TK: Tensor) -> Tensor:
        """Scores (T, K), in the dtype of h, of each state's own items (1..N): by way of all scores where that is
        less to hold than the vectors of K items for each state."""
        if self.num_items <= items_TK.shape[1] * self.weight.shape[1]:
            return picked(self.score(h_TD), items_TK)
        rows_TKD = nn.functional.embedding(items_TK - 1, self.weight)
        rows_TKD = nn.functional.normalize(rows_TKD, dim=-1) if self.cosine else rows_TKD
        scores_TK = (rows_TKD.to(h_TD.dtype) @ h_TD[..., None])[..., 0]
        return scores_TK if self.bias is None else scores_TK + self.bias[items_TK - 1].to(h_TD.dtype)

    def plus(self, offsets_N: Tensor) -> ItemVectors:
        """The same with an offset added to the scores of each item."""
        return self._replace(bias=offsets_N if self.bias is None else self.bias + offsets_N)

    def cross_entropy(self, h_TD: Tensor, targets_T: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """(T,) losses of softmax over all items, float32 at least; 0 where the target is PAD."""
        return linear_cross_entropy(
            h_TD,
            self.weight,
            targets_T - 1,
            bias=self.bias,
            label_smoothing=label_smoothing,
            ignore_index=PAD - 1,
            cosine=self.cosine,
            reduction="none",
        )


def picked(scores_TN: Tensor, items_TK: Tensor) -> Tensor:
    """Scores (T, K) of each row's own items, of the scores of all. Its gradient is summed in one order, on GPUs too."""
    rows_T1 = torch.arange(len(scores_TN), device=scores_TN.device)[:, None]
    return scores_TN[rows_T1, items_TK - 1]


class SequenceModel(nn.Module, Scorer):
    """A model trained by gradient that turns each prefix of a history into one vector."""

    stochastic = True
    #: Whether a position sees later events too. Such a model learns to fill gaps, which `training_batch` makes; only
    #: `query` says what comes next, for `encode` adds no gap at the end. Ask a model, not its class: with some it is
    #: a setting.
    bidirectional: bool = False
    #: Whether it hands the ratings of a batch to its item table, as `model.rating_input` asks.
    reads_ratings: ClassVar[bool] = False
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
        self.uses_values = config.rating_input
        if config.rating_input and not self.reads_ratings:
            raise ConfigError(f"model.rating_input: {type(self).__name__} does not read ratings; leave it out.")

    @abstractmethod
    def encode(self, batch: Batch) -> Tensor:
        """Hidden states (B, L, D), ready to be compared with `item_vectors`; padding does not change them."""

    @abstractmethod
    def item_vectors(self) -> ItemVectors:
        """What hidden states are compared with."""

    def fit_data(self, data: PreparedData) -> Self:
        """Take over what the data know about items and ratings, where `item_features` or `rating_input` asks for it:
        before training, and before the model moves to a device.

        Raises:
            ConfigError: the data lack it, or the model has no item table that could take it.
        """
        for key, asked in (("item_features", self.config.item_features), ("rating_input", self.config.rating_input)):
            if asked and not hasattr(getattr(self, "items", None), "fit_data"):
                raise ConfigError(f"model.{key}: {type(self).__name__} has no item table that could take it.")
        if self.config.item_features or self.config.rating_input:
            self.items.fit_data(data)  # type: ignore[operator, union-attr]
        return super().fit_data(data)

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Inputs and the target (B, L) of every position, PAD where there is none: here the next item.

        What is drawn here comes from torch's global generator, whose state checkpoints keep.
        """
        times_BL = None if batch.times is None else batch.times[:, :-1]
        values_BL = None if batch.values is None else batch.values[:, :-1]
        inputs = Batch(batch.items[:, :-1], (batch.lengths - 1).clamp(min=1), batch.users, times_BL, values_BL)
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

    def step(
        self, items_B: Tensor, state: Any, times_B: Tensor | None = None, values_B: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Hidden states (B, D) after one more event in every row, and the new state.

        Args:
            times_B: (B,) int64 milliseconds when the events happened; only models that use times look at them.
            values_B: (B,) float32 ratings, NaN where unknown; only models that use values look at them.
        """
