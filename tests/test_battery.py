"""Every registered model passes the battery, and the battery catches models that must not pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.models import MODELS
from seqrec.models.base import SequenceModel
from seqrec.models.bert4rec import BERT4Rec
from seqrec.models.sasrec import SASRec
from seqrec.models.xlstm import XLSTM
from seqrec.registry import resolve
from seqrec.testing import check_model

SMALL: dict[str, Any] = {"embedding_dim": 16, "max_length": 32}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_registered_models_pass(name: str) -> None:
    model = resolve("model", name, MODELS)
    settings = SMALL if issubclass(model, SequenceModel) else {}
    assert len(check_model(model, **settings)) >= 3


@pytest.mark.parametrize("name", ["sasrec", "xlstm"])
def test_cosine_scores_pass(name: str) -> None:
    check_model(resolve("model", name, MODELS), similarity="cosine", **SMALL)


@pytest.mark.parametrize(
    "variant",
    [
        {"stack": "s", "num_blocks": 1},
        {"stack": "ms"},
        {"stack": "ma"},
        {"stack": "a", "num_blocks": 1},
        {"projection": "pre", "num_blocks": 1},
        {"conv_width": 0, "num_blocks": 1},
        {"bidirectional": True},
        {"time_gate": True, "num_blocks": 1},
        {"time_gate": True, "bidirectional": True},
        {"time_gate": True, "position_gate": True, "num_blocks": 1},
        {"position_gate": True, "bidirectional": True},
        {"shared_conv": True, "stack": "ms"},
        {"key_factor": 2, "num_blocks": 1},
        {"key_value_heads": 1, "num_blocks": 1},
        {"key_value_heads": 1, "key_factor": 0.5, "projection": "pre", "num_blocks": 1},
        {"feedforward_factor": 0, "stack": "msa", "num_blocks": 3},
        {"output_gate": "none", "head_norm": False, "gate_cap": None, "gates": "constant", "num_blocks": 1},
    ],
    ids=str,
)
def test_variants_of_the_xlstm_pass(variant: dict[str, Any]) -> None:
    passed = check_model(XLSTM, **{**SMALL, "feedforward_factor": 1, **variant})
    assert ("step_by_step" in passed) == ("bidirectional" not in variant)
    assert ("hides_targets" in passed) == ("bidirectional" in variant)
    assert ("tells_no_times" in passed) == ("time_gate" in variant)


class TellsTheTimeOfTargets(XLSTM):
    """Sees when the next event happens."""

    def encode(self, batch: Batch) -> Tensor:
        times = None if batch.times is None else batch.times.roll(-1, 1)
        return super().encode(replace(batch, times=times))


class SeesTheFuture(SASRec):
    def encode(self, batch: Batch) -> Tensor:
        return super().encode(batch) + self.items(batch.items).mean(1, keepdim=True)


class GivesNaN(SASRec):
    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        return super().scores(batch, items) * torch.nan


class MindsPadding(SASRec):
    def encode(self, batch: Batch) -> Tensor:
        return super().encode(batch) * batch.items.shape[1]


class KeepsAnIdleWeight(SASRec):
    def __init__(self, config: Any, num_items: int) -> None:
        super().__init__(config, num_items)
        self.idle = torch.nn.Parameter(torch.zeros(3))


class SeesItsTargets(BERT4Rec):
    """Says where the gaps are, and leaves in them what stood there."""

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        return batch, super().training_batch(batch)[1]


class SumsUpTheRow(BERT4Rec):
    """Masks, and lets the sum of the row, targets and all, through beside the mask."""

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        inputs, targets = super().training_batch(batch)
        return Batch(inputs.items, inputs.lengths, batch.items.sum(1)), targets

    def encode(self, batch: Batch) -> Tensor:
        h = super().encode(batch)
        return h if batch.users is None else h + batch.users[:, None, None] / 100


class LooksBehindTheEnd(BERT4Rec):
    def with_mask(self, batch: Batch) -> Batch:
        longer = super().with_mask(batch)
        return Batch(longer.items, longer.lengths.clamp(min=longer.items.shape[1]), batch.users)

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        h_BD = batch.last(self.encode(self.with_mask(batch))[:, 1:])
        return self.item_vectors().of(items).score(h_BD)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (SeesTheFuture, "padding_invariance|causality"),
        (GivesNaN, "finite_scores"),
        (MindsPadding, "padding_invariance"),
        (KeepsAnIdleWeight, "overfits_and_moves"),
        (SeesItsTargets, "hides_targets"),
        (SumsUpTheRow, "hides_targets"),
        (LooksBehindTheEnd, "padding_invariance"),
    ],
)
def test_broken_models_are_caught(broken: type[SequenceModel], check: str) -> None:
    with pytest.raises(AssertionError, match=f"{broken.__name__} fails ({check})"):
        check_model(broken, **SMALL)


def test_a_model_that_is_told_when_targets_happen_is_caught() -> None:
    with pytest.raises(AssertionError, match="TellsTheTimeOfTargets fails tells_no_times"):
        check_model(TellsTheTimeOfTargets, **SMALL, time_gate=True)
