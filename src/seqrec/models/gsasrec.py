"""gSASRec: Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
Sampling", RecSys 2023.

SASRec with another loss: binary cross-entropy with many negatives, in which targets count less, since few negatives
make a model too sure of them (`seqrec.losses.bce`). The loss is what the paper is about. Blocks are those of `SASRec`
here, pre-norm, and one table serves both ends; the authors' code has the blocks of the first SASRec, which norm only
what asks, and a second table for scores unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from seqrec.config import Choice, Range
from seqrec.models.sasrec import SASRec, SASRecConfig


class GSASRecConfig(SASRecConfig):
    """What the authors use: dot products without a bias, one head, feed-forward layers no wider than the rest."""

    dropout: float = Field(0.5, ge=0, lt=1)
    similarity: Literal["dot", "cosine"] = "dot"
    item_bias: bool = Field(False, description="a learned offset per item, dot scores only")
    num_heads: int = Field(1, ge=1)
    feedforward_factor: float = Field(
        1, ge=0, description="width of the feed-forward layer over embedding_dim; 0: none"
    )

    space: ClassVar[Mapping[str, Choice | Range]] = {
        "embedding_dim": Choice(64, 128, 256),
        "num_heads": Choice(1, 2, 4),
        "num_blocks": Choice(1, 2, 3),
        "feedforward_factor": Choice(1, 2, 4),
        "dropout": Range(0.1, 0.6),
    }


class GSASRec(SASRec):
    """`SASRec`, trained with gBCE."""

    Config = GSASRecConfig
    default_loss: ClassVar[Mapping[str, Any]] = {"name": "gbce", "num_negatives": 256, "calibration": 0.75}
