"""The probe against a loop that asks the model for one prefix at a time."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from seqrec.data.batches import Batch
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.build import build_model
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training import probe as module
from seqrec.training.probe import LENGTHS, probe


def surprise(model: object, history: list[int], target: int, max_length: int) -> float:
    with torch.inference_mode():
        scores = model.scores(Batch.of([history[-max_length:]]))  # type: ignore[attr-defined]
    return -float(scores.log_softmax(1)[0, target - 1])


@pytest.mark.parametrize(("name", "max_length"), [("sasrec", 32), ("xlstm", 32), ("xlstm", 7)])
@pytest.mark.parametrize(("histories", "events"), [(128, 1 << 15), (5, 1 << 15), (128, 100)])
def test_the_probe_is_the_mean_surprise(
    name: str, max_length: int, histories: int, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HISTORIES", histories)
    monkeypatch.setattr(module, "EVENTS", events)
    torch.manual_seed(0)
    model = build_model({"name": name, "embedding_dim": 16, "max_length": max_length, "dropout": 0.5}, ITEMS)
    model.eval()  # type: ignore[attr-defined]
    data = synthetic_data(users=8)
    by_length: dict[str, list[float]] = defaultdict(list)
    users = np.flatnonzero(data.train.lengths >= 2)
    for user in users[np.linspace(0, len(users) - 1, min(histories, len(users))).astype(int)]:
        items = data.train.history(user).tolist()[-max_length - 1 :]
        for position in range(1, len(items)):
            bucket = max(low for low in LENGTHS if low <= position)
            by_length[f"{bucket}+"].append(surprise(model, items[:position], items[position], max_length))
    cases = data.cases("validation")
    cases = cases.take(np.linspace(0, len(cases) - 1, min(histories, len(cases))).astype(int))
    validation = [
        surprise(
            model,
            data.sequences.items[data.sequences.starts[user] : position].tolist(),
            int(data.sequences.items[position]),
            max_length,
        )
        for user, position in zip(cases.users, cases.positions, strict=True)
    ]

    found = probe(model, Evaluator(data, EvaluationConfig()))  # type: ignore[arg-type]

    assert found["train_loss_by_length"] == pytest.approx(
        {name: float(np.mean(losses)) for name, losses in by_length.items()}, rel=1e-4
    )
    assert found["loss"] == pytest.approx(
        {
            "train": float(np.mean([loss for losses in by_length.values() for loss in losses])),
            "validation": float(np.mean(validation)),
        },
        rel=1e-4,
    )


def test_the_probe_draws_no_random_numbers() -> None:
    model = build_model({"name": "sasrec", "embedding_dim": 16, "dropout": 0.5}, ITEMS)
    model.eval()  # type: ignore[attr-defined]
    before = torch.get_rng_state()
    probe(model, Evaluator(synthetic_data(), EvaluationConfig()))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)
