"""A mixture of logits: a score that is more than one product of two vectors.

Zhai et al., "Revisiting Neural Retrieval on Accelerators", KDD 2023; the gates as in the head of Zhai et al., "Actions
Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations", ICML 2024. A hidden
state becomes P vectors of length 1 and an item Q; each of the K = P Q pairs has a product, and

    score(h, i) = sum_k g_k(h, i) <f_k(h), e_k(i)> / temperature,    g = softmax(a(h) + b(i) + c(products))

with perceptrons a, b and c. A product of two vectors gives scores of rank D; gates that look at both sides have no
such limit. It costs K products and two small layers per score, so scores are made in pieces.

Shapes: T positions, N items, M items of one position, D width of hidden states and items, P parts of a position, Q
parts of an item, K = P Q pairs, C width of a part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqrec.data.sequences import PAD
from seqrec.models.base import SequenceModelConfig

#: Products (K T N) that are held at once: enough to keep a GPU busy; on a processor, what stays in its cache.
PIECE = {"cuda": 1 << 26, "cpu": 1 << 20}


class Side(NamedTuple):
    """What one side of the mixture says.

    Attributes:
        parts: (P, T, C) of positions or (Q, N, C) of items, of length 1.
        gates: (K, T) or (K, N), its share of the gates' logits.
    """

    parts: Tensor
    gates: Tensor


class Gate(nn.Module):
    """A perceptron that says nothing at first, as wide inside as what it looks at."""

    def __init__(self, width: int, pairs: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, width), nn.Linear(width, pairs)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of (..., width)."""
        return self.narrow(F.silu(self.widen(x)))

    def of_columns(self, x: Tensor) -> Tensor:
        """(K, n) of (width, n), in the type of `x`: what lies in columns need not be turned."""
        for number, layer in enumerate((self.widen, self.narrow)):
            x = F.silu(x) if number else x
            x = torch.addmm(layer.bias.to(x.dtype)[:, None], layer.weight.to(x.dtype), x)
        return x


class Mixture(nn.Module):
    """The weights of the mixture. At first all gates are equal."""

    def __init__(self, config: SequenceModelConfig) -> None:
        super().__init__()
        (P, Q), D = config.mixture_parts, config.embedding_dim
        self.position_parts, self.item_parts = P, Q
        self.temperature = config.temperature
        self.position = nn.Linear(D, P * config.mixture_dim, bias=False)
        self.item = nn.Linear(D, Q * config.mixture_dim, bias=False)
        self.position_gate, self.item_gate, self.pair_gate = (Gate(width, P * Q) for width in (D, D, P * Q))

    def positions(self, h_TD: Tensor) -> Side:
        """The side of hidden states."""
        return Side(_parts(self.position(h_TD), self.position_parts), self.position_gate(h_TD).T)

    def items(self, x_ND: Tensor) -> Side:
        """The side of items, from vectors of unit variance."""
        return Side(_parts(self.item(x_ND), self.item_parts), self.item_gate(x_ND).T)

    def mix(self, products: Tensor, gates: Tensor) -> Tensor:
        """Scores (...) from products (K, ...) of all pairs and what both sides say about the gates (K, ...)."""
        logits = self.pair_gate.of_columns(products.flatten(1)).view(products.shape)
        shares = (logits + gates).softmax(0)
        wide = torch.promote_types(products.dtype, torch.float32)
        return (shares * products).sum(0, dtype=wide) / self.temperature

    def scores(self, positions: Side, items: Side, offsets: Tensor | None) -> Tensor:
        """(T, N) scores of all items at all positions, in float32 at least."""
        # Pairs come first: the products of one pair are a matrix, which nothing has to turn afterwards.
        products = positions.parts[:, None] @ items.parts.transpose(1, 2)[None]
        scores = self.mix(products.flatten(0, 1), positions.gates[:, :, None] + items.gates[:, None])
        return scores if offsets is None else scores + offsets

    def losses(self, positions: Side, items: Side, offsets: Tensor | None, columns_T: Tensor, smooth: float) -> Tensor:
        """(T,) cross-entropies of the columns among all items; 0 where the column is that of PAD."""
        scores, ignored = self.scores(positions, items, offsets), PAD - 1
        return F.cross_entropy(scores, columns_T, reduction="none", ignore_index=ignored, label_smoothing=smooth)


@dataclass(frozen=True)
class MixtureVectors:
    """What hidden states are compared with by a mixture: stands in for `ItemVectors`.

    Attributes:
        x_ND: item vectors of unit variance, row j belongs to item j + 1.
        head: the weights.
        offsets: (N,) added to the scores, or None.
        known: the side of all items, where it was computed already.
    """

    x_ND: Tensor
    head: Mixture
    offsets: Tensor | None = None
    known: Side | None = None

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.x_ND)

    @property
    def numbers_per_score(self) -> int:
        """About how many numbers a score leaves for the backward pass: of each pair the product, the logit with what
        led to it, and the share."""
        return 6 * self.head.position_parts * self.head.item_parts

    def score(self, h: Tensor) -> Tensor:
        """Scores (..., N) of hidden states (..., D), in float32 at least; some items at a time."""
        h_TD = h.flatten(0, -2)
        positions, items = _in_one_type(h_TD, self.head.positions(h_TD), self._items())
        with torch.autocast(h.device.type, enabled=False):
            size = max(1, _piece(h) // max(1, len(positions.gates) * len(h_TD)))
            blocks = [(first, first + size) for first in range(0, self.num_items, size)]
            parts = [
                self.head.scores(positions, _some(items, *block), _slice(self.offsets, *block)) for block in blocks
            ]
        scores_TN = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return scores_TN.view(*h.shape[:-1], -1)

    def scores_of(self, h_TD: Tensor, items_TM: Tensor) -> Tensor:
        """Scores (T, M), in float32 at least, of each state's own items (1..N) int64."""
        columns_TM = items_TM - 1
        if self.num_items > columns_TM.numel():  # the side of these alone is less work
            chosen = MixtureVectors(F.embedding(columns_TM.flatten(), self.x_ND), self.head)
            columns_TM = torch.arange(columns_TM.numel(), device=h_TD.device).view_as(columns_TM)
        else:
            chosen = self
        positions, items = _in_one_type(h_TD, self.head.positions(h_TD), chosen._items())
        with torch.autocast(h_TD.device.type, enabled=False):
            Q, _, C = items.parts.shape
            rows = F.embedding(columns_TM, torch.cat([*items.parts, items.gates.T], 1))
            parts_TMQC, gates_TMK = rows[..., : Q * C].unflatten(2, (Q, C)), rows[..., Q * C :]
            products = torch.einsum("ptc,tmqc->pqtm", positions.parts, parts_TMQC).flatten(0, 1)
            scores_TM = self.head.mix(products, positions.gates[:, :, None] + gates_TMK.permute(2, 0, 1))
        if self.offsets is None:
            return scores_TM
        return scores_TM + F.embedding(items_TM - 1, self.offsets[:, None])[..., 0]

    def cross_entropy(self, h_TD: Tensor, targets_T: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """(T,) losses of softmax over all items, float32 at least; 0 where the target is PAD.

        Some positions at a time, each made again in the backward pass: memory is that of one piece.
        """
        positions, items = _in_one_type(h_TD, self.head.positions(h_TD), self._items())
        size = max(1, _piece(h_TD) // (len(items.gates) * self.num_items))
        losses = []
        with torch.autocast(h_TD.device.type, enabled=False):
            for first in range(0, len(h_TD), size):
                some, columns = _some(positions, first, first + size), targets_T[first : first + size] - 1
                asked = some, items, self.offsets, columns, label_smoothing
                # Nothing is drawn there: looking after the generator would wait for the device.
                losses.append(checkpoint(self.head.losses, *asked, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(losses)

    def plus(self, offsets_N: Tensor) -> MixtureVectors:
        """The same with an offset added to the scores of each item."""
        return replace(self, offsets=offsets_N if self.offsets is None else self.offsets + offsets_N)

    def plain(self) -> MixtureVectors:
        """The same with the side of the items computed: for who scores again and again."""
        return replace(self, known=self._items())

    def of(self, items: Tensor | None) -> MixtureVectors:
        """The vectors of `items` (M,) only, or all when None."""
        if items is None:
            return self
        known = None if self.known is None else Side(*(part[:, items - 1] for part in self.known))
        offsets = None if self.offsets is None else self.offsets[items - 1]
        return replace(self, x_ND=self.x_ND[items - 1], offsets=offsets, known=known)

    def between(self, first: int, last: int) -> MixtureVectors:
        """The vectors of rows `first` to `last - 1` only, views."""
        known = None if self.known is None else _some(self.known, first, last)
        return replace(self, x_ND=self.x_ND[first:last], offsets=_slice(self.offsets, first, last), known=known)

    def _items(self) -> Side:
        return self.known or self.head.items(self.x_ND)


def _parts(x: Tensor, count: int) -> Tensor:
    """(P, T, C) of length 1 from (T, P C)."""
    return F.normalize(x.unflatten(1, (count, -1)), dim=-1).transpose(0, 1)


def _slice(x: Tensor | None, first: int, last: int) -> Tensor | None:
    return None if x is None else x[first:last]


def _some(side: Side, first: int, last: int) -> Side:
    return Side(*(part[:, first:last] for part in side))


def _in_one_type(h: Tensor, *sides: Side) -> list[Side]:
    """The sides in the type that products are made in: autocast's, or else that of the hidden states."""
    kind = h.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype
    return [Side(*(part.to(dtype) for part in side)) for side in sides]


def _piece(x: Tensor) -> int:
    return PIECE.get(x.device.type, PIECE["cpu"])
