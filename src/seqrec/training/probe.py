"""Losses without dropout or augmentation, on the same few histories every time: the gap between them is overfitting.

Shapes: B rows, L positions, N items.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.sequences import PAD, Ints
from seqrec.evaluation.evaluator import Evaluator
from seqrec.models.base import SequenceModel
from seqrec.models.sharded import ShardedItemVectors, sharded_table

#: How many histories are looked at; how many of their events and how many scores are held at once.
HISTORIES, EVENTS, SCORES = 128, 1 << 15, 1 << 25
#: Lower ends of the history lengths the training loss is broken down by.
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)


@torch.inference_mode()
def probe(model: SequenceModel, evaluator: Evaluator) -> dict[str, dict[str, float]]:
    """Mean negative log-probability of the next item, over the whole catalogue, whatever the training loss is.

    Returns:
        `loss`: `train` and `validation`; `train_loss_by_length`: by number of events before the target.
    """
    train = evaluator.data.train
    users = np.flatnonzero(train.lengths >= 2)
    users = users[np.linspace(0, len(users) - 1, min(HISTORIES, len(users))).astype(np.int64)]
    totals, counts = np.zeros(len(LENGTHS)), np.zeros(len(LENGTHS))
    for some in _parts(users, model):
        events = model.config.max_length + 1
        batch = evaluator.windows(some, train, events, model.uses_times, model.uses_values)
        inputs, targets_BL = model.training_batch(batch)
        loss_BL = _negative_log(model, model.encode(inputs), targets_BL)
        known = (targets_BL != PAD).cpu().numpy()
        lengths = np.broadcast_to(np.arange(1, known.shape[1] + 1), known.shape)[known]
        bucket = np.digitize(lengths, LENGTHS) - 1
        totals += np.bincount(bucket, loss_BL.cpu().numpy()[known], minlength=len(LENGTHS))
        counts += np.bincount(bucket, minlength=len(LENGTHS))
    by_length = {
        f"{low}+": float(total / count) for low, total, count in zip(LENGTHS, totals, counts, strict=True) if count
    }
    validation = _validation_loss(model, evaluator)
    train_loss = float(totals.sum() / counts.sum()) if counts.sum() else validation
    return {"loss": {"train": train_loss, "validation": validation}, "train_loss_by_length": by_length}


def _validation_loss(model: SequenceModel, evaluator: Evaluator) -> float:
    cases = evaluator.data.cases("validation")
    chosen = np.linspace(0, len(cases) - 1, min(HISTORIES, len(cases))).astype(np.int64)
    total = 0.0
    for some in _parts(chosen, model):
        asked = cases.take(some)
        batch = evaluator.histories(model, asked)
        items_B = evaluator.data.sequences.items[asked.positions].astype(np.int64)
        targets_B = torch.from_numpy(items_B).to(evaluator.device)
        if sharded_table(model):
            total += float(_negative_log(model, model.query(batch)[:, None], targets_B[:, None]).sum())
        else:
            total += float(F.cross_entropy(model.scores(batch), targets_B - 1, reduction="sum"))
    return total / len(chosen)


def _parts(rows: Ints, model: SequenceModel) -> list[Ints]:
    """As many histories at a time as memory is for, if all are as long as the model reads and all items are scored."""
    size = max(1, min(EVENTS // model.config.max_length, SCORES // model.num_items))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _negative_log(model: SequenceModel, h_BLD: Tensor, targets_BL: Tensor) -> Tensor:
    vectors = model.item_vectors()
    if isinstance(vectors, ShardedItemVectors):
        return vectors.cross_entropy(h_BLD.flatten(0, 1), targets_BL.flatten(), 0.0).view_as(targets_BL)
    plain, size = vectors.plain(), max(1, SCORES // model.num_items)
    parts = zip(h_BLD.flatten(0, 1).split(size), targets_BL.flatten().split(size), strict=True)
    losses = [F.cross_entropy(plain.score(h), t - 1, ignore_index=PAD - 1, reduction="none") for h, t in parts]
    return torch.cat(losses).view_as(targets_BL)
