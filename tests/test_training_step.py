"""One update: against plain PyTorch, and recorded against run as it stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.data.batches import Batch, BatchMaker, plan_epoch
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.build import build_model
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training import step as step_module
from seqrec.training.config import TrainingConfig
from seqrec.training.step import Step

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
MODELS = ("sasrec", "xlstm", "lstm", "gru4rec", "lrurec", "mamba4rec", "bert4rec", "neural_cf")


def made(name: str, dropout: float = 0.0, width: int = 16) -> SequenceModel:
    torch.manual_seed(3)
    model = build_model({"name": name, "embedding_dim": width, "max_length": 12, "dropout": dropout}, ITEMS)
    assert isinstance(model, SequenceModel)
    return model.train()


def run(
    name: str, device: str, loss: Any = None, dropout: float = 0.0, dtype: torch.dtype = torch.float32, **settings: Any
) -> Any:
    """What each step told (S, 2 + G), the step, and its model's weights."""
    config = TrainingConfig(**{"ema_decay": 0.9, "warmup_steps": 3, **settings})
    sequences, where = synthetic_data().train, torch.device(device)
    # Narrower heads of an xLSTM have no kernel for GPUs, and its other form waits for the device.
    model = made(name, dropout, 64 if device == "cuda" else 16).to(where, dtype)
    step = Step(model, loss or SoftmaxLoss(SoftmaxConfig()), config, BatchMaker(sequences, where))
    told: list[Tensor] = []
    for epoch in range(3):
        for rows, width in plan_epoch(sequences, 12, 16, True, [7, epoch]).batches(where):
            told.append(step(rows, width, config.learning_rate, len(told)))
    return torch.stack(told).cpu(), step, {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


def test_steps_are_those_of_plain_pytorch() -> None:
    settings: Any = {"weight_decay": 0.0, "clip_norm": 0.5}
    told, step, weights = run("sasrec", "cpu", dtype=torch.float64, **settings)
    sequences, plain = synthetic_data().train, made("sasrec").double()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    average = {name: value.detach().clone() for name, value in plain.named_parameters()}
    number = 0
    for epoch in range(3):
        plan = plan_epoch(sequences, 12, 16, True, [7, epoch])
        for first, last in zip(plan.cuts, plan.cuts[1:], strict=False):
            _, starts, lengths = plan.rows[:, first:last]
            rows = [sequences.items[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]
            batch = Batch.of([row[:-1] for row in rows])
            targets = torch.tensor([item for row in rows for item in row[1:]])
            logits = plain.item_vectors().score(plain.encode(batch))[batch.valid]
            loss = F.cross_entropy(logits, targets - 1)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
            torch.testing.assert_close(told[number, :2], torch.stack([loss.detach(), norm]), rtol=1e-6, atol=1e-9)
            decay = min(0.9, (1 + number) / (10 + number))
            for name, value in plain.named_parameters():
                average[name].mul_(decay).add_((1 - decay) * value.detach())
            number += 1
    assert number == len(told)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-9)
    for name, value in step.average.model.named_parameters():
        torch.testing.assert_close(value, average[name], rtol=1e-6, atol=1e-9)


class Whole(SoftmaxLoss):
    """The same loss, which does not say that it can come in parts."""

    separable = False


@pytest.mark.parametrize("name", ["sasrec", "xlstm", "bert4rec"])
@pytest.mark.parametrize("piece", [1, 40, 10_000])
def test_pieces_of_a_batch_are_the_batch(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "PIECE", piece)
    config = SoftmaxConfig(label_smoothing=0.1)
    whole, _, expected = run(name, "cpu", Whole(config), dtype=torch.float64)
    told, _, weights = run(name, "cpu", SoftmaxLoss(config), dtype=torch.float64)
    torch.testing.assert_close(told, whole, rtol=1e-6, atol=1e-7)
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-5, atol=1e-7)


@on_gpu
@pytest.mark.parametrize("name", MODELS)
def test_recorded_steps_are_the_steps_themselves(name: str) -> None:
    told, _, weights = run(name, "cuda", dropout=0.3, item_dropout=0.1, compile="off")
    recorded, step, same = run(name, "cuda", dropout=0.3, item_dropout=0.1)
    assert step.recorder._recordings
    assert torch.equal(told, recorded)
    assert all(torch.equal(value, same[key]) for key, value in weights.items())


@on_gpu
def test_a_step_that_waits_for_the_device_is_not_recorded() -> None:
    class Waiting(SoftmaxLoss):
        def __call__(self, h_BLD: Tensor, targets_BL: Tensor, item_vectors: ItemVectors, batch: Batch) -> Tensor:
            loss = super().__call__(h_BLD, targets_BL, item_vectors, batch)
            return loss * float(loss.item() > 0)

    with pytest.warns(UserWarning, match="waits for the GPU"):
        told, step, _ = run("sasrec", "cuda", Waiting(SoftmaxConfig()))
    assert not step.recorder._recordings
    assert torch.isfinite(told).all()
