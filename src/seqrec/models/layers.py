"""What two models share: settings of a stack of blocks, and the item table, where events enter and are scored."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqrec.data.sequences import PAD
from seqrec.models.base import ItemVectors, SequenceModelConfig


class StackConfig(SequenceModelConfig):
    """What models made of equal blocks with heads have."""

    num_heads: int = Field(2, ge=1)
    num_blocks: int = Field(2, ge=1)
    feedforward_factor: float = Field(4, gt=0, description="width of the feed-forward layer over embedding_dim")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.embedding_dim % self.num_heads:
            raise ValueError(f"embedding_dim {self.embedding_dim} is not a multiple of num_heads {self.num_heads}")
        return self


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
