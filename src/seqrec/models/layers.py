"""What two models share: settings of a stack of blocks, the item table, where events enter and are scored, and layers.

Shapes: B rows, L positions, D width, K layers, G gates times width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.config import Choice, Range
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import PAD
from seqrec.kernels.dropout import dropout
from seqrec.kernels.fused import swiglu, unit
from seqrec.kernels.residual_norm import residual_norm
from seqrec.models.base import ItemVectors, SequenceModelConfig
from seqrec.models.item_features import ItemFeature, feature_rows
from seqrec.models.mixture import Mixture, MixtureVectors
from seqrec.models.ratings import Ratings


class StackConfig(SequenceModelConfig):
    """What models made of equal blocks with heads have."""

    num_heads: int = Field(2, ge=1)
    num_blocks: int = Field(2, ge=1)
    feedforward_factor: float = Field(
        4, ge=0, description="width of the feed-forward layer over embedding_dim; 0: none"
    )

    space: ClassVar[Mapping[str, Choice | Range]] = {"num_heads": Choice(1, 2, 4, 8), "num_blocks": Choice(1, 2, 3, 4)}

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.embedding_dim % self.num_heads:
            raise ValueError(f"embedding_dim {self.embedding_dim} is not a multiple of num_heads {self.num_heads}")
        return self


class ItemTable(nn.Module):
    """One tied vector per item, scaled to unit variance on the way in.

    Cosine similarity compares directions only and divides by a temperature; it needs no item bias,
    which would let popularity back in past the normalisation. A mixture is made of cosines, whatever the similarity.
    """

    def __init__(self, config: SequenceModelConfig, num_items: int) -> None:
        super().__init__()
        self.cosine = config.similarity == "cosine"
        self.temperature = config.temperature
        self.scale = config.embedding_dim**0.5
        self.weight = nn.Parameter(torch.empty(num_items + 1, config.embedding_dim))
        biased = config.item_bias and not self.cosine and config.head == "product"
        self.bias = nn.Parameter(torch.zeros(num_items)) if biased else None
        self.feature_names = config.item_features
        self.features = nn.ModuleList(ItemFeature(config.embedding_dim) for _ in config.item_features)
        nn.init.trunc_normal_(self.weight, std=config.embedding_dim**-0.5)
        with torch.no_grad():
            self.weight[PAD] = 0
        self.mixture = Mixture(config) if config.head == "mixture" else None
        self.ratings = Ratings(config.embedding_dim) if config.rating_input else None

    def fit_data(self, data: PreparedData) -> None:
        """Know the features of items, and the ratings, that the configuration asks for.

        Raises:
            ConfigError: the data set lacks one of them.
        """
        if self.ratings is not None:
            self.ratings.fit_data(data)
        if not self.features:
            return
        for feature, rows in zip(self.features, feature_rows(data, self.feature_names), strict=True):
            assert isinstance(feature, ItemFeature)
            feature.take(F.pad(torch.from_numpy(rows), (0, 0, 1, 0)).to(self.weight))

    def forward(self, items_BL: Tensor, values_BL: Tensor | None = None) -> Tensor:
        """Vectors (..., D) of events, from their items (...) and, where they are read, their ratings (...).

        Zero for PAD, whose row never learns.
        """
        x_BLD = self._found(items_BL.int())
        return x_BLD if self.ratings is None else x_BLD + self.ratings(values_BL, items_BL)

    def _found(self, items_BL: Tensor) -> Tensor:
        """Vectors (..., D) of items (...)."""
        if self.features and items_BL.numel() >= len(self.weight):
            return F.embedding(items_BL, self.table(), padding_idx=PAD) * self.scale
        x_BLD = F.embedding(items_BL, self.weight, padding_idx=PAD)
        for feature in self.features:
            x_BLD = x_BLD + feature(items_BL)
        return x_BLD * self.scale

    def table(self) -> Tensor:
        """Vectors (N + 1, D) of PAD and all items, what their features say included."""
        table = self.weight
        for feature in self.features:
            table = table + feature()
        return table

    def query(self, h: Tensor) -> Tensor:
        """Hidden states (..., D) as they are compared with `vectors`."""
        return unit(h, self.temperature) if self.cosine and self.mixture is None else h

    def vectors(self) -> ItemVectors:
        """What hidden states are compared with; `MixtureVectors`, which stand in for them, where that is the head."""
        if self.mixture is not None:
            return cast(ItemVectors, MixtureVectors(self.table()[1:] * self.scale, self.mixture))
        return ItemVectors(self.table()[1:], self.bias, self.cosine)


def add_and_norm(
    x: Tensor,
    branch: Tensor | None,
    norm: nn.RMSNorm | nn.LayerNorm,
    dropout: nn.Dropout,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """x + dropout(branch), and norm of that, (..., D) both: `residual_norm` with what modules hold.

    Blocks hand on what they would add last, so that it meets the norm of the block after.
    """
    assert norm.eps is not None
    bias = norm.bias if isinstance(norm, nn.LayerNorm) else None
    share = dropout.p if dropout.training else 0.0
    return residual_norm(x, branch, norm.weight, bias, eps=norm.eps, dropout=share, dtype=dtype)


class Dropout(nn.Dropout):
    """nn.Dropout, faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p if self.training else 0.0)


class SwiGLU(nn.Module):
    """Shazeer, "GLU Variants Improve Transformer", 2020."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate_up(x)))


#: What recurrent layers remember: h (B, K, D), and c (B, K, D) where the cell has one.
RecurrentState = tuple[Tensor, ...]
#: From a position's input and the last hidden state, each through its weights (B, G), and the state to the next state;
#: parts of the state are (B, D) here.
Cell = Callable[[Tensor, Tensor, RecurrentState], RecurrentState]


class Recurrence(nn.Module):
    """nn.LSTM or nn.GRU over right-padded rows: one call for all positions, which on a GPU is one of cuDNN.

    What stands behind a position never moves it, so padding needs no packing.

    Args:
        rnn: layers of one width, batch first.
        cell: its arithmetic. torch.compile does not look into nn.LSTM and nn.GRU, and an exported graph would hold
            them as one call that few runtimes know; so a traced model runs the cell, position by position.
    """

    def __init__(self, rnn: nn.LSTM | nn.GRU, cell: Cell) -> None:
        super().__init__()
        self.rnn = rnn
        self.cell = cell
        self.dropout = rnn.dropout
        self.weights = tuple(rnn.parameters())

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Hidden states of the last layer (B, L, D)."""
        return self._run(x_BLD, self.initial_state(len(x_BLD)))[0]

    def initial_state(self, batch: int) -> RecurrentState:
        """Zeros: h, and c for an LSTM."""
        of_hidden = self.weights[1]
        gates, D = of_hidden.shape[0] // of_hidden.shape[1], of_hidden.shape[1]
        parts = 2 if gates == 4 else 1
        return tuple(of_hidden.new_zeros(batch, len(self.weights) // 4, D) for _ in range(parts))

    def prefill(self, x_BLD: Tensor, lengths_B: Tensor) -> RecurrentState:
        """The state after each row's last event; packed, since no call returns c at every position."""
        packed = nn.utils.rnn.pack_padded_sequence(x_BLD, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        return self._run(packed, self.initial_state(len(x_BLD)))[1]

    def step(self, x_BD: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """One more event per row: hidden states of the last layer (B, D), and the state after it."""
        y_BLD, state = self._run(x_BD[:, None], state)
        return y_BLD[:, 0], state

    def _run(self, x: Any, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """In the precision of the weights: under autocast cuDNN would run in float16, whatever type was asked for,
        and gradients averaged over thousands of positions would vanish in it."""
        if torch.compiler.is_compiling():
            return self._traced(x, state)
        before = tuple(part.transpose(0, 1).contiguous() for part in state)
        with torch.autocast(before[0].device.type, enabled=False):
            y, after = self.rnn(x, before if len(before) == 2 else before[0])
        return y, tuple(part.transpose(0, 1) for part in (after if len(before) == 2 else (after,)))

    def _traced(self, x_BLD: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """`_run` out of plain operations."""
        ends = []
        for layer, at in enumerate(zip(*(part.unbind(1) for part in state), strict=True)):
            of_input, of_hidden, input_bias, hidden_bias = self.weights[4 * layer : 4 * layer + 4]
            x_BLD = F.dropout(x_BLD, self.dropout, self.training and layer > 0)
            outputs = []
            for input_BG in F.linear(x_BLD, of_input, input_bias).unbind(1):
                at = self.cell(input_BG, F.linear(at[0], of_hidden, hidden_bias), at)
                outputs.append(at[0])
            x_BLD = torch.stack(outputs, 1)
            ends.append(at)
        return x_BLD, tuple(torch.stack(parts, 1) for parts in zip(*ends, strict=True))
