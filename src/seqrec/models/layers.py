"""What two models share: the item table, which is both where events enter and what hidden states are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.sequences import PAD
from seqrec.models.base import ItemVectors, SequenceModelConfig


class ItemTable(nn.Module):
    """One tied vector per item, scaled to unit variance on the way in.

    Cosine similarity compares directions only and divides by a temperature; it needs no item bias,
    which would let popularity back in past the normalisation.
    """

    def __init__(self, config: SequenceModelConfig, num_items: int) -> None:
        super().__init__()
        self.cosine = config.similarity == "cosine"
        self.temperature = config.temperature
        self.scale = config.embedding_dim**0.5
        self.weight = nn.Parameter(torch.empty(num_items + 1, config.embedding_dim))
        self.bias = nn.Parameter(torch.zeros(num_items)) if config.item_bias and not self.cosine else None
        nn.init.trunc_normal_(self.weight, std=config.embedding_dim**-0.5)
        with torch.no_grad():
            self.weight[PAD] = 0

    def forward(self, items_BL: Tensor) -> Tensor:
        """Vectors (..., D) of items (...); zero for PAD, whose row never learns."""
        return F.embedding(items_BL, self.weight, padding_idx=PAD) * self.scale

    def query(self, h: Tensor) -> Tensor:
        """Hidden states (..., D) as they are compared with `vectors`."""
        return F.normalize(h, dim=-1) / self.temperature if self.cosine else h

    def vectors(self) -> ItemVectors:
        """What hidden states are compared with."""
        weight = self.weight[1:]
        return ItemVectors(F.normalize(weight, dim=-1) if self.cosine else weight, self.bias)
