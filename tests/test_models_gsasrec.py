"""gSASRec: its loss by default, the authors' settings, and the arithmetic of its pre-norm blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.experiments.config import RunConfig
from seqrec.losses.bce import GBCEConfig
from seqrec.models.gsasrec import GSASRec, GSASRecConfig

HISTORY = [1, 2, 9, 2, 5]


def model() -> GSASRec:
    """In float64, with every weight moved."""
    torch.manual_seed(0)
    gsasrec = GSASRec(GSASRecConfig(embedding_dim=8, max_length=6), 9).double().eval()
    with torch.no_grad():
        for parameter in gsasrec.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return gsasrec


def test_learned_with_gbce_as_published() -> None:
    config = RunConfig.from_dict({"model": {"name": "gsasrec"}})
    assert config.loss_name == "gbce"
    assert config.loss == GBCEConfig(num_negatives=256, calibration=0.75)
    assert isinstance(config.model, GSASRecConfig)
    assert (config.model.num_heads, config.model.num_blocks, config.model.feedforward_factor) == (1, 2, 1)


def test_scores_are_products_without_a_bias() -> None:
    gsasrec, batch = model(), Batch.of([HISTORY, [3]])
    assert gsasrec.item_vectors().bias is None
    torch.testing.assert_close(gsasrec.scores(batch), gsasrec.last_state(batch) @ gsasrec.items.weight[1:].T)


def test_the_formulas_event_by_event() -> None:
    gsasrec = model()
    w = {name: value.detach() for name, value in gsasrec.state_dict().items()}

    def affine(name: str, x: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def normed(name: str, x: Tensor) -> Tensor:
        apart = x - x.mean()
        return apart / math.sqrt(float(apart.square().mean()) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    rows = [w["items.weight"][item] * math.sqrt(8) + w["positions"][place] for place, item in enumerate(HISTORY)]
    for block in ("blocks.0", "blocks.1"):
        qkv = [affine(f"{block}.attention.qkv", normed(f"{block}.attention_norm", row)).chunk(3) for row in rows]
        after = []
        for i, row in enumerate(rows):
            strengths = [math.exp(float(qkv[i][0] @ k) / math.sqrt(8)) for _, k, _ in qkv[: i + 1]]
            seen = torch.zeros(8, dtype=torch.float64)
            for strength, (_, _, v) in zip(strengths, qkv, strict=False):
                seen += strength / sum(strengths) * v
            row = row + affine(f"{block}.attention.out", seen)
            wide = affine(f"{block}.feedforward.0", normed(f"{block}.feedforward_norm", row)).tolist()
            bent = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in wide]
            after.append(row + affine(f"{block}.feedforward.3", torch.tensor(bent, dtype=torch.float64)))
        rows = after
    expected = torch.stack([normed("norm", row) for row in rows])
    with torch.no_grad():
        torch.testing.assert_close(gsasrec.encode(Batch.of([HISTORY]))[0], expected, rtol=1e-10, atol=1e-10)
